"""GRACE on the block model of ``bgrl_csbm_1m``: the roots of a step are each other's negatives.

No settings of others apply to this graph: the loss is that of ``grace_cora``, not tuned.
"""

from pathlib import Path

from sslcollapse.recipe import extend

recipe = extend(
    Path(__file__).with_name("bgrl_csbm_1m.py"),
    dict(
        name="grace_csbm_1m",
        objective=dict(type="simclr", temperature=0.4, projector=[128, 128], norm="none", activation="elu"),
    ),
)
