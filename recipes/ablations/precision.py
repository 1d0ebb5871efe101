"""Is accuracy in bf16 that of float32, on processors and GPUs that multiply in it? Cora and digits, five seeds.

``train.precision="auto"`` chooses bf16 there. Each difference is paired over seeds and held against a margin of one
point that was set before any run. 20 runs, at about 2 CPU-minutes: 40 minutes of one core.
"""

DIFFERENCE = dict(
    cell={"train.precision": ["bf16"]},
    against={"train.precision": ["no"]},
    expect="equivalent",
    margin=1.0,
)

ablation = dict(
    name="precision",
    base={"Cora": "../bgrl_werank_cora.py", "digits": "../simclr_werank_digits.py"},
    axes={"train.precision": ["no", "bf16"]},
    seeds=5,
    baseline={"train.precision": "no"},
    claim=dict(
        number=15,
        statement="Training in bf16 gives the accuracy of training in float32, within one point.",
        note="Margin of equivalence, set before the grid ran: one point of accuracy, each way. Ranks, losses, "
        "penalties and probes are in float32 in both.",
        checks=[
            dict(name="accuracy on public splits", metric="evaluation.public.test_accuracy", **DIFFERENCE),
        ],
    ),
)
