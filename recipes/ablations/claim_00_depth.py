"""Depth and rank: GCNs of 2 to 12 layers with BatchNorm, strong views, with and without WERank."""

DEPTHS = [[256] * 2, [256] * 4, [256] * 8, [256] * 12]
DEEP = [[256] * 8, [256] * 12]

ablation = dict(
    name="claim_00_depth",
    base={"Cora": "../claims/bgrl_deep_cora.py", "CiteSeer": "../claims/bgrl_deep_citeseer.py"},
    axes={
        "encoder.hidden": DEPTHS,
        "regularizers.werank.coefficient": [0.0, 1e-1],
    },
    seeds=10,
    baseline={"regularizers.werank.coefficient": 0.0},
    claim=dict(
        number=0,
        statement="WERank lets deep encoders keep rank and accuracy.",
        note="Smallest effects that matter, set before the grid ran: one point of accuracy, and one twentieth of the "
        "256 attainable dimensions.",
        checks=[
            dict(
                name="accuracy rises in deep encoders",
                metric="evaluation.public.test_accuracy",
                where={"encoder.hidden": DEEP},
                expect="positive",
                margin=1.0,
            ),
            dict(
                name="rank rises in deep encoders",
                metric="rank.representation.effective_rank",
                where={"encoder.hidden": DEEP},
                expect="positive",
                margin=12.8,
            ),
            dict(
                name="the best depth with WERank beats the best without",
                metric="evaluation.public.test_accuracy",
                cell={"regularizers.werank.coefficient": 1e-1, "encoder.hidden": DEPTHS},
                against={"regularizers.werank.coefficient": 0.0, "encoder.hidden": DEPTHS},
                select="validation",
                expect="positive",
            ),
            dict(
                name="the gain in rank grows with depth",
                kind="slope",
                metric="rank.representation.effective_rank",
                along="encoder.hidden",
                along_values=[1, 2, 3, 3.585],
                expect="positive",
            ),
            dict(
                name="without WERank rank falls with depth",
                kind="trend",
                metric="rank.representation.effective_rank",
                where={"regularizers.werank.coefficient": 0.0},
                along="encoder.hidden",
                along_values=[1, 2, 3, 3.585],
                expect="negative",
            ),
        ],
    ),
)
