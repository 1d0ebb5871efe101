"""Which stages of a ResNet WERank acts on: SimCLR on digits under weak views, five seeds."""

COEFFICIENT = "regularizers.werank.coefficient"
FIRST, LAST, ALL = dict(type="band", value=1e-2, stop=0.34), dict(type="band", value=1e-2, start=0.67), 1e-2
METRICS = {"accuracy": "evaluation.knn.test_accuracy", "rank": "rank.representation.effective_rank"}

ablation = dict(
    name="claim_04_stages",
    base="../claims/simclr_digits.py",
    axes={
        "domain.views.strength": [0.2],
        COEFFICIENT: [
            0.0,
            FIRST,
            LAST,
            ALL,
            dict(type="depth", first=0.0, last=2e-2),
            dict(type="depth", first=2e-2, last=0.0),
        ],
    },
    seeds=5,
    baseline={COEFFICIENT: 0.0},
    claim=dict(
        number=4,
        statement="Regularising all layers beats regularising only the early or only the late ones.",
        note="Every regularised layer has the same coefficient, so the bands also have less of it in all.",
        checks=[
            dict(
                name=f"{what}: all layers beat the {fewer}",
                metric=metric,
                cell={COEFFICIENT: ALL},
                against={COEFFICIENT: band},
                expect="positive",
            )
            for what, metric in METRICS.items()
            for fewer, band in {"first": FIRST, "last": LAST}.items()
        ],
    ),
)
