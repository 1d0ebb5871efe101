"""BGRL with and without WERank on Cora: ten seeds, paired, on the public split."""

ablation = dict(
    name="werank_cora",
    base={"BGRL": "../bgrl_cora.py", "BGRL + WERank": "../bgrl_werank_cora.py"},
    axes={"evaluate.random": [None]},
    seeds=10,
    baseline={"base": "BGRL"},
)
