"""Noise in half of the dimensions of normal data, from weak to strong, with and without WERank: three seeds."""

ablation = dict(
    name="toy_noise",
    base="../toy_werank_noise.py",
    axes={
        "domain.views.noise": [0.1, 0.5, 1.0, 1.5, 2.0],
        "regularizers.werank": [None, *(dict(type="werank", coefficient=c) for c in (1.0, 100.0))],
    },
    seeds=3,
    baseline={"regularizers.werank": None},
    metrics=[
        "rank.representation.effective_rank",
        "rank.layers.layers.0.weight.effective_rank",
        "rank.layers.layers.0.weight.numerical_rank",
        "rank.shared.effective_rank",
        "rank.shared_input.effective_rank",
        "rank.shared_input.overlap",
    ],
    claim=dict(
        number=6,
        statement="Strong augmentation along features collapses rank, because views share less.",
        note="Linear network of Jing et al. 2022, experiment 1: noise in half of the dimensions.",
        checks=[
            dict(
                name="rank of the representation falls with noise",
                kind="trend",
                metric="rank.representation.effective_rank",
                where={"regularizers.werank": None},
                along="domain.views.noise",
                expect="negative",
            ),
            dict(
                name="what the views share falls with noise",
                kind="trend",
                metric="rank.shared_input.overlap",
                where={"regularizers.werank": None},
                along="domain.views.noise",
                expect="negative",
            ),
            dict(
                name="WERank of 100 raises rank at noise 1.5",
                metric="rank.representation.effective_rank",
                where={"domain.views.noise": 1.5},
                cell={"regularizers.werank": dict(type="werank", coefficient=100.0)},
                expect="positive",
            ),
        ],
    ),
)
