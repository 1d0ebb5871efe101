"""The close contenders of tune_cora and a stronger mask over three seeds: the best mean *validation* accuracy wins."""

ablation = dict(
    name="tune_cora_closer",
    base="../bgrl_cora.py",
    axes={
        ("encoder.hidden", "domain.views.feature_mask"): [
            ([512, 256], [0.5, 0.4]),
            ([512, 512], [0.5, 0.4]),
            ([512, 256], [0.6, 0.5]),
        ],
        ("optim.lr", "train.steps", "optim.warmup_steps", "evaluate.random"): [(1e-3, 300, 50, None)],
    },
    seeds=3,
)
