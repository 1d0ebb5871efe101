"""Width and rank: BGRL on Cora under weak views, 64 to 1,024 wide, with and without WERank, five seeds."""

ablation = dict(
    name="claim_05_width",
    base="../claims/bgrl_cora.py",
    axes={
        "encoder.hidden": [[64] * 2, [128] * 2, [256] * 2, [512] * 2, [1024] * 2],
        "regularizers.werank.coefficient": [0.0, 1e-2],
    },
    seeds=5,
    baseline={"regularizers.werank.coefficient": 0.0},
    claim=dict(
        number=5,
        statement="Over-parameterised networks drift to low rank, and WERank stops it.",
        note="A width sweep: the fraction of the attainable rank along width, and what WERank adds to it.",
        checks=[
            dict(
                name="without WERank the fraction of rank falls with width",
                kind="trend",
                metric="rank.representation.effective_rank_fraction",
                where={"regularizers.werank.coefficient": 0.0},
                along="encoder.hidden",
                along_values=[6, 7, 8, 9, 10],
                expect="negative",
            ),
            dict(
                name="WERank raises the fraction of rank",
                metric="rank.representation.effective_rank_fraction",
                cell={"regularizers.werank.coefficient": 1e-2},
                expect="positive",
            ),
        ],
    ),
)
