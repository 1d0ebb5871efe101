"""BGRL on Cora. There are no published settings for Cora; see docs/results/tuning.md for how these were chosen."""

recipe = dict(
    name="bgrl_cora",
    seed=0,
    domain=dict(
        type="graph",
        dataset=dict(type="planetoid", name="Cora"),
        views=dict(edge_drop=[0.5, 0.4], feature_mask=[0.5, 0.4]),
    ),
    encoder=dict(type="gcn", hidden=[1024, 512], norm="batch"),
    objective=dict(type="bgrl", predictor_hidden=512, momentum=0.99),
    regularizers=dict(),
    optim=dict(type="adamw", lr=1e-3, weight_decay=1e-5, warmup_steps=50, schedule="cosine"),
    train=dict(steps=300, checkpoint_every=100, precision="no"),
    monitor=dict(every=50),
    evaluate=dict(
        public=dict(type="logistic", split="public"),
        random=dict(type="logistic", split="random", fractions=[0.1, 0.1, 0.8], repeats=20),
    ),
)
