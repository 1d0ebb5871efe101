"""GRACE and CCA-SSG on Cora and CiteSeer, each with and without WERank: five seeds, on the public split.

One coefficient for all four, chosen on *validation* accuracy at earlier settings of GRACE (docs/results/tuning.md).
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
    claim=dict(
        number=7,
        statement="WERank helps other objectives than BGRL.",
        note="GRACE and CCA-SSG at one coefficient for all, 1e-2.",
        checks=[
            dict(
                name="accuracy rises",
                metric="evaluation.public.test_accuracy",
                cell={"regularizers.werank": dict(type="werank", coefficient=1e-2)},
                expect="positive",
            ),
            dict(
                name="rank rises",
                metric="rank.representation.effective_rank",
                cell={"regularizers.werank": dict(type="werank", coefficient=1e-2)},
                expect="positive",
            ),
        ],
    ),
)
