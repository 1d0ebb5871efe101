"""WERank's coefficient on larger graphs, at 200 steps (Cora-ML) and 50 (Computers, CS): three seeds."""

ablation = dict(
    name="claim_02_larger_graphs",
    base={
        "Cora-ML": "../claims/bgrl_cora_ml.py",
        "Computers": "../claims/bgrl_computers.py",
        "CS": "../claims/bgrl_cs.py",
    },
    axes={"regularizers.werank.coefficient": [0.0, 1e-3, 1e-2, 3e-2, 1e-1]},
    seeds=3,
    baseline={"regularizers.werank.coefficient": 0.0},
    claim=dict(
        number=2,
        statement="The best coefficient depends on the dataset.",
        note="Tuning for each dataset, on validation, against one for all, which claim 1 chooses twice.",
        checks=[
            dict(
                name="tuning beats 0.1 for all",
                metric="evaluation.random.test_accuracy",
                cell={"regularizers.werank.coefficient": [1e-3, 1e-2, 3e-2, 1e-1]},
                against={"regularizers.werank.coefficient": 1e-1},
                select="validation",
                expect="positive",
            ),
        ],
    ),
)
