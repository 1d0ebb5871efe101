"""Which layers WERank acts on: encoders of two, three and four layers on Cora under weak views, five seeds."""

COEFFICIENT = "regularizers.werank.coefficient"
FIRST, LAST, ALL = dict(type="band", value=1e-2, stop=0.0), dict(type="band", value=1e-2, start=1.0), 1e-2
METRICS = {"accuracy": "evaluation.public.test_accuracy", "rank": "rank.representation.effective_rank"}

ablation = dict(
    name="claim_04_layers",
    base="../claims/bgrl_cora.py",
    axes={
        "encoder.hidden": [[256] * 2, [256] * 3, [256] * 4],
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
