"""Is there a gain where features are few? One block model with 8, 32, 128 and 512 features of equal difficulty.

Signals are set so that logistic regression on propagated raw features (AAX) does equally well at each width; every
run records what it has, and the tables show it. BGRL with a target that has turned over (momentum from 0.95), under
weak and full views, ten seeds. Whether BGRL beats the untrained encoder is in the same tables.

160 runs at about 0.4 CPU-minutes, by the records of claim_11_few_features: 1.1 hours of one core.
"""

COEFFICIENT, FEATURES = "regularizers.werank.coefficient", "domain.dataset.features"
DIFFICULTY = [(8, 0.9), (32, 0.37), (128, 0.2), (512, 0.12)]
ACCURACY, RANK = "evaluation.public.test_accuracy", "rank.representation.effective_rank"

ablation = dict(
    name="claim_11_one_model",
    base="../claims/bgrl_csbm.py",
    axes={
        (FEATURES, "domain.dataset.signal"): DIFFICULTY,
        "domain.views.strength": [0.2, 1.0],
        "objective.momentum": [0.95],
        COEFFICIENT: [0.0, 1e-1],
    },
    seeds=10,
    baseline={COEFFICIENT: 0.0},
    metrics=[ACCURACY, RANK],
    claim=dict(
        number=11,
        statement="There is no gain where features are few, and there is one where they are many.",
        note="Smallest effect that matters, set before the grid ran: one point of accuracy.",
        variances="claim_11_few_features",
        checks=[
            dict(
                name="no gain with 8 and 32 features",
                metric=ACCURACY,
                where={FEATURES: [8, 32]},
                expect="not positive",
                margin=1.0,
            ),
            dict(
                name="a gain with 512 features",
                metric=ACCURACY,
                where={FEATURES: 512},
                expect="positive",
                effect=1.0,
            ),
            dict(
                name="the gain grows with each doubling of the features",
                kind="slope",
                metric=ACCURACY,
                along=FEATURES,
                along_values=[3, 5, 7, 9],
                expect="positive",
                effect=0.17,
            ),
        ],
    ),
)
