"""One, two or four linear layers for what one could do, with and without WERank: three seeds."""

ablation = dict(
    name="toy_depth",
    base="../toy_werank_depth.py",
    axes={
        "encoder.hidden": [[16], [16, 16], [16, 16, 16, 16]],
        "regularizers.werank": [None, *(dict(type="werank", coefficient=c) for c in (1.0, 10.0))],
    },
    seeds=3,
    baseline={"regularizers.werank": None},
    metrics=[
        "rank.representation.effective_rank",
        "rank.representation.numerical_rank",
        "rank.layers.layers.0.weight.effective_rank",
        "rank.layers.layers.0.weight.numerical_rank",
    ],
    claim=dict(
        number=5,
        statement="Over-parameterised networks drift to low rank, and WERank stops it.",
        note="Linear networks of Jing et al. 2022, experiment 2: more layers for what one could do.",
        checks=[
            dict(
                name="rank falls with the number of layers",
                kind="trend",
                metric="rank.representation.effective_rank",
                where={"regularizers.werank": None},
                along="encoder.hidden",
                along_values=[0, 1, 2],
                expect="negative",
            ),
            dict(
                name="WERank of 10 raises rank",
                metric="rank.representation.effective_rank",
                cell={"regularizers.werank": dict(type="werank", coefficient=10.0)},
                expect="positive",
            ),
        ],
    ),
)
