"""The toy experiment on noise with WERank; everything else is the same."""

from pathlib import Path

from sslcollapse.recipe import extend

recipe = extend(
    Path(__file__).with_name("toy_noise.py"),
    dict(name="toy_werank_noise", regularizers=dict(werank=dict(type="werank", coefficient=1e-2))),
)
