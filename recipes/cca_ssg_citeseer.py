"""CCA-SSG (Zhang et al. 2021) on CiteSeer, its authors' settings: one layer."""

recipe = dict(
    name="cca_ssg_citeseer",
    seed=0,
    domain=dict(
        type="graph",
        dataset=dict(type="planetoid", name="CiteSeer"),
        views=dict(edge_drop=[0.4, 0.4], feature_mask=[0.0, 0.0]),
    ),
    encoder=dict(type="gcn", hidden=[512], norm="none", activation="relu", final_activation="none"),
    objective=dict(type="cca_ssg", decorrelation=5e-4),
    regularizers=dict(),
    optim=dict(type="adamw", lr=1e-3, weight_decay=0.0, schedule="constant"),
    train=dict(steps=20, checkpoint_every=10),
    monitor=dict(every=10),
    evaluate=dict(
        public=dict(type="logistic", split="public"),
        one_vs_rest=dict(type="logistic", split="public", solver="liblinear"),
    ),
)
