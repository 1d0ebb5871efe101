"""Rank that is lost already, on Cora: WERank never, from the start, or from half of training on; five seeds.

Without normalisation BGRL collapses within the first half. Weights start as usual, or with all but 32 of their 256
singular values exactly zero.
"""

COEFFICIENT = "regularizers.werank.coefficient"
LATE = dict(type="schedule", base=1e-1, start=100)

ablation = dict(
    name="claim_05_repair",
    base="../claims/bgrl_cora.py",
    axes={
        "encoder.norm": ["none"],
        "encoder.initial_rank": [None, 32],
        COEFFICIENT: [0.0, 1e-1, LATE],
    },
    seeds=5,
    baseline={COEFFICIENT: 0.0},
    metrics=[
        "evaluation.public.test_accuracy",
        "rank.representation.effective_rank",
        "rank.layers.convs.0.weight.effective_rank",
        "rank.layers.convs.1.weight.effective_rank",
    ],
    claim=dict(
        number=5,
        statement="WERank cannot repair rank that is already lost.",
        note="From collapsed weights WERank is expected to add nothing; a rise in rank contradicts it.",
        checks=[
            dict(
                name="switched on late, WERank adds no rank",
                metric="rank.representation.effective_rank",
                cell={COEFFICIENT: LATE},
                expect="not positive",
                margin=5.0,
            ),
            dict(
                name="switched on late, it ends below WERank from the start",
                metric="rank.representation.effective_rank",
                cell={COEFFICIENT: LATE},
                against={COEFFICIENT: 1e-1},
                where={"encoder.initial_rank": None},
                expect="negative",
                margin=5.0,
            ),
        ],
    ),
)
