"""Does WERank's effect shrink as views grow? Edges and features apart, to 0.75, the learning rate chosen for each.

Dropped edges grow while a tenth of the features is masked, and masked features while a tenth of the edges is dropped.
0.5 is the full strength of Cora's recipe, so 0.75 is one and a half of it. Both sides choose their learning rate by
validation. BGRL with a target that has turned over (momentum from 0.95), ten seeds. By ``--dry-run`` a point takes 16
seeds on Cora and 68 on CiteSeer; of slopes along these axes nothing is recorded yet.

960 runs at about 0.5 CPU-minutes, by the records of claim_03_view_strength: 8 hours of one core.
"""

COEFFICIENT, LR = "regularizers.werank.coefficient", "optim.lr"
EDGES, FEATURES = "domain.views.edge_drop", "domain.views.feature_mask"
RATES, LRS = [[rate, rate] for rate in (0.0, 0.25, 0.5, 0.75)], [3e-4, 1e-3, 3e-3]
LIGHT = [0.1, 0.1]
ACCURACY, RANK = "evaluation.public.test_accuracy", "rank.representation.effective_rank"
SIDES = dict(cell={COEFFICIENT: 1e-1, LR: LRS}, against={COEFFICIENT: 0.0, LR: LRS}, select="validation")


def checks(what, along, other):
    """Of one of the two kinds of augmentation."""
    where = {other: [LIGHT]}
    weakest, strongest = ({**where, along: [RATES[k]]} for k in (0, -1))
    return [
        dict(
            name=f"the gain in accuracy falls with {what}",
            kind="slope",
            metric=ACCURACY,
            where=where,
            along=along,
            expect="negative",
            effect=2.0,
            **SIDES,
        ),
        dict(
            name=f"the gain in rank falls with {what}",
            kind="slope",
            metric=RANK,
            probe="public",
            where=where,
            along=along,
            expect="negative",
            margin=17.0,
            effect=34.0,
            **SIDES,
        ),
        dict(
            name=f"accuracy rises without {what}",
            metric=ACCURACY,
            where=weakest,
            expect="positive",
            effect=1.0,
            **SIDES,
        ),
        dict(
            name=f"no gain of a point at the strongest {what}",
            metric=ACCURACY,
            where=strongest,
            expect="not positive",
            margin=1.0,
            **SIDES,
        ),
    ]


ablation = dict(
    name="claim_03_views_apart",
    base={"Cora": "../claims/bgrl_cora.py", "CiteSeer": "../claims/bgrl_citeseer.py"},
    axes={
        ("domain.views.strength", EDGES, FEATURES): [
            *((1.0, rate, LIGHT) for rate in RATES),
            *((1.0, LIGHT, rate) for rate in RATES),
        ],
        "objective.momentum": [0.95],
        LR: LRS,
        COEFFICIENT: [0.0, 1e-1],
    },
    seeds=10,
    baseline={COEFFICIENT: 0.0},
    metrics=[ACCURACY, RANK, "rank.representation.effective_rank_centred"],
    claim=dict(
        number=3,
        statement="The effect of WERank shrinks as augmentation grows, of edges and of features.",
        note="Slopes are per unit of what is dropped or masked. Effects that matter, set before the grid ran: one "
        "point of accuracy at an end, two per unit; one twentieth of the 256 attainable dimensions over the range.",
        variances="claim_03_view_strength",
        checks=[*checks("dropped edges", EDGES, FEATURES), *checks("masked features", FEATURES, EDGES)],
    ),
)
