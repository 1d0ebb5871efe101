"""Depth on images: SimCLR on digits with 9, 17 and 33 convolutions, plain or with skips, with and without WERank.

The plain network is resnet_narrow without its skips. Ten seeds, a linear probe.

120 runs at 0.4 to 2 CPU-minutes, by the records of claim_08_digits (0.5 minutes for 7 convolutions of twice the width
and half the steps): about 2 hours of one core.
"""

COEFFICIENT = "regularizers.werank.coefficient"
BLOCKS = [[2, 1, 1], [4, 2, 2], [8, 4, 4]]
ACCURACY, RANK = "evaluation.public.test_accuracy", "rank.representation.effective_rank"
PLAIN = {"encoder.skips": False, "encoder.blocks": BLOCKS[1:]}

ablation = dict(
    name="claim_00_depth_images",
    base="../claims/simclr_plain_digits.py",
    axes={
        "encoder.skips": [False, True],
        "encoder.blocks": BLOCKS,
        COEFFICIENT: [0.0, 1e-1],
    },
    seeds=10,
    baseline={COEFFICIENT: 0.0},
    metrics=[ACCURACY, RANK],
    claim=dict(
        number=0,
        statement="WERank lets deep plain networks for images keep rank and accuracy.",
        note="Effects that matter, set before the grid ran: a gain counts above half a point and is planned for one; "
        "rank counts above one twentieth of the 64 attainable dimensions and is planned for two twentieths.",
        variances="claim_08_digits",
        checks=[
            dict(name="accuracy rises", metric=ACCURACY, where=PLAIN, expect="positive", margin=0.5, effect=1.0),
            dict(name="rank rises", metric=RANK, where=PLAIN, expect="positive", margin=3.2, effect=6.4),
            dict(
                name="without WERank rank falls with depth",
                kind="trend",
                metric=RANK,
                where={COEFFICIENT: 0.0, "encoder.skips": False},
                along="encoder.blocks",
                along_values=[3.17, 4.09, 5.04],
                expect="negative",
                effect=3.2,
            ),
        ],
    ),
)
