"""Why do orthogonal weights lose rank in training, and WERank's do not? Overlap of consecutive weights, and smoothness.

``overlap`` of a layer is that of the 8 directions that it amplifies most with the 8 that the layer before puts out
most; of random weights of 256 it is 8/256 = 0.03. Every record has its course over the steps (``course.layers``), with
Dirichlet's ratio and MAD of every output. Tests are of the last step, in a layer in the middle and in the last one.

BGRL at 8 layers on Cora and CiteSeer, ten seeds. The runs are those of claim_00_depth_rivals, which see for their cost;
with the same ``--out`` none is made twice. No earlier record has an overlap, so ``--dry-run`` knows no spread of it.
"""

WAY = ("regularizers.werank.coefficient", "initialization")
NOTHING, WERANK, START, BOTH = (0.0, None), (1e-1, None), (0.0, "orthogonal"), (1e-1, "orthogonal")
LAYERS = {"a middle layer": "convs.4", "the last layer": "convs.7"}


def of(values):
    """The cells of one way, by the paths that move together."""
    return dict(zip(WAY, values, strict=True))


ablation = dict(
    name="claim_00_depth_mechanism",
    base={"Cora": "../claims/bgrl_deep_measured_cora.py", "CiteSeer": "../claims/bgrl_deep_measured_citeseer.py"},
    axes={WAY: [NOTHING, WERANK, START, BOTH]},
    seeds=10,
    baseline=of(NOTHING),
    metrics=[
        *(f"rank.layers.{layer}.weight.{name}" for layer in LAYERS.values() for name in ("overlap", "effective_rank")),
        *(f"rank.layers.{layer}.output.{name}" for layer in LAYERS.values() for name in ("effective_rank", "mad")),
        "rank.representation.dirichlet_ratio",
    ],
    claim=dict(
        number=0,
        statement="Deep encoders lose rank since the few largest directions of consecutive weights line up, which an "
        "orthogonal start does not prevent and WERank does.",
        note="Smallest effects that matter, set before the grid ran: 0.05 of an overlap and of a Dirichlet ratio. "
        "Overlaps are between 0 and 1.",
        checks=[
            check
            for place, layer in LAYERS.items()
            for check in (
                dict(
                    name=f"WERank lowers the overlap in {place}",
                    metric=f"rank.layers.{layer}.weight.overlap",
                    cell=of(WERANK),
                    against=of(NOTHING),
                    expect="negative",
                    effect=0.05,
                ),
                dict(
                    name=f"after an orthogonal start WERank lowers it in {place} too",
                    metric=f"rank.layers.{layer}.weight.overlap",
                    cell=of(BOTH),
                    against=of(START),
                    expect="negative",
                    effect=0.05,
                ),
                dict(
                    name=f"an orthogonal start alone leaves it as high in {place}",
                    metric=f"rank.layers.{layer}.weight.overlap",
                    cell=of(START),
                    against=of(NOTHING),
                    expect="not negative",
                    margin=0.05,
                ),
            )
        ]
        + [
            dict(
                name="WERank smooths the representation no more than nothing does",
                metric="rank.representation.dirichlet_ratio",
                cell=of(WERANK),
                against=of(NOTHING),
                expect="not negative",
                margin=0.05,
            ),
        ],
    ),
)
