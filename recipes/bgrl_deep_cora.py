"""BGRL on Cora with a deep encoder: 8 graph convolutions of 256, where rank is lost from layer to layer.

It is the recipe of the depth grid, docs/results/claim_00_depth, in which two layers reach more. There, over seeds 0 to
5, a run ends with 76.2 % on the public split (70.1 % untrained) and an effective rank of 53 of 256. Compare it with
bgrl_werank_deep_cora. The momentum of 0.95 lets the target forget its random start within 200 steps.
"""

from pathlib import Path

from sslcollapse.recipe import extend

recipe = extend(
    Path(__file__).with_name("bgrl_cora.py"),
    dict(
        name="bgrl_deep_cora",
        encoder=dict(hidden=[256] * 8),
        objective=dict(predictor_hidden=256, momentum=0.95),
        train=dict(steps=200),
        monitor=dict(every=20, overlap=8, smoothness=True),
    ),
)
