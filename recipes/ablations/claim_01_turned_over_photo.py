"""claim_01_turned_over on Amazon Photo: 200 steps, five seeds of five random splits.

15 runs at about 2 CPU-minutes, by the records of claim_01_weak_views_photo: half an hour of one core.
"""

COEFFICIENT = "regularizers.werank.coefficient"

ablation = dict(
    name="claim_01_turned_over_photo",
    base={"Photo": "../claims/bgrl_photo.py"},
    axes={("train.steps", "objective.momentum"): [(200, 0.95)], COEFFICIENT: [0.0, 1e-2, 1e-1]},
    seeds=5,
    baseline={COEFFICIENT: 0.0},
    metrics=[
        "evaluation.random.test_accuracy",
        "rank.representation.effective_rank",
        "rank.prediction.effective_rank",
        "target.initialization_left",
    ],
    claim=dict(
        number=1,
        statement="WERank preserves rank and improves accuracy under weak augmentation, with a target that has turned "
        "over.",
        note="Smallest effects that matter, set before the grid ran: one point of accuracy, and one twentieth of the "
        "256 attainable dimensions. The coefficient is chosen on validation.",
        checks=[
            dict(
                name="accuracy rises",
                metric="evaluation.random.test_accuracy",
                cell={COEFFICIENT: [1e-2, 1e-1]},
                select="validation",
                expect="positive",
                margin=1.0,
            ),
            dict(
                name="rank of the representation rises",
                metric="rank.representation.effective_rank",
                cell={COEFFICIENT: [1e-2, 1e-1]},
                select="validation",
                probe="random",
                expect="positive",
                margin=12.8,
            ),
        ],
    ),
)
