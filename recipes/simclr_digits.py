"""SimCLR on handwritten digits as images of 8 × 8: no download, about a minute on two cores.

Views are milder than for photographs, since a tenth of 64 pixels is no digit any more, and never mirrored.
"""

recipe = dict(
    name="simclr_digits",
    seed=0,
    domain=dict(
        type="vision",
        dataset=dict(type="digits"),
        views=dict(preset="simclr", crop_scale=[0.4, 1.0], flip=0.0, jitter=[0.4, 0.4, 0.0, 0.0]),
        batch_size=250,
    ),
    encoder=dict(type="resnet_narrow", width=32),
    objective=dict(type="simclr", projector=[256, 64], temperature=0.2),
    regularizers=dict(),
    optim=dict(type="adamw", lr=2e-3, weight_decay=1e-4, warmup_steps=20),
    train=dict(steps=200, checkpoint_every=100),
    monitor=dict(every=100),
    evaluate=dict(knn=dict(type="knn", k=20, temperature=0.1), public=dict(type="logistic", split="public")),
)
