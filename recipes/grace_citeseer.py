"""GRACE (Zhu et al. 2020) on CiteSeer, its authors' settings."""

recipe = dict(
    name="grace_citeseer",
    seed=0,
    domain=dict(
        type="graph",
        dataset=dict(type="planetoid", name="CiteSeer"),
        views=dict(edge_drop=[0.2, 0.0], feature_mask=[0.3, 0.2]),
    ),
    encoder=dict(type="gcn", hidden=[512, 256], norm="none", activation="prelu", final_activation="prelu"),
    objective=dict(type="simclr", temperature=0.9, projector=[256, 256], norm="none", activation="elu"),
    regularizers=dict(),
    optim=dict(type="adamw", lr=1e-3, weight_decay=1e-5, schedule="constant"),
    train=dict(steps=200, checkpoint_every=100),
    monitor=dict(every=50),
    evaluate=dict(
        public=dict(type="logistic", split="public"),
        one_vs_rest=dict(type="logistic", split="public", solver="liblinear"),
    ),
)
