"""``grace_csbm_1m`` with WERank on every encoder layer; nothing else differs."""

from pathlib import Path

from sslcollapse.recipe import extend

recipe = extend(
    Path(__file__).with_name("grace_csbm_1m.py"),
    dict(name="grace_werank_csbm_1m", regularizers=dict(werank=dict(type="werank", coefficient=1e-2))),
)
