"""CCA-SSG (Zhang et al. 2021) on CiteSeer, its authors' settings: one layer."""

from pathlib import Path

from sslcollapse.recipe import extend

recipe = extend(
    Path(__file__).with_name("cca_ssg_cora.py"),
    dict(
        name="cca_ssg_citeseer",
        domain=dict(dataset=dict(name="CiteSeer"), views=dict(feature_mask=[0.0, 0.0])),
        encoder=dict(hidden=[512]),
        objective=dict(decorrelation=5e-4),
        train=dict(steps=20, checkpoint_every=10),
    ),
)
