"""BGRL on a block model with 512 features, many as citation graphs have them, as the claims' grids use it."""

from pathlib import Path

from sslcollapse.recipe import extend

recipe = extend(
    Path(__file__).with_name("bgrl_csbm.py"),
    dict(name="claims_bgrl_csbm_512", domain=dict(dataset=dict(features=512))),
)
