"""GRACE's width on Cora, chosen on *validation* accuracy: its authors' and twice that."""

ablation = dict(
    name="tune_grace_cora",
    base="../grace_cora.py",
    axes={
        ("encoder.hidden", "objective.projector"): [
            ([256, 128], [128, 128]),
            ([512, 256], [256, 256]),
        ],
    },
    seeds=3,
)
