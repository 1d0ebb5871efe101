"""Domains: where batches of views come from. Nothing outside this folder knows what the data are."""

BUILTIN = {
    "domain": {
        "graph": "graph.domain:GraphDomain",
        "vision": "vision.domain:VisionDomain",
        "toy": "toy.domain:ToyDomain",
    },
}
"""Kind → name → module of this room and attribute; imported when first used."""
