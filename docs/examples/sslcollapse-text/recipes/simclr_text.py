"""SimCSE: SimCLR on docstrings, with views that differ by the encoder's dropout alone. No download, a minute or two."""

recipe = dict(
    name="simclr_text",
    seed=0,
    domain=dict(type="text", dataset=dict(type="docstrings"), batch_size=128, vocabulary=2048, length=32),
    encoder=dict(type="transformer", width=64, layers=2, heads=4, dropout=0.1, pooling="mean"),
    objective=dict(type="simclr", projector=[128, 64], temperature=0.1),
    regularizers=dict(),
    optim=dict(type="adamw", lr=3e-3, weight_decay=1e-4, warmup_steps=20),
    train=dict(steps=200, checkpoint_every=100),
    monitor=dict(every=100),
    evaluate=dict(knn=dict(type="knn", k=20, temperature=0.1), public=dict(type="logistic", split="public")),
)
