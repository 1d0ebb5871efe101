"""A thread makes the same items in the same order, and ends whatever ends those who ask for them."""

import subprocess
import sys
import threading
import time
from itertools import count, islice

import pytest
import torch

from sslcollapse.core.types import Context
from sslcollapse.domains.ahead import read_ahead
from sslcollapse.domains.graph.domain import GraphDomain

DATASET = dict(type="csbm", nodes=120, features=12, train_per_class=5, validation_per_class=5)


def threads():
    return [thread for thread in threading.enumerate() if thread.name == "reading ahead"]


@pytest.mark.parametrize("ahead", [0, 1, 3])
def test_items_come_in_their_order_and_no_more_are_made_than_asked_for(ahead):
    made = []

    def items():
        for number in count():
            made.append(number)
            yield number

    reading = read_ahead(items, ahead)
    assert list(islice(reading, 5)) == [0, 1, 2, 3, 4]
    deadline = time.monotonic() + 10
    while len(made) < 5 + ahead and time.monotonic() < deadline:
        time.sleep(0.001)
    time.sleep(0.02)  # in which one more could be made
    assert len(made) == 5 + ahead
    reading.close()
    assert not threads()


def test_items_that_end_end_and_an_error_is_raised_where_its_item_is_asked_for():
    def items():
        yield 1
        yield 2
        raise KeyError("third")

    assert list(read_ahead(lambda: iter([1, 2, 3]), 2)) == [1, 2, 3]
    reading = read_ahead(items, 2)
    assert list(islice(reading, 2)) == [1, 2]
    with pytest.raises(KeyError, match="third"):
        next(reading)
    assert not threads()


def test_an_iterator_that_is_no_longer_used_ends_its_thread_and_closes_what_it_reads():
    closed = []

    def items():
        try:
            yield from count()
        finally:
            closed.append(threading.current_thread().name)

    reading = read_ahead(items, 2)
    next(reading)
    assert len(threads()) == 1
    del reading
    assert not threads()
    assert closed == ["reading ahead"]


def test_the_thread_leaves_the_processor_to_those_who_work_and_their_threads_as_they_are():
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        with_one = next(read_ahead(lambda: iter([torch.get_num_threads()]), 1))
        assert with_one == 1
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


BATCHINGS = [
    dict(type="neighbours", batch_size=12, fanout=[3, 3]),
    dict(type="neighbours", batch_size=12, fanout=[3, 3], shared=False),
    dict(type="parts", parts=6, per_batch=2),
]


@pytest.mark.parametrize("batching", BATCHINGS)
def test_batches_that_are_made_ahead_are_those_that_are_made_in_the_step(tmp_path, batching):
    def batches(ahead):
        domain = GraphDomain(tmp_path, dataset=DATASET, batching={**batching, "ahead": ahead})
        return islice(domain.batches(7, Context(seed=3)), 4)

    for one, other in zip(batches(0), batches(2), strict=True):
        assert torch.equal(one.index, other.index)
        for view, same in zip(one.views, other.views, strict=True):
            assert torch.equal(view.edge_index, same.edge_index)
            assert torch.equal(view.x, same.x)


@pytest.mark.parametrize("batching", BATCHINGS)
def test_matrices_that_steps_before_have_made_are_there_when_a_batch_is_asked_for(tmp_path, batching):
    from sslcollapse.nn.inputs import gcn_matrix

    domain = GraphDomain(tmp_path, dataset=DATASET, batching=batching)
    batches = domain.batches(0, Context())
    for step in range(6):
        batch = next(batches)
        first, second = batch.views
        if step >= 4:  # two were made before the first was looked at, and one meanwhile
            assert vars(first.adjacencies(gcn_matrix, 2)[1]).keys() >= {"forward_matrix", "backward_matrix"}
            assert "backward_matrix" not in vars(first.adjacencies(gcn_matrix, 2)[0]) or batching["type"] == "parts"
            assert not second.traces()
        matrices = first.adjacencies(gcn_matrix, 2)
        assert torch.equal(matrices[1].backward_matrix.to_dense(), matrices[1].forward_matrix.to_dense().t())
    batches.close()


PROGRAM = """
import os, signal, threading, time, torch
from sslcollapse.domains.ahead import read_ahead

def slow():
    yield 0
    waited.wait()
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(1)
    yield 1

def busy():
    x = torch.rand(400, 400)
    while True:
        for _ in range(50):
            x = torch.tanh(x @ x)
        yield x

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell lets what runs in its background ignore it
waited = threading.Event()
reading = read_ahead(slow, 2)
next(reading)
try:
    waited.set()
    next(reading)
except KeyboardInterrupt:
    print("interrupted", len(threading.enumerate()))
kept = read_ahead(busy, 2)
next(kept)
raise ValueError("of the step")
"""


def test_an_interrupt_reaches_who_waits_and_a_program_that_fails_ends_with_its_own_error():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=120)
    assert done.stdout == "interrupted 1\n"
    assert done.stderr.rstrip().endswith("ValueError: of the step")
    assert done.returncode == 1
