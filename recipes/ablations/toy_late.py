"""Rank that is lost already: WERank never, from the start, or from half of training on; three seeds.

Weights start as usual, so that noise 1.5 has collapsed them half-way, or with eight singular values of exactly zero,
which a layer with a bias would not keep. A coefficient of 100, since one of 1 does nothing here from the start either
and one of 10 little.
"""

WERANK = dict(type="werank", coefficient=100.0)
LATE = dict(type="werank", coefficient=dict(type="schedule", base=100.0, start=5_000))

ablation = dict(
    name="toy_late",
    base="../toy_werank_noise.py",
    axes={
        "encoder.bias": [False],
        "encoder.initial_rank": [None, 8],
        "regularizers.werank": [None, WERANK, LATE],
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
        statement="WERank cannot repair rank that is already lost.",
        note="From collapsed weights WERank is expected to add nothing; a rise in rank contradicts it.",
        checks=[
            dict(
                name="switched on late, WERank adds no rank",
                metric="rank.representation.effective_rank",
                cell={"regularizers.werank": LATE},
                expect="not positive",
                margin=0.5,
            ),
            dict(
                name="switched on late, it ends below WERank from the start",
                metric="rank.representation.effective_rank",
                cell={"regularizers.werank": LATE},
                against={"regularizers.werank": WERANK},
                where={"encoder.initial_rank": None},
                expect="negative",
                margin=0.5,
            ),
        ],
    ),
)
