"""VICReg on CIFAR-10, ResNet-18, 200 epochs: solo-learn's settings (25 / 25 / 1, projector 2048-2048-2048, LARS)."""

from pathlib import Path

from sslcollapse.recipe import extend

recipe = extend(
    Path(__file__).with_name("simclr_cifar10.py"),
    dict(
        name="vicreg_cifar10",
        domain=dict(views=dict(preset="vicreg", crop_scale=[0.2, 1.0])),
        objective=dict(type="vicreg", projector=[2048, 2048, 2048]),
        optim=dict(type="lars", lr=0.3, weight_decay=1e-4, trust_coefficient=0.02, clip=True, warmup_steps=1_950),
    ),
)
