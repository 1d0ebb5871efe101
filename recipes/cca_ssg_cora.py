"""CCA-SSG (Zhang et al. 2021) on Cora, its authors' settings."""

recipe = dict(
    name="cca_ssg_cora",
    seed=0,
    domain=dict(
        type="graph",
        dataset=dict(type="planetoid", name="Cora"),
        views=dict(edge_drop=[0.4, 0.4], feature_mask=[0.1, 0.1]),
    ),
    encoder=dict(type="gcn", hidden=[512, 512], norm="none", activation="relu", final_activation="none"),
    objective=dict(type="cca_ssg", decorrelation=1e-3),
    regularizers=dict(),
    optim=dict(type="adamw", lr=1e-3, weight_decay=0.0, schedule="constant"),
    train=dict(steps=50, checkpoint_every=25),
    monitor=dict(every=10),
    evaluate=dict(
        public=dict(type="logistic", split="public"),
        raw_rows=dict(type="logistic", split="public", rows="raw"),
    ),
)
