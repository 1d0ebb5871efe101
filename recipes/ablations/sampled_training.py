"""Does training on samples of a graph reach the accuracy of the full graph, at equal passes over the nodes? BGRL, Cora.

200 passes each: 200 steps of the full graph; 10 steps a pass of 256 roots with their neighbours, or of 1 of 10 random
parts. Warm-up is a quarter of the steps in each. The same is asked of Photo (sampled_training_photo) and of a block
model of the size of ogbn-arxiv (sampled_training_block_model). Parts, which have few of a node's edges, are in the
tables beside them and are claimed nothing of.
"""

PATHS = ("domain.batching", "train.steps", "optim.warmup_steps")
PASSES, A_PASS = 200, 10
FULL = (dict(type="full"), PASSES, PASSES // 4)
NEIGHBOURS = (dict(type="neighbours", batch_size=256, fanout=[10, 10]), PASSES * A_PASS, PASSES * A_PASS // 4)
IN_PARTS = (dict(type="parts", parts=A_PASS, per_batch=1), PASSES * A_PASS, PASSES * A_PASS // 4)
ACCURACY = "evaluation.public.test_accuracy"


def of(values):
    """A cell, by the paths that move together."""
    return dict(zip(PATHS, values, strict=True))


ablation = dict(
    name="sampled_training",
    base={"Cora": "../claims/bgrl_cora.py"},
    axes={PATHS: [FULL, NEIGHBOURS, IN_PARTS]},
    seeds=5,
    baseline=of(FULL),
    metrics=[ACCURACY, "rank.representation.effective_rank", "seconds.training"],
    claim=dict(
        number=12,
        statement="Training on sampled neighbourhoods reaches the accuracy of the full graph within a point, at equal "
        "passes over the nodes.",
        note="Margin of equivalence, set before the grid ran: one point of accuracy, each way.",
        checks=[
            dict(
                name="neighbours are equivalent to the full graph",
                metric=ACCURACY,
                cell=of(NEIGHBOURS),
                against=of(FULL),
                expect="equivalent",
                margin=1.0,
            ),
        ],
    ),
)
