"""Which layers WERank acts on, at an equal total coefficient: early, middle, late or all, of 4 and of 8 layers.

Early is the first half of the layers, late the second, middle the half around the middle: each has half of the layers
at twice the coefficient of all. BGRL on Cora at full views as in claim_00_depth, ten seeds. Two layers, of which none
is in the middle, are claim_04_equal_total_two.

By ``--dry-run`` the equivalence of ranks takes 6 seeds and that of accuracies about 30, so ten may leave it open.

50 runs of 4 layers at about 1.3 CPU-minutes and 50 of 8 at 2.2, by the records of claim_00_depth: 3 hours of one core.
"""

COEFFICIENT, ALL = "regularizers.werank.coefficient", 1e-2
BANDS = {"early": dict(stop=0.5), "middle": dict(start=0.25, stop=0.75), "late": dict(start=0.5)}
METRICS = {
    "accuracy": ("evaluation.public.test_accuracy", 1.0),
    "rank": ("rank.representation.effective_rank", 12.8),
}


def band(name):
    """Half of the layers at twice the coefficient."""
    return dict(type="band", value=2 * ALL, **BANDS[name])


ablation = dict(
    name="claim_04_equal_total",
    base="../claims/bgrl_deep_cora.py",
    axes={
        "encoder.hidden": [[256] * 4, [256] * 8],
        COEFFICIENT: [0.0, ALL, *map(band, BANDS)],
    },
    seeds=10,
    baseline={COEFFICIENT: 0.0},
    metrics=[metric for metric, _ in METRICS.values()],
    claim=dict(
        number=4,
        statement="At an equal total coefficient it makes no difference which layers WERank acts on.",
        note="Equivalence margins, set before the grid ran: one point of accuracy, and one twentieth of the 256 "
        "attainable dimensions. The table of differences says what each adds to nothing.",
        variances="claim_00_depth",
        checks=[
            dict(
                name=f"{what}: {name} is as good as all",
                metric=metric,
                cell={COEFFICIENT: band(name)},
                against={COEFFICIENT: ALL},
                expect="equivalent",
                margin=margin,
            )
            for what, (metric, margin) in METRICS.items()
            for name in BANDS
        ],
    ),
)
