"""BGRL (Thakoor et al., ICLR 2022) on PPI, at the authors' published settings. 22 graphs a step."""

recipe = dict(
    name="bgrl_ppi",
    seed=0,
    domain=dict(
        type="graph",
        dataset=dict(type="ppi", pretrain="train+val"),
        views=dict(edge_drop=[0.3, 0.25], feature_mask=[0.25, 0.0]),
        batch_size=22,
    ),
    encoder=dict(type="sage", hidden=[512, 512, 512], norm="graph"),
    objective=dict(type="bgrl", predictor_hidden=512, momentum=0.99),
    regularizers=dict(),
    optim=dict(type="adamw", lr=5e-3, weight_decay=1e-5, warmup_steps=1000, schedule="cosine"),
    train=dict(steps=10000, checkpoint_every=1000),
    monitor=dict(every=500),
    evaluate=dict(public=dict(type="logistic", split="public")),
)
