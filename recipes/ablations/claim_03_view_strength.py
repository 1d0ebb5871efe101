"""WERank against the strength of views: Cora and CiteSeer, five strengths, three coefficients, five seeds."""

ablation = dict(
    name="claim_03_view_strength",
    base={"Cora": "../claims/bgrl_cora.py", "CiteSeer": "../claims/bgrl_citeseer.py"},
    axes={
        "domain.views.strength": [0.2, 0.4, 0.6, 0.8, 1.0],
        "regularizers.werank.coefficient": [0.0, 1e-2, 1e-1],
    },
    seeds=5,
    baseline={"regularizers.werank.coefficient": 0.0},
)
