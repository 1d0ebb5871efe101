"""BGRL on Amazon Photo over 20 random splits, with 1,500 steps in place of the published 10,000.

A short run needs a larger learning rate than the published 1e-4; the best *validation* accuracy chooses it.
"""

ablation = dict(
    name="photo",
    base="../bgrl_photo.py",
    axes={
        "optim.lr": [1e-3, 2e-3],
        ("train.steps", "optim.warmup_steps"): [(1500, 150)],
    },
    seeds=1,
)
