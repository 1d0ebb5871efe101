"""SimCLR: batches of 1,000, views of 24 pixels in the first half, milder colours, temperature 0.2, 100 epochs."""

from pathlib import Path

from sslcollapse.recipe import extend

EPOCHS, BATCH = 100, 1000
STEPS_AN_EPOCH = 50_000 // BATCH
STEPS = EPOCHS * STEPS_AN_EPOCH

recipe = extend(
    Path(__file__).parents[1] / "simclr_cifar10.py",
    dict(
        name="speedrun_simclr",
        domain=dict(
            batch_size=BATCH,
            grow=[[STEPS // 2, 24]],
            views=dict(jitter=[0.4, 0.4, 0.4, 0.1]),  # lightly's for CIFAR-10
        ),
        objective=dict(projector=[2048, 128], temperature=0.2),
        optim=dict(lr=0.06 * BATCH / 128, nesterov=True, warmup_steps=5 * STEPS_AN_EPOCH),
        train=dict(steps=STEPS, checkpoint_every=0, checkpoint_minutes=0.0, online_probe=False),
        monitor=dict(every=0, baselines=False, timed=["knn"], timed_every=5 * STEPS_AN_EPOCH),
        evaluate=dict(linear=None),
    ),
)
