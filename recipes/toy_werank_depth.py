"""The toy experiment on depth with WERank; everything else is the same."""

from pathlib import Path

from sslcollapse.recipe import extend

recipe = extend(
    Path(__file__).with_name("toy_depth.py"),
    dict(name="toy_werank_depth", regularizers=dict(werank=dict(type="werank", coefficient=1e-2))),
)
