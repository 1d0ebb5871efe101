"""CCA-SSG's steps and views on Cora, chosen on *validation* accuracy: its authors' first, then stronger and longer."""

ablation = dict(
    name="tune_cca_ssg_cora",
    base="../cca_ssg_cora.py",
    axes={
        "train.steps": [50, 100],
        ("domain.views.edge_drop", "domain.views.feature_mask"): [
            ([0.4, 0.4], [0.1, 0.1]),
            ([0.5, 0.5], [0.1, 0.1]),
            ([0.4, 0.4], [0.3, 0.3]),
            ([0.5, 0.5], [0.3, 0.3]),
        ],
    },
    seeds=3,
)
