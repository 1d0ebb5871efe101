"""GRACE's width on Cora, chosen on *validation* accuracy: its authors' first, then wider."""

ablation = dict(
    name="tune_grace_cora",
    base="../grace_cora.py",
    axes={
        ("encoder.hidden", "objective.projector"): [
            ([256, 128], [128, 128]),
            ([512, 256], [256, 256]),
            ([1024, 512], [512, 512]),
        ],
    },
    seeds=3,
)
