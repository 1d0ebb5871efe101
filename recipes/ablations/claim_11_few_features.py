"""WERank where features are few: digits (64 features) and block models of 8 and 32, weak views, five seeds."""

ablation = dict(
    name="claim_11_few_features",
    base={
        "digits, 64": "../claims/bgrl_digits.py",
        "block model, 8": "../claims/bgrl_csbm.py",
        "block model, 32": "../claims/bgrl_csbm_32.py",
    },
    axes={"regularizers.werank.coefficient": [0.0, 1e-2, 1e-1]},
    seeds=5,
    baseline={"regularizers.werank.coefficient": 0.0},
    claim=dict(
        number=11,
        statement="There is no gain where features are few.",
        note="No gain means that the interval of the difference lies below one point.",
        checks=[
            dict(
                name="no gain in accuracy",
                metric="evaluation.public.test_accuracy",
                cell={"regularizers.werank.coefficient": [1e-2, 1e-1]},
                select="validation",
                expect="not positive",
                margin=1.0,
            ),
        ],
    ),
)
