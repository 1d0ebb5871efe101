"""The real workers with a trainer that invents results, fails at width 13, is preempted at 98, waits at 99,
and is killed at 97 while it measures what is optional."""

import functools
import json
import os
import random
import signal
import sys
import time
import types
from pathlib import Path

from sslcollapse.ablation.executors import local
from sslcollapse.core.errors import PreemptedError
from sslcollapse.runs.quantities import CUT_SHORT

_SERVE = local._serve


def train(run, recipe, *, out, resume, command, lock, datasets=None):
    seed, width, identity = (
        recipe["seed"],
        recipe["encoder"]["hidden"][0],
        run.parent.name,
    )  # no hashing: it imports torch
    threads = os.environ["OMP_NUM_THREADS"]
    call = {"hash": identity, "seed": seed, "resume": resume, "threads": threads}
    out.mkdir(parents=True, exist_ok=True)
    with open(out / "calls.jsonl", "a") as file:
        file.write(json.dumps({**call, "pid": os.getpid()}) + "\n")
    if width == 13 and not os.environ.get("LUCKY"):
        raise ValueError("width 13 brings bad luck")
    (run / "checkpoints").mkdir(parents=True, exist_ok=True)
    (run / "recipe.json").write_text(json.dumps(recipe))
    if width == 99 and not resume:
        (run / "checkpoints" / "step00000001.pt").touch()
        (run / "metrics.jsonl").write_text('{"step": 1, "loss": 0.5}\n')
        time.sleep(60)
    if width == 98 and not resume:
        raise PreemptedError("stopped by SIGTERM after step 1", signal.SIGTERM)
    draw = random.Random(f"{identity} {seed}")
    metric = {
        "solver": "lbfgs",
        "test_accuracy": score(draw),
        "validation_accuracy": score(draw, width / 1000),
    }
    rank = {
        "effective_rank": 3 + draw.random(),
        "effective_rank_centred": 2.0,
        "attainable": 4,
        "n": 10,
        "stable_rank": 1.0,
    }
    result = {
        "recipe": recipe, "hash": identity, "seed": seed, "steps": 2, "seconds": {"training": 1.0},
        "evaluation": {"public": metric}, "untrained": {"public": {"test_accuracy": score(draw)}},
        "rank": {"representation": rank, "prediction": rank, "layers": {"convs.0": {"weight": rank}}},
        "regularizers": {},
    }  # fmt: skip
    packages = {"torch": "2.15", "torch_geometric": "2.8"}
    environment = {"commit": "abc", "device": "a cpu", "packages": packages, "threads": int(threads)}
    (run / "environment.json").write_text(json.dumps({**environment, "command": command}))
    if width == 97:
        (run / "result.json").write_text(json.dumps({**result, "warnings": [CUT_SHORT]}))
        os.kill(os.getpid(), signal.SIGKILL)  # as the system does where what is optional needs too much memory
    (run / "result.json").write_text(json.dumps(result))


def score(draw, offset=0.0):
    return {"values": [0.5] * 30, "mean": offset + 0.1 * draw.random(), "std": None}


def serve(message, *arguments):
    """In place of a worker's first function."""
    sys.modules["sslcollapse.training.trainer"] = trainer = types.ModuleType("trainer")
    trainer.train = functools.partial(train, Path(message["path"]))
    local.LOCK_SECONDS = 0.1
    _SERVE(message, *arguments)


if __name__ == "__main__":
    from sslcollapse import cli

    local._serve, local.PRELOAD = serve, ()
    sys.exit(cli.main())
