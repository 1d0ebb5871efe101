"""GraphMAE on CiteSeer, with its authors' settings."""

hide = [dict(type="node_mask", p=0.5, replace=0.1)]

recipe = dict(
    name="graphmae_citeseer",
    seed=0,
    domain=dict(type="graph", dataset=dict(type="planetoid", name="CiteSeer"), views=dict(type="chain", views=[hide])),
    encoder=dict(type="gat", hidden=[512, 512], heads=2, dropout=0.2, attention_dropout=0.1),
    objective=dict(type="graphmae", decoder="gat", gamma=1.0, dropout=0.2, attention_dropout=0.1),
    regularizers=dict(),
    optim=dict(type="adamw", lr=1e-3, weight_decay=2e-5, decoupled=False, warmup_steps=0, schedule="cosine"),
    train=dict(steps=300, checkpoint_every=100, precision="no"),
    monitor=dict(every=100),
    evaluate=dict(public=dict(type="logistic", split="public")),
)
