"""BYOL: as simclr, with BYOL's views, heads and LARS, whose learning rate grows with the batch."""

from pathlib import Path

from sslcollapse.recipe import extend, load

base = load(Path(__file__).with_name("simclr.py"))

recipe = extend(
    base,
    dict(
        name="speedrun_byol",
        domain=dict(views=dict(preset="byol", jitter=None)),
        objective=dict(type="byol", projector=[4096, 256], predictor_hidden=4096, momentum=0.99),
        optim=dict(
            type="lars",
            lr=1.0 * base["domain"]["batch_size"] / 256,
            weight_decay=1e-5,
            trust_coefficient=0.02,
            clip=True,
            warmup_steps=base["optim"]["warmup_steps"],
        ),
    ),
)
