"""GRACE (Zhu et al. 2020) on CiteSeer, its authors' settings."""

from pathlib import Path

from sslcollapse.recipe import extend

recipe = extend(
    Path(__file__).with_name("grace_cora.py"),
    dict(
        name="grace_citeseer",
        domain=dict(dataset=dict(name="CiteSeer"), views=dict(edge_drop=[0.2, 0.0], feature_mask=[0.3, 0.2])),
        encoder=dict(hidden=[512, 256], activation="prelu", final_activation="prelu"),
        objective=dict(temperature=0.9, projector=[256, 256]),
        optim=dict(lr=1e-3),
    ),
)
