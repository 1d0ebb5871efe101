"""GraphMAE on ogbn-arxiv, with its authors' settings."""

hide = [dict(type="edge_drop", p=0.5), dict(type="node_mask", p=0.5)]

recipe = dict(
    name="graphmae_arxiv",
    seed=0,
    domain=dict(type="graph", dataset=dict(type="ogbn", name="ogbn-arxiv"), views=dict(type="chain", views=[hide])),
    encoder=dict(type="gat", hidden=[1024, 1024, 1024], heads=4, dropout=0.2, attention_dropout=0.1, norm="layer"),
    objective=dict(type="graphmae", decoder="gat", gamma=3.0, dropout=0.2, attention_dropout=0.1),
    regularizers=dict(),
    optim=dict(type="adamw", lr=1e-3, weight_decay=0.0, decoupled=False, warmup_steps=0, schedule="cosine"),
    train=dict(steps=1000, checkpoint_every=250, precision="no"),
    monitor=dict(every=250),
    evaluate=dict(public=dict(type="logistic", split="public", c_step=2)),
)
