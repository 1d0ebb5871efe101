"""VISReg, lightly's loss and head, on handwritten digits; all but the objective as simclr_digits."""

from pathlib import Path

from sslcollapse.recipe import extend

recipe = extend(
    Path(__file__).parents[1] / "simclr_digits.py",
    dict(
        name="visreg_digits",
        objective=dict(
            type="lightly",
            loss="VISRegLoss",
            arguments=dict(lambda_param=0.6, num_slices=512),
            head="SimCLRProjectionHead",
            projector=[256, 64],
        ),
    ),
)
