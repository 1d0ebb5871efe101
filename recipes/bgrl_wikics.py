"""BGRL (Thakoor et al., ICLR 2022) on WikiCS, at the authors' published settings, features standardised."""

recipe = dict(
    name="bgrl_wikics",
    seed=0,
    domain=dict(
        type="graph",
        dataset=dict(type="wikics"),
        views=dict(edge_drop=[0.2, 0.3], feature_mask=[0.2, 0.1]),
    ),
    encoder=dict(type="gcn", hidden=[512, 256], norm="batch"),
    objective=dict(type="bgrl", predictor_hidden=512, momentum=0.99),
    regularizers=dict(),
    optim=dict(type="adamw", lr=5e-4, weight_decay=1e-5, warmup_steps=1000, schedule="cosine"),
    train=dict(steps=10000, checkpoint_every=1000),
    monitor=dict(every=500),
    evaluate=dict(public=dict(type="logistic", split="public")),
)
