"""GRACE on Cora with WERank; everything else is the same."""

from pathlib import Path

from sslcollapse.recipe import extend

recipe = extend(
    Path(__file__).with_name("grace_cora.py"),
    dict(name="grace_werank_cora", regularizers=dict(werank=dict(type="werank", coefficient=1e-2))),
)
