"""BGRL on PubMed. There are no published settings: those of bgrl_cora."""

recipe = dict(
    name="bgrl_pubmed",
    seed=0,
    domain=dict(
        type="graph",
        dataset=dict(type="planetoid", name="PubMed"),
        views=dict(edge_drop=[0.5, 0.4], feature_mask=[0.5, 0.4]),
    ),
    encoder=dict(type="gcn", hidden=[512, 256], norm="batch"),
    objective=dict(type="bgrl", predictor_hidden=512, momentum=0.99),
    regularizers=dict(),
    optim=dict(type="adamw", lr=5e-4, weight_decay=1e-5, warmup_steps=100, schedule="cosine"),
    train=dict(steps=600, checkpoint_every=200),
    monitor=dict(every=100),
    evaluate=dict(
        public=dict(type="logistic", split="public"),
        random=dict(type="logistic", split="random", fractions=[0.1, 0.1, 0.8], repeats=20),
    ),
)
