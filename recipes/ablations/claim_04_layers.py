"""Which layers WERank acts on: encoders of two, three and four layers on Cora under weak views, five seeds."""

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
)
