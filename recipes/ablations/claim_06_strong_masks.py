"""Do strong feature masks collapse rank, since views share less? Masks up to 0.95, centred ranks, WERank 0 and 0.1.

What two views share is measured on batches that would have come after the last step, which nothing was trained on.
BGRL on Cora with a target that has turned over (momentum from 0.95), edges dropped lightly, twelve seeds: with fewer
than eleven a correlation may have no interval at the confidence of six tests.

168 runs at about 0.4 CPU-minutes, by the records of claim_06_feature_mask: 1.1 hours of one core.
"""

COEFFICIENT, MASK = "regularizers.werank.coefficient", "domain.views.feature_mask"
MASKS = [[mask, mask] for mask in (0.0, 0.2, 0.4, 0.6, 0.8, 0.9, 0.95)]
RANK, CENTRED = "rank.representation.effective_rank", "rank.representation.effective_rank_centred"
SHARED = "rank.shared.effective_rank"
PLAIN = {COEFFICIENT: 0.0}

ablation = dict(
    name="claim_06_strong_masks",
    base="../claims/bgrl_cora.py",
    axes={
        ("domain.views.strength", "domain.views.edge_drop", MASK): [(1.0, [0.2, 0.2], mask) for mask in MASKS],
        "objective.momentum": [0.95],
        COEFFICIENT: [0.0, 1e-1],
    },
    seeds=12,
    baseline=PLAIN,
    metrics=[
        "evaluation.public.test_accuracy",
        RANK,
        CENTRED,
        SHARED,
        "rank.shared.overlap",
        "rank.shared_input.effective_rank",
        "rank.shared_input.overlap",
    ],
    claim=dict(
        number=6,
        statement="Strong augmentation along features collapses rank, because views share less.",
        note="Slopes per unit of mask rate, of the range to 0.95. Effects that matter, set before the grid ran: one "
        "twentieth of the 256 attainable dimensions over the range counts, and two twentieths are planned for.",
        variances="claim_06_feature_mask",
        checks=[
            dict(
                name="rank of the representation falls with the mask rate",
                kind="trend",
                metric=RANK,
                where=PLAIN,
                along=MASK,
                expect="negative",
                margin=13.5,
                effect=27.0,
            ),
            dict(
                name="its centred rank falls with the mask rate",
                kind="trend",
                metric=CENTRED,
                where=PLAIN,
                along=MASK,
                expect="negative",
                margin=13.5,
                effect=27.0,
            ),
            dict(
                name="rank of what views share falls with the mask rate",
                kind="trend",
                metric=SHARED,
                where=PLAIN,
                along=MASK,
                expect="negative",
                margin=13.5,
                effect=27.0,
            ),
            dict(
                name="the centred rank and that of what views share go together",
                kind="correlation",
                metric=CENTRED,
                with_metric=SHARED,
                where=PLAIN,
                expect="positive",
            ),
            dict(
                name="WERank raises the centred rank at the strongest masks",
                metric=CENTRED,
                where={MASK: MASKS[-2:]},
                cell={COEFFICIENT: 1e-1},
                expect="positive",
                margin=12.8,
                effect=25.6,
            ),
        ],
    ),
)
