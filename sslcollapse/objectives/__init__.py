"""Objectives: losses over branches; they own no network."""

BUILTIN = {
    "objective": {
        "bgrl": "byol:BGRL",
        "byol": "byol:BYOL",
        "simsiam": "simsiam:SimSiam",
        "simclr": "simclr:SimCLR",
        "vicreg": "vicreg:VICReg",
        "barlow_twins": "barlow_twins:BarlowTwins",
        "cca_ssg": "cca_ssg:CCASSG",
        "graphmae": "graphmae:GraphMAE",
        "lightly": "lightly:Lightly",
    },
}
"""Kind → name → module of this room and attribute; imported when first used."""
