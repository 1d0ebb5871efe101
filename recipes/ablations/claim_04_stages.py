"""Which stages of a ResNet WERank acts on: SimCLR on digits under weak views, five seeds."""

FIRST, LAST, ALL = dict(type="band", value=1e-2, stop=0.34), dict(type="band", value=1e-2, start=0.67), 1e-2

ablation = dict(
    name="claim_04_stages",
    base="../claims/simclr_digits.py",
    axes={
        "domain.views.strength": [0.2],
        "regularizers.werank.coefficient": [
            0.0,
            dict(type="band", value=1e-2, stop=0.34),
            dict(type="band", value=1e-2, start=0.67),
            1e-2,
            dict(type="depth", first=0.0, last=2e-2),
            dict(type="depth", first=2e-2, last=0.0),
        ],
    },
    seeds=5,
    baseline={"regularizers.werank.coefficient": 0.0},
    claim=dict(
        number=4,
        statement="Regularising all layers beats regularising only the early or only the late ones.",
        note="Every regularised layer has the same coefficient, so the bands also have less of it in all.",
        checks=[
            dict(
                name="accuracy: all layers beat the first",
                metric="evaluation.knn.test_accuracy",
                cell={"regularizers.werank.coefficient": ALL},
                against={"regularizers.werank.coefficient": FIRST},
                expect="positive",
            ),
            dict(
                name="accuracy: all layers beat the last",
                metric="evaluation.knn.test_accuracy",
                cell={"regularizers.werank.coefficient": ALL},
                against={"regularizers.werank.coefficient": LAST},
                expect="positive",
            ),
            dict(
                name="rank: all layers beat the first",
                metric="rank.representation.effective_rank",
                cell={"regularizers.werank.coefficient": ALL},
                against={"regularizers.werank.coefficient": FIRST},
                expect="positive",
            ),
            dict(
                name="rank: all layers beat the last",
                metric="rank.representation.effective_rank",
                cell={"regularizers.werank.coefficient": ALL},
                against={"regularizers.werank.coefficient": LAST},
                expect="positive",
            ),
        ],
    ),
)
