"""BGRL + WERank on the handwritten-digits graph: no download, about a minute on two cores."""

recipe = dict(
    name="quickstart",
    seed=0,
    domain=dict(
        type="graph",
        dataset=dict(type="digits"),
        views=dict(edge_drop=[0.4, 0.3], feature_mask=[0.3, 0.2]),
    ),
    encoder=dict(type="gcn", hidden=[256, 128], norm="batch"),
    objective=dict(type="bgrl", predictor_hidden=256, momentum=0.99),
    regularizers=dict(werank=dict(type="werank", coefficient=1e-2)),
    optim=dict(type="adamw", lr=1e-3, weight_decay=1e-5, warmup_steps=50, schedule="cosine"),
    train=dict(steps=500, checkpoint_every=100),
    monitor=dict(every=50),
    evaluate=dict(public=dict(type="logistic", split="public")),
)
