"""SimCLR with a narrow residual network on CIFAR-10 from an image table: a short run on a CPU.

The table is a JPEG copy of CIFAR-10, so its pixels differ a little from the original's.
"""

recipe = dict(
    name="simclr_narrow_cifar10_jpeg",
    seed=0,
    domain=dict(
        type="vision",
        dataset=dict(
            type="image_table",
            name="CIFAR-10 (JPEG)",
            train="vision/cifar10/train.parquet",
            test="vision/cifar10/test.parquet",
            mean=[0.4914, 0.4822, 0.4465],
            std=[0.2470, 0.2435, 0.2616],
        ),
        views=dict(preset="simclr"),
        batch_size=256,
    ),
    encoder=dict(type="resnet_narrow", width=16),
    objective=dict(type="simclr", projector=[256, 128], temperature=0.2),
    regularizers=dict(),
    optim=dict(type="adamw", lr=2e-3, weight_decay=1e-4, warmup_steps=50),
    train=dict(steps=600, checkpoint_every=150, log_every=50, channels_last=True, online_probe=True),
    monitor=dict(every=150),
    evaluate=dict(knn=dict(type="knn", k=200, temperature=0.1), linear=dict(type="linear")),
)
