"""``bgrl_csbm_1m`` on a block model of ten million nodes; an epoch is 9,765 steps, so that 10,000 are one."""

from pathlib import Path

from sslcollapse.recipe import extend

recipe = extend(
    Path(__file__).with_name("bgrl_csbm_1m.py"),
    dict(
        name="bgrl_csbm_10m",
        domain=dict(dataset=dict(type="stored", path="graph/packed/csbm-10m")),
        train=dict(steps=10_000, checkpoint_every=1000),
        monitor=dict(every=5000),
    ),
)
