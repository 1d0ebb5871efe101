"""Barlow Twins on CIFAR-10, ResNet-18, 200 epochs: solo-learn's settings (projector of 3 × 2048, loss × 0.1, LARS)."""

from pathlib import Path

from sslcollapse.recipe import extend

recipe = extend(
    Path(__file__).with_name("simclr_cifar10.py"),
    dict(
        name="barlow_twins_cifar10",
        domain=dict(views=dict(preset="byol")),
        objective=dict(type="barlow_twins", projector=[2048, 2048, 2048], redundancy=5e-3, scale=0.1),
        optim=dict(type="lars", lr=0.3, weight_decay=1e-4, trust_coefficient=0.02, clip=True, warmup_steps=1_950),
    ),
)
