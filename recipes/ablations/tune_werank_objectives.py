"""WERank's coefficient for GRACE and CCA-SSG: three trials, one seed each, on *validation* accuracy."""

ablation = dict(
    name="tune_werank_objectives",
    base={
        "GRACE, Cora": "../grace_werank_cora.py",
        "GRACE, CiteSeer": "../grace_werank_citeseer.py",
        "CCA-SSG, Cora": "../cca_ssg_werank_cora.py",
        "CCA-SSG, CiteSeer": "../cca_ssg_werank_citeseer.py",
    },
    axes={"regularizers.werank.coefficient": [1e-4, 1e-3, 1e-2]},
    seeds=1,
)
