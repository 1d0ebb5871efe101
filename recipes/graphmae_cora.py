"""GraphMAE on Cora, with its authors' settings."""

hide = [dict(type="node_mask", p=0.5, replace=0.05)]

recipe = dict(
    name="graphmae_cora",
    seed=0,
    domain=dict(type="graph", dataset=dict(type="planetoid", name="Cora"), views=dict(type="chain", views=[hide])),
    encoder=dict(type="gat", hidden=[512, 512], heads=4, dropout=0.2, attention_dropout=0.1),
    objective=dict(type="graphmae", decoder="gat", gamma=3.0, dropout=0.2, attention_dropout=0.1),
    regularizers=dict(),
    optim=dict(type="adamw", lr=1e-3, weight_decay=2e-4, decoupled=False, warmup_steps=0, schedule="cosine"),
    train=dict(steps=1500, checkpoint_every=500, precision="no"),
    monitor=dict(every=250),
    evaluate=dict(public=dict(type="logistic", split="public")),
)
