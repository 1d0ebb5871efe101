"""VICReg: as simclr, with VICReg's views, projector and LARS, whose learning rate grows with the batch."""

from pathlib import Path

from sslcollapse.recipe import extend, load

base = load(Path(__file__).with_name("simclr.py"))

recipe = extend(
    base,
    dict(
        name="speedrun_vicreg",
        domain=dict(views=dict(preset="vicreg", crop_scale=[0.2, 1.0], jitter=None)),
        objective=dict(type="vicreg", projector=[2048, 2048, 2048]),
        optim=dict(
            type="lars",
            lr=0.3 * base["domain"]["batch_size"] / 256,
            weight_decay=1e-4,
            trust_coefficient=0.02,
            clip=True,
            warmup_steps=base["optim"]["warmup_steps"],
        ),
    ),
)
