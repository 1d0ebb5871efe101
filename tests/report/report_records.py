"""A recipe and records of runs of it, as ``ablate`` writes them."""

import json
from pathlib import Path

from tiny import tiny_recipe

RECIPE = tiny_recipe("tiny") | dict(
    seed=0,
    objective=dict(type="cca_ssg"),
    regularizers=dict(werank=dict(type="werank", coefficient=dict(type="schedule", base=0.1, start=2, warmup=1))),
    optim=dict(type="adamw", lr=1e-3, warmup_steps=0),
    train=dict(steps=6, log_every=1, checkpoint_every=0),
    monitor=dict(every=3),
    evaluate=dict(public=dict(type="logistic", split="public")),
)


def record(base: str, coefficient: float | None, seed: int, accuracy: float, rank: float, hash_: str = "") -> dict:
    """A record of one run as ``ablate`` writes it."""
    metric = {"values": [accuracy], "mean": accuracy, "std": None, "n": 1}
    probe = {"public": {"solver": "lbfgs", "test_accuracy": metric, "validation_accuracy": metric}}
    features = {"effective_rank": rank, "effective_rank_centred": rank, "attainable": 8, "n": 120}
    layer = {"weight": {"effective_rank": rank / 2, "attainable": 4}, "output": features}
    return {
        "hash": hash_ or f"{base}{coefficient}",
        "seed": seed,
        "name": "tiny",
        "base": base,
        "overrides": {
            "regularizers.werank": None if coefficient is None else {"type": "werank", "coefficient": coefficient}
        },
        "settings": [],
        "steps": 6,
        "evaluation": probe,
        "untrained": probe,
        "rank": {"representation": features, "layers": {"convs.0": layer}},
        "regularizers": {},
        "seconds": {"training": 1.0, "steps_trained": 6, "evaluation": 0.1},
        **dict(commit="0", device="cpu", torch="2", torch_geometric="2", threads=1),
    }


def write_records(folder: Path, records: list[dict]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "runs.jsonl").write_text("".join(json.dumps(one) + "\n" for one in records))
    return folder
