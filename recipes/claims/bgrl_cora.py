"""BGRL on Cora as grids of claims use it: narrow, 200 steps, one probe, weak views; so many seeds are affordable."""

from pathlib import Path

from sslcollapse.recipe import extend

recipe = extend(
    Path(__file__).parents[1] / "bgrl_cora.py",
    dict(
        name="claims_bgrl_cora",
        domain=dict(views=dict(strength=0.2)),
        encoder=dict(hidden=[256, 256]),
        objective=dict(predictor_hidden=256),
        regularizers=dict(werank=dict(type="werank", coefficient=0.0)),
        train=dict(steps=200, checkpoint_every=0),
        evaluate=dict(random=None),
    ),
)
