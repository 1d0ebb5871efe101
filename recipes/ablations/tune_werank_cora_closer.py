"""The three best coefficients of tune_werank_cora over three seeds: the best mean *validation* accuracy wins."""

ablation = dict(
    name="tune_werank_cora_closer",
    base="../bgrl_werank_cora.py",
    axes={
        "regularizers.werank.coefficient": [1e-4, 3e-4, 1e-3],
        "evaluate.random": [None],
    },
    seeds=3,
)
