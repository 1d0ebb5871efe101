"""WERank in vision: SimCLR and BYOL on digits, three strengths of views, five seeds."""

ablation = dict(
    name="claim_08_digits",
    base={"SimCLR": "../claims/simclr_digits.py", "BYOL": "../claims/byol_digits.py"},
    axes={
        "domain.views.strength": [0.2, 0.6, 1.0],
        "regularizers.werank.coefficient": [0.0, 1e-2],
    },
    seeds=5,
    baseline={"regularizers.werank.coefficient": 0.0},
    claim=dict(
        number=8,
        statement="WERank helps in vision, under weak and under strong augmentation.",
        note="Digits as images of 8 × 8, a narrow residual network, kNN accuracy.",
        checks=[
            dict(
                name="accuracy rises",
                metric="evaluation.knn.test_accuracy",
                cell={"regularizers.werank.coefficient": 1e-2},
                expect="positive",
            ),
            dict(
                name="rank rises",
                metric="rank.representation.effective_rank",
                cell={"regularizers.werank.coefficient": 1e-2},
                expect="positive",
            ),
        ],
    ),
)
