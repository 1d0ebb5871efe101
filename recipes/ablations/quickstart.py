"""The quickstart with and without WERank: the figures that the README shows."""

ablation = dict(
    name="quickstart",
    base="../quickstart.py",
    axes={"regularizers.werank": [{"type": "werank", "coefficient": 1e-2}, None]},
    seeds=3,
    baseline={"regularizers.werank": None},
)
