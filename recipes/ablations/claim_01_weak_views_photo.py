"""WERank under weak views on Amazon Photo: five coefficients, three seeds of five random splits."""

ablation = dict(
    name="claim_01_weak_views_photo",
    base={"Photo": "../claims/bgrl_photo.py"},
    axes={"regularizers.werank.coefficient": [0.0, 1e-3, 1e-2, 3e-2, 1e-1]},
    seeds=3,
    baseline={"regularizers.werank.coefficient": 0.0},
    claim=dict(
        number=1,
        statement="WERank preserves rank and improves accuracy under weak augmentation.",
        note="The coefficient of each dataset is the one with the best validation accuracy.",
        checks=[
            dict(
                name="accuracy rises",
                metric="evaluation.random.test_accuracy",
                cell={"regularizers.werank.coefficient": [1e-3, 1e-2, 3e-2, 1e-1]},
                select="validation",
                expect="positive",
            ),
            dict(
                name="rank rises",
                metric="rank.representation.effective_rank",
                cell={"regularizers.werank.coefficient": [1e-3, 1e-2, 3e-2, 1e-1]},
                select="validation",
                probe="random",
                expect="positive",
            ),
        ],
    ),
)
