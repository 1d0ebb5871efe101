"""VICReg on CIFAR-10, ResNet-18, 200 epochs: solo-learn's settings (25 / 25 / 1, projector 2048-2048-2048, LARS)."""

EPOCHS, BATCH = 200, 256
STEPS_AN_EPOCH = 50_000 // BATCH

recipe = dict(
    name="vicreg_cifar10",
    seed=0,
    domain=dict(
        type="vision",
        dataset=dict(type="cifar10"),
        views=dict(preset="vicreg", crop_scale=[0.2, 1.0]),
        batch_size=BATCH,
    ),
    encoder=dict(type="resnet18", stem="cifar"),
    objective=dict(type="vicreg", projector=[2048, 2048, 2048]),
    regularizers=dict(),
    optim=dict(
        type="lars", lr=0.3, weight_decay=1e-4, trust_coefficient=0.02, clip=True, warmup_steps=10 * STEPS_AN_EPOCH
    ),
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
