"""GRACE's width and weight decay on Cora, by *validation* accuracy: its authors' width and twice that."""

ablation = dict(
    name="tune_grace_cora",
    base="../grace_cora.py",
    axes={
        ("encoder.hidden", "objective.projector", "optim.decoupled"): [
            ([256, 128], [128, 128], True),
            ([512, 256], [256, 256], True),
            ([512, 256], [256, 256], False),
        ],
    },
    seeds=3,
)
