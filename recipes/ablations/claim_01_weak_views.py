"""WERank under weak views (a fifth of the usual strength): Cora and CiteSeer, five coefficients, ten seeds."""

ablation = dict(
    name="claim_01_weak_views",
    base={"Cora": "../claims/bgrl_cora.py", "CiteSeer": "../claims/bgrl_citeseer.py"},
    axes={"regularizers.werank.coefficient": [0.0, 1e-3, 1e-2, 3e-2, 1e-1]},
    seeds=10,
    baseline={"regularizers.werank.coefficient": 0.0},
    claim=dict(
        number=1,
        statement="WERank preserves rank and improves accuracy under weak augmentation.",
        note="The coefficient of each dataset is the one with the best validation accuracy.",
        checks=[
            dict(
                name="accuracy rises",
                metric="evaluation.public.test_accuracy",
                cell={"regularizers.werank.coefficient": [1e-3, 1e-2, 3e-2, 1e-1]},
                select="validation",
                expect="positive",
            ),
            dict(
                name="rank rises",
                metric="rank.representation.effective_rank",
                cell={"regularizers.werank.coefficient": [1e-3, 1e-2, 3e-2, 1e-1]},
                select="validation",
                probe="public",
                expect="positive",
            ),
        ],
    ),
)
