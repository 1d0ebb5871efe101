"""WERank's coefficient on a block model of ogbn-arxiv's size, at 20 steps: three coefficients, three seeds."""

ablation = dict(
    name="claim_02_block_model",
    base="../claims/bgrl_csbm_large.py",
    axes={"regularizers.werank.coefficient": [0.0, 1e-2, 1e-1]},
    seeds=3,
    baseline={"regularizers.werank.coefficient": 0.0},
    claim=dict(
        number=2,
        statement="WERank helps on a graph of the size of ogbn-arxiv.",
        note="The coefficient is the one with the best validation accuracy; 20 steps.",
        checks=[
            dict(
                name="accuracy rises",
                metric="evaluation.public.test_accuracy",
                cell={"regularizers.werank.coefficient": [1e-2, 1e-1]},
                select="validation",
                expect="positive",
            ),
            dict(
                name="rank rises",
                metric="rank.representation.effective_rank",
                cell={"regularizers.werank.coefficient": [1e-2, 1e-1]},
                select="validation",
                probe="public",
                expect="positive",
            ),
        ],
    ),
)
