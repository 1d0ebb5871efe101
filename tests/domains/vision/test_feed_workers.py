"""What happens to the worker processes of a streamed feed."""

import os
import signal
import subprocess
import sys
import time
from itertools import islice
from pathlib import Path

import pytest
import torch
from namespaces import in_a_namespace

from sslcollapse.core.errors import RunError
from sslcollapse.core.types import Context
from sslcollapse.domains.base import Order
from sslcollapse.domains.vision.augment import LARGE, Augmentation
from sslcollapse.domains.vision.data import MemoryImages
from sslcollapse.domains.vision.domain import VisionDomain
from sslcollapse.domains.vision.feed import streamed

HERE = Path(__file__).parent


def children() -> list[int]:
    return [int(pid) for pid in Path("/proc/self/task", str(os.getpid()), "children").read_text().split()]


def test_a_shared_memory_that_is_too_small_is_named_and_does_not_hang():
    run = in_a_namespace(f"mount -t tmpfs tmpfs /dev/shm && exec {sys.executable} {HERE / 'small_shm.py'}")
    lines = run.stdout.splitlines()
    assert len(lines) == 4, run.stderr
    for line, reason in zip(lines, ("No space left on device", "No space left on device", "Read-only"), strict=False):
        assert "cannot be passed on through /dev/shm (" in line
        assert reason in line
        assert "--shm-size=8g" in line
        assert "domain.workers=0" in line
    assert lines[3] == f"rw,size=64m {4 * 64 * 3 * 64 * 64}"
    assert run.stderr == ""


@pytest.fixture
def feed():
    order = Order(torch.arange(40), 4, Context(0))
    made = streamed(MemoryImages(torch.arange(40, dtype=torch.uint8).view(40, 1, 1, 1)), order, 0, 2)
    before = children()
    list(islice(made, 2))  # one of each worker, which has then started
    yield made, [pid for pid in children() if pid not in before]
    made.close()


def test_a_signal_to_all_processes_of_a_job_leaves_the_workers_to_finish_the_step(feed):
    batches, workers = feed
    assert len(workers) == 2
    for name in ("TERM", "INT", "USR1", "USR2"):
        subprocess.run(["kill", f"-{name}", *map(str, workers)], check=True)
    read = torch.cat([images.flatten() for _, (images,) in (next(batches) for _ in range(8))])
    assert len(set(read.tolist())) >= 28
    batches.close()
    deadline = time.monotonic() + 20
    while set(children()) & set(workers):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_worker_ends_at_the_sigterm_of_its_parent_and_the_run_with_a_sentence(feed):
    batches, workers = feed
    for pid in workers:
        os.kill(pid, signal.SIGTERM)
    with pytest.raises(RunError, match=r"domain.feed: a worker process that reads images has ended .*domain.workers=0"):
        list(islice(batches, 100))


class _Here(Augmentation):
    """Says in a pixel in which process it made the views."""

    def __call__(self, images, rng):
        views = super().__call__(images, rng)
        views[:, 0, 0, 0] = os.getpid() % 2**20
        return views


@pytest.mark.parametrize(("size", "ahead"), [(LARGE, True), (LARGE - 1, False)])
def test_workers_make_the_views_of_large_images_and_the_same_ones(size, ahead, monkeypatch):
    dataset = dict(type="fake", train=8, test=4, size=16, classes=2)

    def batches(feed, workers):
        made = VisionDomain(None, dataset=dataset, batch_size=4, size=size, feed=feed, workers=workers)
        return list(islice(made.batches(1, Context(seed=3, rank=1, world_size=2)), 3))

    for a, b in zip(batches("resident", 0), batches("streamed", 2), strict=True):
        assert torch.equal(a.index, b.index)
        assert all(map(torch.equal, a.views, b.views))
    monkeypatch.setattr("sslcollapse.domains.vision.views.Augmentation", _Here)
    makers = {int(view[0, 0, 0, 0]) for batch in batches("streamed", 1) for view in batch.views}
    if ahead:
        assert os.getpid() % 2**20 not in makers
    else:
        assert makers == {os.getpid() % 2**20}
