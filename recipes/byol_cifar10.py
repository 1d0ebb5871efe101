"""BYOL on CIFAR-10, ResNet-18, 200 epochs: solo-learn's settings (heads 4096-256, momentum .99 to 1, LARS)."""

from pathlib import Path

from sslcollapse.recipe import extend

recipe = extend(
    Path(__file__).with_name("simclr_cifar10.py"),
    dict(
        name="byol_cifar10",
        domain=dict(views=dict(preset="byol")),
        objective=dict(type="byol", projector=[4096, 256], predictor_hidden=4096, momentum=0.99),
        optim=dict(type="lars", lr=1.0, weight_decay=1e-5, trust_coefficient=0.02, clip=True, warmup_steps=1_950),
    ),
)
