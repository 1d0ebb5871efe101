"""VICReg on Cora, without a projector. There are no published settings for graphs."""

from pathlib import Path

from sslcollapse.recipe import extend

recipe = extend(
    Path(__file__).with_name("gbt_cora.py"),
    dict(
        name="vicreg_cora",
        objective=dict(type="vicreg", projector=[]),
    ),
)
