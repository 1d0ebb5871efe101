"""SimCLR on CIFAR-10, ResNet-18, 200 epochs: lightly's settings (projector 512-128, τ 0.5, SGD .06 · batch / 128)."""

EPOCHS, BATCH = 200, 256
STEPS_AN_EPOCH = 50_000 // BATCH

recipe = dict(
    name="simclr_cifar10",
    seed=0,
    domain=dict(type="vision", dataset=dict(type="cifar10"), views=dict(preset="simclr"), batch_size=BATCH),
    encoder=dict(type="resnet18", stem="cifar"),
    objective=dict(type="simclr", projector=[512, 128], temperature=0.5),
    regularizers=dict(),
    optim=dict(type="sgd", lr=0.06 * BATCH / 128, weight_decay=5e-4, warmup_steps=10 * STEPS_AN_EPOCH),
    train=dict(
        steps=EPOCHS * STEPS_AN_EPOCH,
        checkpoint_every=10 * STEPS_AN_EPOCH,
        log_every=50,
        precision="bf16",
        channels_last=True,
        online_probe=True,
    ),
    monitor=dict(every=10 * STEPS_AN_EPOCH),
    evaluate=dict(knn=dict(type="knn", k=200, temperature=0.1), linear=dict(type="linear")),
)
