"""VICReg on Cora, without a projector. There are no published settings for graphs."""

recipe = dict(
    name="vicreg_cora",
    seed=0,
    domain=dict(
        type="graph",
        dataset=dict(type="planetoid", name="Cora"),
        views=dict(edge_drop=[0.5, 0.5], feature_mask=[0.5, 0.5]),
    ),
    encoder=dict(type="gcn", hidden=[512, 256], norm="batch", norm_momentum=0.01, final_activation="none"),
    objective=dict(type="vicreg", projector=[]),
    regularizers=dict(),
    optim=dict(type="adamw", lr=1e-3, weight_decay=1e-5, warmup_steps=50, schedule="cosine"),
    train=dict(steps=300, checkpoint_every=150),
    monitor=dict(every=50),
    evaluate=dict(
        public=dict(type="logistic", split="public"),
        one_vs_rest=dict(type="logistic", split="public", solver="liblinear"),
    ),
)
