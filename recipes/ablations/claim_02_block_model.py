"""WERank's coefficient on a block model of ogbn-arxiv's size, at 30 steps: three coefficients, three seeds."""

ablation = dict(
    name="claim_02_block_model",
    base="../claims/bgrl_csbm_large.py",
    axes={"regularizers.werank.coefficient": [0.0, 1e-2, 1e-1]},
    seeds=3,
    baseline={"regularizers.werank.coefficient": 0.0},
)
