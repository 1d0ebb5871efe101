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
)
