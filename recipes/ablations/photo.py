"""BGRL on Amazon Photo over 20 random splits, with 600 or 1,500 steps in place of the published 10,000.

A short run needs a larger learning rate than the published 1e-4; the best *validation* accuracy chooses both.
"""

ablation = dict(
    name="photo",
    base="../bgrl_photo.py",
    axes={
        ("optim.lr", "train.steps", "optim.warmup_steps"): [
            (5e-4, 600, 60),
            (2e-3, 600, 60),
            (1e-3, 1500, 150),
            (2e-3, 1500, 150),
        ],
    },
    seeds=1,
)
