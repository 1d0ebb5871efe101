"""What else keeps a deep encoder's rank? Seven ways at 8 layers: starts, constraints, residuals, WERank.

BGRL on Cora and CiteSeer as in claim_00_depth, ten seeds. The base recipes also measure what claim_00_depth_mechanism
asks for. With one ``--out`` both grids share their runs, so that the second costs nothing; leave ``monitor`` as it is.

Ten seeds decide gains of three points at the spread of claim_00_depth; what is asked within one point takes about 35,
which ``--dry-run`` says test by test.

120 runs at about 2.2 CPU-minutes by the records of claim_00_depth, and 20 with the parametrisation at about 8 (four
times the others, as in the records of constraints): 7 hours of one core.
"""

WAY = ("regularizers.werank.coefficient", "initialization", "constraints", "encoder.residual")
HARD = dict(kept=dict(type="orthogonal"))
WAYS = {
    "nothing": (0.0, None, {}, False),
    "WERank": (1e-1, None, {}, False),
    "an orthogonal start": (0.0, "orthogonal", {}, False),
    "an orthogonal parametrisation": (0.0, None, HARD, False),
    "residuals": (0.0, None, {}, True),
    "residuals and WERank": (1e-1, None, {}, True),
    "an orthogonal start and WERank": (1e-1, "orthogonal", {}, False),
}
ACCURACY, RANK = "evaluation.public.test_accuracy", "rank.representation.effective_rank"


def of(name):
    """The cells of one way, by the paths that move together."""
    return dict(zip(WAY, WAYS[name], strict=True))


def pair(better, worse, metric, **expected):
    """A check that compares two ways."""
    return dict(metric=metric, cell=of(better), against=of(worse), **expected)


GAIN, MORE_RANK = (
    dict(expect="positive", margin=1.0, effect=3.0),
    dict(expect="positive", margin=12.8, effect=25.6),
)

ablation = dict(
    name="claim_00_depth_rivals",
    base={"Cora": "../claims/bgrl_deep_measured_cora.py", "CiteSeer": "../claims/bgrl_deep_measured_citeseer.py"},
    axes={WAY: list(WAYS.values())},
    seeds=10,
    baseline=of("nothing"),
    metrics=[ACCURACY, RANK, "rank.prediction.effective_rank"],
    claim=dict(
        number=0,
        statement="At 8 layers WERank keeps what an orthogonal start does not, and residuals do not make it needless.",
        note="Effects that matter, set before the grid ran: a gain counts above one point, planned are three; rank "
        "counts above one twentieth of the 256 attainable dimensions and is planned for two twentieths.",
        variances="claim_00_depth",
        checks=[
            dict(name="WERank gains over nothing", **pair("WERank", "nothing", ACCURACY, **GAIN)),
            dict(
                name="WERank gains over an orthogonal start",
                **pair("WERank", "an orthogonal start", ACCURACY, **GAIN),
            ),
            dict(
                name="WERank keeps more rank than an orthogonal start",
                **pair("WERank", "an orthogonal start", RANK, **MORE_RANK),
            ),
            dict(
                name="WERank gains after an orthogonal start too",
                **pair("an orthogonal start and WERank", "an orthogonal start", ACCURACY, **GAIN),
            ),
            dict(
                name="the parametrisation does as WERank",
                **pair("an orthogonal parametrisation", "WERank", ACCURACY, expect="equivalent", margin=1.0),
            ),
            dict(
                name="WERank is not behind residuals",
                **pair("WERank", "residuals", ACCURACY, expect="not negative", margin=1.0),
            ),
            dict(
                name="WERank adds rank to residuals",
                **pair("residuals and WERank", "residuals", RANK, **MORE_RANK),
            ),
            dict(
                name="WERank takes no accuracy from residuals",
                **pair("residuals and WERank", "residuals", ACCURACY, expect="not negative", margin=1.0),
            ),
        ],
    ),
)
