"""SimCLR with a narrow residual network on CIFAR-10 (JPEG) with WERank; everything else is the same."""

from pathlib import Path

from sslcollapse.recipe import extend

recipe = extend(
    Path(__file__).with_name("simclr_narrow_cifar10_jpeg.py"),
    dict(
        name="simclr_werank_narrow_cifar10_jpeg",
        regularizers=dict(werank=dict(type="werank", coefficient=1e-3)),
    ),
)
