"""Graph Barlow Twins on CiteSeer as grids of claims use it; as gbt_cora here."""

from pathlib import Path

from sslcollapse.recipe import extend

recipe = extend(
    Path(__file__).with_name("gbt_cora.py"),
    dict(name="claims_gbt_citeseer", domain=dict(dataset=dict(name="CiteSeer"))),
)
