"""BGRL on Amazon Photo over 20 random splits, with 600 steps in place of the published 10,000.

A short run needs a larger learning rate than the published 1e-4; the best *validation* accuracy chooses it.
"""

ablation = dict(
    name="photo",
    base="../bgrl_photo.py",
    axes={
        "optim.lr": [5e-4, 2e-3],
        ("train.steps", "optim.warmup_steps"): [(600, 60)],
    },
    seeds=1,
)
