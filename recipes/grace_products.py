"""GRACE on ogbn-products with the encoder and batches of ``bgrl_products``: roots of a step are each other's negatives.

GRACE's authors did not train on it. GraphMAE2's authors report GRACE on it, 79.47, and do not list its settings. The
loss is that of ``grace_cora``, not tuned.
"""

from pathlib import Path

from sslcollapse.recipe import extend

recipe = extend(
    Path(__file__).with_name("bgrl_products.py"),
    dict(
        name="grace_products",
        domain=dict(views=dict(feature_mask=[0.1, 0.1])),
        objective=dict(type="simclr", temperature=0.4, projector=[256, 256], norm="none", activation="elu"),
    ),
)
