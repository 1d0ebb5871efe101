"""What keeps a function from being captured, as far as it can be known without a GPU."""

import random

import numpy as np
import pytest
import torch
from torch import nn

from sslcollapse.core.capture import HostMemory, HostNumbers, _first_cause

META = torch.device("meta")


def test_copies_from_the_host_are_listed_with_their_line_and_those_between_devices_are_not():
    there, here = torch.zeros(3, device=META), torch.zeros(3)
    with HostNumbers() as numbers:
        _ = there.to(torch.float64) + torch.ones(3, device=META) * 2.0
        there[1:] = 4.0
        there.copy_(torch.ones(3, device=META))
        _ = here.to(torch.float64)
        assert numbers.places == []
        _ = here.to(META)
        there.copy_(here)
    assert [place.rpartition(":")[0] for place in numbers.places] == [__file__] * 2


def test_a_number_of_the_host_that_is_an_operand_beside_the_devices_is_listed_and_one_of_python_is_not():
    there = torch.zeros(3, device=META, requires_grad=True)
    with HostNumbers() as numbers:
        loss = torch.where(2.0 / (there * 2.0 + 1) > 0, there, 0.0).clamp(min=1e-4).masked_fill(there > 1, 0.5).var()
        (3 * loss.sqrt()).backward()
        torch._foreach_add_([there.detach()], [torch.ones(3, device=META)], alpha=0.5)
        assert numbers.places == []
        _ = there * torch.rand(())
        _ = torch.where(there > 0, there, torch.zeros(()))
        _ = there.detach()[torch.tensor([1, 0])]
    assert [place.rpartition(":")[0] for place in numbers.places] == [__file__] * 3


class Remembers(nn.Module):
    """In each way in which a module can, and some in which a replay is the same."""

    def __init__(self):
        super().__init__()
        self.register_buffer("center", torch.zeros(2))
        self.norm = nn.BatchNorm1d(2)
        self.calls, self.last, self.queue = 0, None, []

    def keeps_nothing(self):
        self.norm(torch.randn(4, 2, generator=torch.Generator()))
        self.center.mul_(0.9)

    def counts(self):
        self.calls += 1

    def replaces(self):
        for _ in range(2):  # the second one may get the address of the first
            self.center = self.center * 0.9

    def moves(self):
        self.norm.weight.data = self.norm.weight.data.clone()

    def queues(self):
        self.queue.append(torch.zeros(1))

    def makes(self):
        self.last = torch.zeros(1)


@pytest.mark.parametrize(
    ("call", "names"),
    [
        (Remembers.keeps_nothing, []),
        (Remembers.counts, ["part.calls"]),
        (Remembers.replaces, ["part.center"]),
        (Remembers.moves, ["part.norm.weight"]),
        (Remembers.queues, ["part.queue.1"]),
        (Remembers.makes, ["part.last"]),
        (lambda module: torch.rand(1), ["torch's random numbers of the host"]),
        (lambda module: random.random(), ["Python's random numbers"]),
        (lambda module: np.random.rand(), ["NumPy's random numbers"]),
    ],
)
def test_what_a_call_changes_on_the_host_is_listed_by_name(call, names):
    module = Remembers()
    call(module)
    with HostMemory(lambda: {"part": module, "state": [{"step": 1}]}) as memory:
        call(module)
    assert memory.changed == [f"a step changes {name}, which a replay does not" for name in names]


def test_the_error_that_came_first_is_the_one_that_is_told():
    first, then = RuntimeError("an operation is not\n permitted"), ValueError("the capture cannot be ended")
    then.__context__ = first
    assert _first_cause(then) == "RuntimeError: an operation is not permitted"
    assert _first_cause(first) == "RuntimeError: an operation is not permitted"
