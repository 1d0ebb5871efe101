"""How the coefficient of bgrl_werank_cora was chosen: 8 trials of one seed, the best *validation* accuracy wins."""

ablation = dict(
    name="tune_werank_cora",
    base="../bgrl_werank_cora.py",
    axes={
        "encoder.hidden": [[512, 512]],
        "regularizers.werank.coefficient": [1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1],
        "evaluate.random": [None],
    },
    seeds=1,
)
