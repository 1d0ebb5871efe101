"""BGRL on the neighbour graph of handwritten digits, 64 features, as the claims' grids use it."""

from pathlib import Path

from sslcollapse.recipe import extend

recipe = extend(
    Path(__file__).with_name("bgrl_cora.py"),
    dict(name="claims_bgrl_digits", domain=dict(dataset=dict(type="digits"))),
)
