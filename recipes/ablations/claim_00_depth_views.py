"""Does depth need WERank under weak and under full views? A fifth of the strength, and all of it, at 2 and 8 layers.

BGRL on Cora and CiteSeer as in claim_00_depth, ten seeds.

80 runs of 8 layers at about 2.2 CPU-minutes and 80 of two at 0.6, by the records of claim_00_depth: 3.7 hours of one
core.
"""

COEFFICIENT, STRENGTH = "regularizers.werank.coefficient", "domain.views.strength"
ACCURACY, RANK = "evaluation.public.test_accuracy", "rank.representation.effective_rank"

ablation = dict(
    name="claim_00_depth_views",
    base={"Cora": "../claims/bgrl_deep_cora.py", "CiteSeer": "../claims/bgrl_deep_citeseer.py"},
    axes={
        STRENGTH: [0.2, 1.0],
        "encoder.hidden": [[256] * 2, [256] * 8],
        COEFFICIENT: [0.0, 1e-1],
    },
    seeds=10,
    baseline={COEFFICIENT: 0.0},
    metrics=[ACCURACY, RANK, "rank.prediction.effective_rank"],
    claim=dict(
        number=0,
        statement="WERank lets deep encoders keep rank and accuracy, under weak views and under full ones.",
        note="Effects that matter, set before the grid ran: a gain counts above one point, planned are three; rank "
        "counts above one twentieth of the 256 attainable dimensions and is planned for two twentieths. Whether weak "
        "views with WERank reach full views without it is asked too, at equal depth.",
        variances="claim_00_depth",
        checks=[
            dict(
                name="accuracy rises at 8 layers",
                metric=ACCURACY,
                where={"encoder.hidden": [256] * 8},
                expect="positive",
                margin=1.0,
                effect=3.0,
            ),
            dict(
                name="rank rises at 8 layers",
                metric=RANK,
                where={"encoder.hidden": [256] * 8},
                expect="positive",
                margin=12.8,
                effect=25.6,
            ),
            dict(
                name="weak views with WERank are not behind full views without it",
                metric=ACCURACY,
                cell={STRENGTH: 0.2, COEFFICIENT: 1e-1},
                against={STRENGTH: 1.0, COEFFICIENT: 0.0},
                expect="not negative",
                margin=1.0,
            ),
        ],
    ),
)
