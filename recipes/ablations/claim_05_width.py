"""Width and rank: BGRL on Cora under weak views, 64 to 1,024 wide, with and without WERank, five seeds."""

ablation = dict(
    name="claim_05_width",
    base="../claims/bgrl_cora.py",
    axes={
        "encoder.hidden": [[64] * 2, [128] * 2, [256] * 2, [512] * 2, [1024] * 2],
        "regularizers.werank.coefficient": [0.0, 1e-2],
    },
    seeds=5,
    baseline={"regularizers.werank.coefficient": 0.0},
)
