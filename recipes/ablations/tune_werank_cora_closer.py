"""The best coefficients of tune_werank_cora over three seeds, at two widths; mean *validation* accuracy decides."""

ablation = dict(
    name="tune_werank_cora_closer",
    base="../bgrl_werank_cora.py",
    axes={
        "encoder.hidden": [[512, 512], [1024, 512]],
        "regularizers.werank.coefficient": [1e-4, 3e-4, 1e-3],
        "evaluate.random": [None],
    },
    seeds=3,
)
