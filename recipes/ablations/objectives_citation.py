"""GRACE and CCA-SSG on Cora and CiteSeer, each with and without WERank: five seeds, on the public split.

One coefficient for all four, the one with the best mean *validation* accuracy in tune_werank_objectives.
"""

ablation = dict(
    name="objectives_citation",
    base={
        "GRACE, Cora": "../grace_werank_cora.py",
        "GRACE, CiteSeer": "../grace_werank_citeseer.py",
        "CCA-SSG, Cora": "../cca_ssg_werank_cora.py",
        "CCA-SSG, CiteSeer": "../cca_ssg_werank_citeseer.py",
    },
    axes={"regularizers.werank": [None, dict(type="werank", coefficient=1e-2)]},
    seeds=5,
    baseline={"regularizers.werank": None},
)
