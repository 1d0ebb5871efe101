"""BGRL on a block model of the size of ogbn-arxiv (169,343 nodes, 40 classes), for claims: 20 steps, narrow."""

from pathlib import Path

from sslcollapse.recipe import extend

recipe = extend(
    Path(__file__).with_name("bgrl_cora.py"),
    dict(
        name="claims_bgrl_csbm_large",
        domain=dict(
            dataset=dict(type="csbm", nodes=169_343, classes=40, features=128, degree=13.7, homophily=0.65, signal=0.1)
        ),
        encoder=dict(hidden=[128, 128]),
        objective=dict(predictor_hidden=128),
        optim=dict(warmup_steps=5),
        train=dict(steps=20),
    ),
)
