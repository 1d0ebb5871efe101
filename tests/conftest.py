import os
import socket
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState

from sslcollapse.core.registry import REGISTRIES

sys.path.insert(0, str(Path(__file__).parent))
torch.set_num_threads(1)
os.environ["OMP_NUM_THREADS"] = "1"  # of the processes that a test starts: sums in another order differ in last bits


@pytest.fixture(autouse=True)
def own_accelerator():
    """What an Accelerator of a test has set for the whole process is not there in the next test."""
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture
def data_root() -> Path:
    """Folder of real datasets; skips where ``SSLCOLLAPSE_DATA`` is not set."""
    root = os.environ.get("SSLCOLLAPSE_DATA")
    if not root:
        pytest.skip("set SSLCOLLAPSE_DATA to test on the real datasets")
    return Path(root)


@contextmanager
def forgotten_components():
    """What is registered inside is not known afterwards."""
    kinds = dict(REGISTRIES._known)
    parts = ("_targets", "_factories", "_places")
    before = [(registry, {part: dict(getattr(registry, part)) for part in parts}) for registry in REGISTRIES.values()]
    yield
    REGISTRIES._known = kinds
    for registry, kept in before:
        vars(registry).update(kept)
        registry._parameters.clear()


@pytest.fixture(scope="module")
def own_components():
    """What a test module registers is known to that module only."""
    with forgotten_components():
        yield


@pytest.fixture
def own_components_of_a_test():
    """What a test registers is known to that test only."""
    with forgotten_components():
        yield


@pytest.fixture
def no_network(monkeypatch):
    """Every name look-up fails, as on a machine without a network."""

    def fail(*args, **kwargs):
        raise socket.gaierror("Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
