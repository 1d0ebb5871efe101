"""BGRL with and without WERank on CiteSeer: ten seeds, paired, on the public split."""

ablation = dict(
    name="werank_citeseer",
    base={"BGRL": "../bgrl_citeseer.py", "BGRL + WERank": "../bgrl_werank_citeseer.py"},
    axes={"evaluate.random": [None]},
    seeds=10,
    baseline={"base": "BGRL"},
)
