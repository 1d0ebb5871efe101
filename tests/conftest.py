import os
import socket
import sys
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


@pytest.fixture(scope="module")
def own_components():
    """What a test module registers is known to that module only."""
    registries = REGISTRIES.values()
    before = [(registry, dict(registry._targets), dict(registry._factories)) for registry in registries]
    yield
    for registry, targets, factories in before:
        registry._targets, registry._factories = targets, factories
        registry._parameters.clear()


@pytest.fixture
def no_network(monkeypatch):
    """Every name look-up fails, as on a machine without a network."""

    def fail(*args, **kwargs):
        raise socket.gaierror("Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
