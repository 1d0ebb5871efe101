"""How the settings of bgrl_citeseer were chosen: 8 trials of one seed, the best *validation* accuracy wins."""

ablation = dict(
    name="tune_citeseer",
    base="../bgrl_citeseer.py",
    axes={
        "encoder.hidden": [[512], [1024]],
        "optim.lr": [5e-4, 2e-3],
        ("domain.views.edge_drop", "domain.views.feature_mask"): [
            ([0.5, 0.4], [0.5, 0.4]),
            ([0.3, 0.3], [0.7, 0.6]),
        ],
        ("train.steps", "optim.warmup_steps", "evaluate.random"): [(300, 50, None)],
    },
    seeds=1,
)
