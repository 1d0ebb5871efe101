"""Which layers WERank acts on: encoders of two, three and four layers on Cora under weak views, five seeds."""

FIRST, LAST, ALL = dict(type="band", value=1e-2, stop=0.0), dict(type="band", value=1e-2, start=1.0), 1e-2

ablation = dict(
    name="claim_04_layers",
    base="../claims/bgrl_cora.py",
    axes={
        "encoder.hidden": [[256] * 2, [256] * 3, [256] * 4],
        "regularizers.werank.coefficient": [
            0.0,
            dict(type="band", value=1e-2, stop=0.0),
            dict(type="band", value=1e-2, start=1.0),
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
                metric="evaluation.public.test_accuracy",
                cell={"regularizers.werank.coefficient": ALL},
                against={"regularizers.werank.coefficient": FIRST},
                expect="positive",
            ),
            dict(
                name="accuracy: all layers beat the last",
                metric="evaluation.public.test_accuracy",
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
