"""WERank with Graph Barlow Twins and VICReg: Cora and CiteSeer, two coefficients, five seeds."""

ablation = dict(
    name="claim_07_redundancy",
    base={
        "Barlow Twins, Cora": "../claims/gbt_cora.py",
        "Barlow Twins, CiteSeer": "../claims/gbt_citeseer.py",
        "VICReg, Cora": "../claims/vicreg_cora.py",
        "VICReg, CiteSeer": "../claims/vicreg_citeseer.py",
    },
    axes={"regularizers.werank.coefficient": [0.0, 1e-2, 1e-1]},
    seeds=5,
    baseline={"regularizers.werank.coefficient": 0.0},
    claim=dict(
        number=7,
        statement="WERank helps other objectives than BGRL.",
        note="Graph Barlow Twins and VICReg; the coefficient of each is chosen on validation accuracy.",
        checks=[
            dict(
                name="accuracy rises",
                metric="evaluation.public.test_accuracy",
                cell={"regularizers.werank.coefficient": [1e-2, 1e-1]},
                select="validation",
                expect="positive",
            ),
            dict(
                name="rank rises",
                metric="rank.representation.effective_rank",
                cell={"regularizers.werank.coefficient": [1e-2, 1e-1]},
                select="validation",
                probe="public",
                expect="positive",
            ),
        ],
    ),
)
