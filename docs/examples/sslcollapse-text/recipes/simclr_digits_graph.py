"""SimCLR between the nodes of the digits' neighbour graph (as GRACE), for the ablation of three domains."""

recipe = dict(
    name="simclr_digits_graph",
    seed=0,
    domain=dict(
        type="graph",
        dataset=dict(type="digits"),
        views=dict(edge_drop=[0.3, 0.3], feature_mask=[0.3, 0.3]),
    ),
    encoder=dict(type="gcn", hidden=[64, 64], norm="batch"),
    objective=dict(type="simclr", projector=[64, 64], temperature=0.4, norm="none", activation="elu"),
    regularizers=dict(),
    optim=dict(type="adamw", lr=1e-3, weight_decay=1e-5, warmup_steps=20),
    train=dict(steps=200, checkpoint_every=0),
    monitor=dict(every=100),
    evaluate=dict(knn=dict(type="knn", k=20, temperature=0.1), public=dict(type="logistic", split="public")),
)
