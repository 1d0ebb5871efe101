"""BGRL on a block model of the size of ogbn-arxiv (169,343 nodes, 40 classes), as grids of claims use it: 30 steps."""

from pathlib import Path

from sslcollapse.recipe import extend

recipe = extend(
    Path(__file__).with_name("bgrl_cora.py"),
    dict(
        name="claims_bgrl_csbm_large",
        domain=dict(
            dataset=dict(type="csbm", nodes=169_343, classes=40, features=128, degree=13.7, homophily=0.65, signal=0.7)
        ),
        optim=dict(warmup_steps=5),
        train=dict(steps=30),
    ),
)
