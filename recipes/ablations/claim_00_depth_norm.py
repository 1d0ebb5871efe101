"""Does depth need WERank under every normalisation? BatchNorm, LayerNorm and none, at 2 and 8 layers.

BGRL on Cora and CiteSeer as in claim_00_depth, ten seeds.

120 runs of 8 layers at about 2.2 CPU-minutes and 120 of two at 0.6, by the records of claim_00_depth: 5.6 hours of one
core.
"""

COEFFICIENT = "regularizers.werank.coefficient"
NORMS = ["batch", "layer", "none"]
ACCURACY, RANK = "evaluation.public.test_accuracy", "rank.representation.effective_rank"

ablation = dict(
    name="claim_00_depth_norm",
    base={"Cora": "../claims/bgrl_deep_cora.py", "CiteSeer": "../claims/bgrl_deep_citeseer.py"},
    axes={
        "encoder.norm": NORMS,
        "encoder.hidden": [[256] * 2, [256] * 8],
        COEFFICIENT: [0.0, 1e-1],
    },
    seeds=10,
    baseline={COEFFICIENT: 0.0},
    metrics=[ACCURACY, RANK, "rank.prediction.effective_rank"],
    claim=dict(
        number=0,
        statement="WERank lets deep encoders keep rank and accuracy, whatever the normalisation.",
        note="Effects that matter, set before the grid ran: a gain counts above one point, planned are three; rank "
        "counts above one twentieth of the 256 attainable dimensions and is planned for two twentieths.",
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
                name="the gain in accuracy is larger at 8 layers than at two",
                kind="slope",
                metric=ACCURACY,
                along="encoder.hidden",
                along_values=[0, 1],
                expect="positive",
                effect=2.0,
            ),
        ],
    ),
)
