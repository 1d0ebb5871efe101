"""BGRL on CiteSeer as the depth grids use it: 256-wide layers, strong views, and a target that has turned over.

Momentum goes from 0.95 to 1 over 200 steps, which leaves less than 1 % of the target's random start in it.
"""

from pathlib import Path

from sslcollapse.recipe import extend

recipe = extend(
    Path(__file__).parents[1] / "bgrl_citeseer.py",
    dict(
        name="claims_bgrl_deep_citeseer",
        encoder=dict(hidden=[256] * 8),
        objective=dict(predictor_hidden=256, momentum=0.95),
        regularizers=dict(werank=dict(type="werank", coefficient=0.0)),
        train=dict(steps=200, checkpoint_every=0),
        evaluate=dict(random=None),
    ),
)
