"""BYOL on CIFAR-10, ResNet-18, 200 epochs: solo-learn's settings (heads 4096-256, momentum .99 to 1, LARS)."""

EPOCHS, BATCH = 200, 256
STEPS_AN_EPOCH = 50_000 // BATCH

recipe = dict(
    name="byol_cifar10",
    seed=0,
    domain=dict(type="vision", dataset=dict(type="cifar10"), views=dict(preset="byol"), batch_size=BATCH),
    encoder=dict(type="resnet18", stem="cifar"),
    objective=dict(type="byol", projector=[4096, 256], predictor_hidden=4096, momentum=0.99),
    regularizers=dict(),
    optim=dict(
        type="lars", lr=1.0, weight_decay=1e-5, trust_coefficient=0.02, clip=True, warmup_steps=10 * STEPS_AN_EPOCH
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
