"""bgrl_deep_cora here, with what depth does measured on the way: overlap of consecutive weights, and smoothness.

It learns the same and has the same hash. Its own name keeps its runs apart from those that were not measured.
"""

from pathlib import Path

from sslcollapse.recipe import extend

recipe = extend(
    Path(__file__).with_name("bgrl_deep_cora.py"),
    dict(name="claims_bgrl_deep_measured_cora", monitor=dict(every=20, overlap=8, smoothness=True)),
)
