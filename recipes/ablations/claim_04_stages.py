"""Which stages of a ResNet WERank acts on: SimCLR on digits under weak views, five seeds."""

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
)
