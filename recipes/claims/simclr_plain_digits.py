"""SimCLR on digits with a plain network, without skips, for the grid of depth on images; a linear probe."""

from pathlib import Path

from sslcollapse.recipe import extend

recipe = extend(
    Path(__file__).parents[1] / "simclr_digits.py",
    dict(
        name="claims_simclr_plain_digits",
        encoder=dict(width=16, blocks=[2, 1, 1], skips=False),
        regularizers=dict(werank=dict(type="werank", coefficient=0.0)),
        train=dict(checkpoint_every=0),
        evaluate=dict(knn=None),
    ),
)
