"""WERank's coefficient on ogbn-arxiv at its authors' settings of BGRL: five coefficients, three seeds; needs a GPU."""

ablation = dict(
    name="claim_02_arxiv",
    base="../bgrl_werank_arxiv.py",
    axes={"regularizers.werank.coefficient": [0.0, 1e-3, 1e-2, 3e-2, 1e-1]},
    seeds=3,
    baseline={"regularizers.werank.coefficient": 0.0},
    claim=dict(
        number=2,
        statement="WERank helps on ogbn-arxiv.",
        note="Not run: ogbn-arxiv and a GPU have not been at hand.",
        checks=[
            dict(
                name="accuracy rises",
                metric="evaluation.public.test_accuracy",
                cell={"regularizers.werank.coefficient": [1e-3, 1e-2, 3e-2, 1e-1]},
                select="validation",
                expect="positive",
            ),
            dict(
                name="rank rises",
                metric="rank.representation.effective_rank",
                cell={"regularizers.werank.coefficient": [1e-3, 1e-2, 3e-2, 1e-1]},
                select="validation",
                probe="public",
                expect="positive",
            ),
        ],
    ),
)
