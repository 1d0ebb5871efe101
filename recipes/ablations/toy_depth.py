"""One, two or four linear layers for what one could do, with and without WERank: five seeds."""

ablation = dict(
    name="toy_depth",
    base="../toy_werank_depth.py",
    axes={
        "encoder.hidden": [[16], [16, 16], [16, 16, 16, 16]],
        "regularizers.werank": [None, *(dict(type="werank", coefficient=c) for c in (1e-3, 1e-2, 1e-1))],
    },
    seeds=5,
    baseline={"regularizers.werank": None},
    metrics=[
        "rank.representation.effective_rank",
        "rank.representation.numerical_rank",
        "rank.layers.layers.0.weight.effective_rank",
        "rank.layers.layers.0.weight.numerical_rank",
    ],
)
