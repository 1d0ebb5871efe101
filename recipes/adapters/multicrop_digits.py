"""VISReg with two global and four local crops of each digit, views by torchvision; all else as visreg_digits."""

from pathlib import Path

from sslcollapse.recipe import extend

recipe = extend(
    Path(__file__).with_name("visreg_digits.py"),
    dict(
        name="multicrop_digits",
        domain=dict(
            views=dict(
                type="torchvision",
                pipeline=[dict(type="RandomResizedCrop"), dict(type="RandomAffine", degrees=10)],
                count=[2, 4],
                sizes=[8, 6],
                scales=[[0.5, 1.0], [0.2, 0.5]],
            ),
        ),
        objective=dict(global_views=2),
    ),
)
