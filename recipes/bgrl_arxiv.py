"""BGRL (Thakoor et al., ICLR 2022) on ogbn-arxiv, at the authors' published settings. Needs the extra `ogb`."""

recipe = dict(
    name="bgrl_arxiv",
    seed=0,
    domain=dict(
        type="graph",
        dataset=dict(type="ogbn", name="ogbn-arxiv"),
        views=dict(edge_drop=[0.6, 0.6], feature_mask=[0.0, 0.0]),
    ),
    encoder=dict(type="gcn", hidden=[256, 256, 256], norm="graph", weight_standardization=True),
    objective=dict(type="bgrl", predictor_hidden=256, momentum=0.99),
    regularizers=dict(),
    optim=dict(type="adamw", lr=1e-2, weight_decay=1e-5, warmup_steps=1000, schedule="cosine"),
    train=dict(steps=10000, checkpoint_every=1000),
    monitor=dict(every=500),
    evaluate=dict(public=dict(type="logistic", split="public")),
)
