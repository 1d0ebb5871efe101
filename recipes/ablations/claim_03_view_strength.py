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
    claim=dict(
        number=3,
        statement="The effect of WERank shrinks as augmentation grows.",
        note="Slopes of the gain over the baseline, per unit of strength: 0 is no augmentation, 1 the full one.",
        checks=[
            dict(
                name="the gain in accuracy falls with strength",
                kind="slope",
                metric="evaluation.public.test_accuracy",
                cell={"regularizers.werank.coefficient": [1e-2, 1e-1]},
                along="domain.views.strength",
                expect="negative",
            ),
            dict(
                name="the gain in rank falls with strength",
                kind="slope",
                metric="rank.representation.effective_rank",
                cell={"regularizers.werank.coefficient": [1e-2, 1e-1]},
                along="domain.views.strength",
                expect="negative",
            ),
        ],
    ),
)
