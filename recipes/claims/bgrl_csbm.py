"""BGRL on a block model with few features, as the claims' grids use it."""

from pathlib import Path

from sslcollapse.recipe import extend

recipe = extend(
    Path(__file__).with_name("bgrl_cora.py"),
    dict(
        name="claims_bgrl_csbm",
        domain=dict(
            dataset=dict(type="csbm", nodes=2000, classes=5, features=8, homophily=0.6, degree=6.0, signal=1.0)
        ),
    ),
)
