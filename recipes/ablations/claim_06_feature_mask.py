"""Feature masking and rank: BGRL on Cora, edges dropped lightly, five mask rates, with and without WERank."""

ablation = dict(
    name="claim_06_feature_mask",
    base="../claims/bgrl_cora.py",
    axes={
        ("domain.views.strength", "domain.views.edge_drop", "domain.views.feature_mask"): [
            (1.0, [0.2, 0.2], [mask, mask]) for mask in (0.0, 0.2, 0.4, 0.6, 0.8)
        ],
        "regularizers.werank.coefficient": [0.0, 1e-2],
    },
    seeds=5,
    baseline={"regularizers.werank.coefficient": 0.0},
)
