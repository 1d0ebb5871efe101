"""GRACE's width and steps on CiteSeer, chosen on *validation* accuracy: its authors' first."""

ablation = dict(
    name="tune_grace_citeseer",
    base="../grace_citeseer.py",
    axes={
        ("encoder.hidden", "objective.projector", "train.steps"): [
            ([512, 256], [256, 256], 200),
            ([512, 256], [256, 256], 100),
            ([1024, 512], [512, 512], 100),
        ],
    },
    seeds=3,
)
