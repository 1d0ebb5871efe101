"""BGRL on Amazon Computers as the claims' grids use it: bgrl_cora here, 50 steps, five random splits a seed."""

from pathlib import Path

from sslcollapse.recipe import extend

recipe = extend(
    Path(__file__).with_name("bgrl_cora.py"),
    dict(
        name="claims_bgrl_computers",
        domain=dict(dataset=dict(type="amazon", name="Computers")),
        optim=dict(warmup_steps=10),
        train=dict(steps=50),
        evaluate=dict(
            public=None,
            random=dict(type="logistic", split="random", fractions=[0.1, 0.1, 0.8], repeats=5),
        ),
    ),
)
