"""CCA-SSG's width and decorrelation on Cora with the views and steps of tune_cca_ssg_cora's best, by *validation*."""

ablation = dict(
    name="tune_cca_ssg_cora_closer",
    base="../cca_ssg_cora.py",
    axes={
        ("domain.views.edge_drop", "train.steps"): [([0.5, 0.5], 100)],
        "encoder.hidden": [[512, 512], [1024, 1024]],
        "objective.decorrelation": [5e-4, 1e-3, 2e-3],
    },
    seeds=3,
)
