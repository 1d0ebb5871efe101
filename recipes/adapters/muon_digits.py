"""SimCLR on handwritten digits with timm's Muon on all matrices and kernels; all but the optimizer as simclr_digits."""

from pathlib import Path

from sslcollapse.recipe import extend

recipe = extend(
    Path(__file__).parents[1] / "simclr_digits.py",
    dict(
        name="muon_digits",
        optim=dict(type="timm", name="muon", lr=2e-3, weight_decay=1e-4, compute="float32", warmup_steps=20),
    ),
)
