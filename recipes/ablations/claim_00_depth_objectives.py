"""Is it BGRL alone whose deep encoders lose rank? GRACE and VICReg at 2 and 8 layers, with and without WERank.

Cora and CiteSeer, ten seeds. GRACE's encoder has no normalisation and VICReg's has BatchNorm, as in their recipes.

80 runs of 8 layers at about 2 CPU-minutes and 80 of two at 0.4, by the records of claim_07_redundancy and
claim_00_depth: 3.2 hours of one core.
"""

COEFFICIENT = "regularizers.werank.coefficient"
ACCURACY, RANK = "evaluation.public.test_accuracy", "rank.representation.effective_rank"

ablation = dict(
    name="claim_00_depth_objectives",
    base={
        "GRACE, Cora": "../claims/grace_cora.py",
        "GRACE, CiteSeer": "../claims/grace_citeseer.py",
        "VICReg, Cora": "../claims/vicreg_cora.py",
        "VICReg, CiteSeer": "../claims/vicreg_citeseer.py",
    },
    axes={
        "encoder.hidden": [[256] * 2, [256] * 8],
        COEFFICIENT: [0.0, 1e-1],
    },
    seeds=10,
    baseline={COEFFICIENT: 0.0},
    metrics=[ACCURACY, RANK, "rank.embedding.effective_rank"],
    claim=dict(
        number=0,
        statement="WERank lets deep encoders of GRACE and VICReg keep rank and accuracy.",
        note="Effects that matter, set before the grid ran: a gain counts above one point, planned are three; rank "
        "counts above one twentieth of the 256 attainable dimensions and is planned for two twentieths.",
        variances="claim_07_redundancy",
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
        ],
    ),
)
