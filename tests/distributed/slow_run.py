"""A run of several processes whose measurements and evaluation outlast the timeout of the process group.

python slow_run.py OUT [kill | stop]        what rank 0 does to itself while it evaluates
python slow_run.py OUT uneven               rank 0 alone fails at a baseline
"""

import os
import signal
import sys
import time
from datetime import timedelta
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import text_parts
import torch.distributed as dist
from torch import Tensor

from sslcollapse.core import distributed
from sslcollapse.core.errors import RunError
from sslcollapse.core.registry import DOMAINS, ENCODERS, PROBES
from sslcollapse.training.trainer import train

GROUP_TIMEOUT = 8.0
SLOW = 0.0 if "RANK" not in os.environ or len(sys.argv) > 2 else 9.6
"""Seconds for the probe set, which is one batch of ``PROBED`` samples."""
PROBED = 90
EVERY = 3
"""The first look at the probe set takes so long and every third after it: one on the way and one in the evaluation."""


class SlowBag(text_parts.BagOfWords):
    """Takes its time over the probe set."""

    looks = 0

    def forward(self, view: text_parts.Tokens) -> Tensor:
        if not self.training and len(view.ids) == PROBED:
            time.sleep(0.0 if SlowBag.looks % EVERY else SLOW)
            SlowBag.looks += 1
        return super().forward(view)


class Uneven(text_parts.TextDomain):
    """Baselines, the first of which fails when its rank is measured, which rank 0 does alone."""

    def baselines(self):
        calls = []

        def first(view):
            calls.append(view)
            if len(calls) > 2:  # a first look, and the features for the probes
                raise ValueError("not a third time")
            return view.ids.float()

        return {"first": first, "second": lambda view: view.ids.float()}


class Fatal(text_parts.NearestMean):
    """Ends or freezes its process."""

    def __call__(self, features, probe_set):
        os.kill(os.getpid(), {"kill": signal.SIGKILL, "stop": signal.SIGSTOP}[sys.argv[2]])
        return super().__call__(features, probe_set)


def register() -> None:
    """All parts of the recipe."""
    text_parts.register()
    ENCODERS.register("slow_bag")(SlowBag)
    DOMAINS.register("uneven")(Uneven)
    PROBES.register("fatal")(Fatal)


def recipe(name: str) -> dict:
    if sys.argv[2:] == ["uneven"]:
        return text_parts.text_recipe(name, domain=dict(type="uneven"), train=dict(steps=1))
    random = dict(split="random", fractions=[0.4, 0.3, 0.3], metric="accuracy")
    return text_parts.text_recipe(
        name,
        encoder=dict(type="slow_bag"),
        train=dict(steps=1, log_every=1),
        monitor=dict(every=1),
        evaluate=dict(
            knn=dict(type="knn", repeats=4, **random),
            logistic=dict(type="logistic", repeats=3, c_step=5, **random),
            means=dict(type="fatal" if len(sys.argv) > 2 else "nearest_mean"),
        ),
    )


if __name__ == "__main__":
    register()
    dist.init_process_group("gloo", timeout=timedelta(seconds=120))
    dist.barrier()
    dist.distributed_c10d._set_pg_timeout(timedelta(seconds=GROUP_TIMEOUT), dist.group.WORLD)
    distributed.HEARTBEAT, distributed.PATIENCE = 0.3, 15.0
    try:
        train(recipe("slow"), out=Path(sys.argv[1]))
    except RunError as error:
        print(f"rank {os.environ['RANK']}: {error}", file=sys.stderr)
        sys.exit(2)
