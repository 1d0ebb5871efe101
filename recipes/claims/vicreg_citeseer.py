"""VICReg on CiteSeer as grids of claims use it; as vicreg_cora here."""

from pathlib import Path

from sslcollapse.recipe import extend

recipe = extend(
    Path(__file__).with_name("vicreg_cora.py"),
    dict(name="claims_vicreg_citeseer", domain=dict(dataset=dict(name="CiteSeer"))),
)
