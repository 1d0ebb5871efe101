"""BGRL on CiteSeer as the claims' grids use it; as bgrl_cora here."""

from pathlib import Path

from sslcollapse.recipe import extend

recipe = extend(
    Path(__file__).parents[1] / "bgrl_citeseer.py",
    dict(
        name="claims_bgrl_citeseer",
        domain=dict(views=dict(strength=0.2)),
        encoder=dict(hidden=[256]),
        objective=dict(predictor_hidden=256),
        regularizers=dict(werank=dict(type="werank", coefficient=0.0)),
        train=dict(steps=200, checkpoint_every=0),
        evaluate=dict(random=None),
    ),
)
