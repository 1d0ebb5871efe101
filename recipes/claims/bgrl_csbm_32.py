"""BGRL on a block model with 32 features, as the claims' grids use it."""

from pathlib import Path

from sslcollapse.recipe import extend

recipe = extend(
    Path(__file__).with_name("bgrl_csbm.py"),
    dict(name="claims_bgrl_csbm_32", domain=dict(dataset=dict(features=32))),
)
