"""BGRL on Amazon Photo as the claims' grids use it: bgrl_cora here, 100 steps, five random splits a seed."""

from pathlib import Path

from sslcollapse.recipe import extend

recipe = extend(
    Path(__file__).with_name("bgrl_cora.py"),
    dict(
        name="claims_bgrl_photo",
        domain=dict(dataset=dict(type="amazon", name="Photo")),
        optim=dict(warmup_steps=20),
        train=dict(steps=100),
        evaluate=dict(
            public=None,
            random=dict(type="logistic", split="random", fractions=[0.1, 0.1, 0.8], repeats=5),
        ),
    ),
)
