"""SimCLR for 90 %: as simclr, 800 epochs."""

from pathlib import Path

from sslcollapse.recipe import extend, load

EPOCHS = 800
base = load(Path(__file__).with_name("simclr.py"))
STEPS = EPOCHS * 50_000 // base["domain"]["batch_size"]

recipe = extend(
    base,
    dict(
        name="speedrun_simclr_90",
        domain=dict(grow=[[STEPS // 2, 24]]),
        train=dict(steps=STEPS),
        monitor=dict(timed_every=STEPS // 20),
    ),
)
