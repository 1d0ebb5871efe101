"""How the settings of bgrl_cora were chosen: 8 trials of one seed, the best *validation* accuracy wins."""

ablation = dict(
    name="tune_cora",
    base="../bgrl_cora.py",
    axes={
        "encoder.hidden": [[512, 256], [512, 512]],
        "optim.lr": [1e-3, 2e-3],
        ("domain.views.edge_drop", "domain.views.feature_mask"): [
            ([0.5, 0.4], [0.5, 0.4]),
            ([0.3, 0.3], [0.3, 0.3]),
        ],
        ("train.steps", "optim.warmup_steps", "evaluate.random"): [(300, 50, None)],
    },
    seeds=1,
)
