"""SimCLR with Muon: as simclr, with timm's Muon on all matrices and kernels."""

from pathlib import Path

from sslcollapse.recipe import extend, load

base = load(Path(__file__).with_name("simclr.py"))

recipe = extend(
    base,
    dict(
        name="speedrun_simclr_muon",
        optim=dict(
            type="timm",
            name="muon",
            lr=2e-3 * (base["domain"]["batch_size"] / 256) ** 0.5,  # whose updates have one length: the square root
            weight_decay=1e-4,
            warmup_steps=base["optim"]["warmup_steps"],
        ),
    ),
)
