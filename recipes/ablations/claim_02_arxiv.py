"""WERank's coefficient on ogbn-arxiv at its authors' settings of BGRL: five coefficients, three seeds; needs a GPU."""

ablation = dict(
    name="claim_02_arxiv",
    base="../bgrl_werank_arxiv.py",
    axes={"regularizers.werank.coefficient": [0.0, 1e-3, 1e-2, 3e-2, 1e-1]},
    seeds=3,
    baseline={"regularizers.werank.coefficient": 0.0},
)
