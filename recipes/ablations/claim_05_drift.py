"""Does training lower the rank of wide networks? Each width against its own untrained network, ten seeds.

A run of one step is the untrained network: the learning rate of the first step is 0. So what a width has before
training is taken off, of weights and of outputs apart.

50 runs of one step at about 0.1 CPU-minutes and 100 of 200 at 0.2 to 2.5, by the records of claim_05_width: about 1.5
hours of one core.
"""

COEFFICIENT = "regularizers.werank.coefficient"
WIDTHS = [[64] * 2, [128] * 2, [256] * 2, [512] * 2, [1024] * 2]
DOUBLINGS = [6, 7, 8, 9, 10]
MEASURED = {
    "outputs": "rank.representation.effective_rank_fraction",
    "weights of the second layer": "rank.layers.convs.1.weight.effective_rank_fraction",
}

ablation = dict(
    name="claim_05_drift",
    base="../claims/bgrl_cora.py",
    axes={
        "encoder.hidden": WIDTHS,
        "objective.momentum": [0.95],
        ("train.steps", COEFFICIENT): [(1, 0.0), (200, 0.0), (200, 1e-1)],
    },
    seeds=10,
    baseline={"train.steps": 1, COEFFICIENT: 0.0},
    metrics=["evaluation.public.test_accuracy", *MEASURED.values()],
    claim=dict(
        number=5,
        statement="Training drives over-parameterised networks to low rank, and WERank stops it.",
        note="Smallest effect that matters, set before the grid ran: one twentieth of the attainable rank. Whether "
        "lost rank can be repaired is claim_05_repair.",
        checks=[
            check
            for what, metric in MEASURED.items()
            for check in (
                dict(
                    name=f"training lowers the rank of {what}",
                    metric=metric,
                    cell={"train.steps": 200, COEFFICIENT: 0.0},
                    against={"train.steps": 1, COEFFICIENT: 0.0},
                    expect="negative",
                    margin=0.05,
                ),
                dict(
                    name=f"the wider, the more it lowers that of {what}",
                    kind="slope",
                    metric=metric,
                    cell={"train.steps": 200, COEFFICIENT: 0.0},
                    against={"train.steps": 1, COEFFICIENT: 0.0},
                    along="encoder.hidden",
                    along_values=DOUBLINGS,
                    expect="negative",
                ),
                dict(
                    name=f"WERank keeps the rank of {what}",
                    metric=metric,
                    cell={"train.steps": 200, COEFFICIENT: 1e-1},
                    against={"train.steps": 1, COEFFICIENT: 0.0},
                    expect="not negative",
                    margin=0.05,
                ),
            )
        ],
    ),
)
