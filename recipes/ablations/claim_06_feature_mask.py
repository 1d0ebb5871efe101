"""Feature masking and rank: BGRL on Cora, edges dropped lightly, six mask rates, with and without WERank."""

FIVE = [[mask, mask] for mask in (0.0, 0.2, 0.4, 0.6, 0.8)]

ablation = dict(
    name="claim_06_feature_mask",
    base="../claims/bgrl_cora.py",
    axes={
        ("domain.views.strength", "domain.views.edge_drop", "domain.views.feature_mask"): [
            (1.0, [0.2, 0.2], [mask, mask]) for mask in (0.0, 0.2, 0.4, 0.6, 0.7, 0.8)
        ],
        "regularizers.werank.coefficient": [0.0, 1e-2],
    },
    seeds=8,  # the fewest of which a correlation has an interval at the confidence of four tests
    baseline={"regularizers.werank.coefficient": 0.0},
    metrics=[
        "evaluation.public.test_accuracy",
        "rank.representation.effective_rank",
        "rank.shared.effective_rank",
        "rank.shared.overlap",
        "rank.shared_input.effective_rank",
        "rank.shared_input.overlap",
    ],
    claim=dict(
        number=6,
        statement="Strong augmentation along features collapses rank, because views share less.",
        note="Slopes per unit of mask rate. What views share is measured on the representations of two views. The mask "
        "rate 0.7 and the seeds from 5 on were planned later, since a correlation needs six cells and eight seeds; "
        "slopes are of the five rates of the first plan.",
        checks=[
            dict(
                name="rank of the representation falls with the mask rate",
                kind="trend",
                metric="rank.representation.effective_rank",
                where={"regularizers.werank.coefficient": 0.0, "domain.views.feature_mask": FIVE},
                along="domain.views.feature_mask",
                expect="negative",
            ),
            dict(
                name="rank of the views' cross-covariance falls with the mask rate",
                kind="trend",
                metric="rank.shared.effective_rank",
                where={"regularizers.werank.coefficient": 0.0, "domain.views.feature_mask": FIVE},
                along="domain.views.feature_mask",
                expect="negative",
            ),
            dict(
                name="both ranks go together",
                kind="correlation",
                metric="rank.representation.effective_rank",
                with_metric="rank.shared.effective_rank",
                where={"regularizers.werank.coefficient": 0.0},
                expect="positive",
            ),
            dict(
                name="WERank raises the rank at the strongest mask",
                metric="rank.representation.effective_rank",
                where={"domain.views.feature_mask": [0.8, 0.8]},
                cell={"regularizers.werank.coefficient": 1e-2},
                expect="positive",
            ),
        ],
    ),
)
