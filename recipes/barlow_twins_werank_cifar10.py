"""Barlow Twins on CIFAR-10 with WERank; everything else is the same."""

from pathlib import Path

from sslcollapse.recipe import extend

recipe = extend(
    Path(__file__).with_name("barlow_twins_cifar10.py"),
    dict(name="barlow_twins_werank_cifar10", regularizers=dict(werank=dict(type="werank", coefficient=1e-3))),
)
