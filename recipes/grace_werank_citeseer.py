"""GRACE on CiteSeer with WERank; everything else is the same."""

from pathlib import Path

from sslcollapse.recipe import extend

recipe = extend(
    Path(__file__).with_name("grace_citeseer.py"),
    dict(name="grace_werank_citeseer", regularizers=dict(werank=dict(type="werank", coefficient=1e-2))),
)
