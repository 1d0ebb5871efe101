"""A short SimCLR run with a narrow residual network on a JPEG copy of CIFAR-10, with and without WERank: one seed."""

ablation = dict(
    name="narrow_cifar10_jpeg",
    base="../simclr_werank_narrow_cifar10_jpeg.py",
    axes={"regularizers.werank": [None, dict(type="werank", coefficient=1e-3)]},
    seeds=1,
    baseline={"regularizers.werank": None},
)
