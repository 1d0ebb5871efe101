"""BGRL (Thakoor et al., ICLR 2022) on Amazon Computers, at the authors' published settings."""

recipe = dict(
    name="bgrl_computers",
    seed=0,
    domain=dict(
        type="graph",
        dataset=dict(type="amazon", name="Computers"),
        views=dict(edge_drop=[0.5, 0.4], feature_mask=[0.2, 0.1]),
    ),
    encoder=dict(type="gcn", hidden=[256, 128], norm="batch"),
    objective=dict(type="bgrl", predictor_hidden=512, momentum=0.99),
    regularizers=dict(),
    optim=dict(type="adamw", lr=5e-4, weight_decay=1e-5, warmup_steps=1000, schedule="cosine"),
    train=dict(steps=10000, checkpoint_every=1000),
    monitor=dict(every=500),
    evaluate=dict(random=dict(type="logistic", split="random", fractions=[0.1, 0.1, 0.8], repeats=20)),
)
