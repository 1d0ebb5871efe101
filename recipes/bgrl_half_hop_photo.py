"""``bgrl_photo`` with Half-Hop (Azabou et al., ICML 2023) before edges are dropped; p is our own choice."""

from pathlib import Path

from sslcollapse.recipe import extend


def steps(edge_drop: float, feature_mask: float) -> list[dict]:
    return [
        dict(type="half_hop", p=0.5, alpha=0.5),
        dict(type="edge_drop", p=edge_drop),
        dict(type="feature_mask", p=feature_mask),
    ]


recipe = extend(
    Path(__file__).with_name("bgrl_photo.py"),
    dict(
        name="bgrl_half_hop_photo",
        domain=dict(views=dict(type="chain", views=[steps(0.4, 0.1), steps(0.1, 0.2)])),
    ),
)
