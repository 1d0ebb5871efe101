"""What the tests of a device share: which device, copies on it, and how far values may be apart.

``SSLCOLLAPSE_TEST_DEVICE=cpu`` runs them all on a machine without a GPU, where they compare the CPU with itself. That
says nothing of a GPU, but that the tests have no mistakes.
"""

import copy
import os
from collections.abc import Mapping

import pytest
import torch
from torch import Tensor

DEVICE = torch.device(os.environ.get("SSLCOLLAPSE_TEST_DEVICE") or "cuda")
CPU = torch.device("cpu")
EXACT = 1e-4
"""Relative difference that float32 may have, in norm: another order of sums, and nothing else."""
SHARE = 1e-2
"""Of the norm of all values together, to which a small one's rounding errors are relative."""

on_gpu = [
    pytest.mark.gpu,
    pytest.mark.skipif(DEVICE.type == "cuda" and not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def there(value):
    """A copy on the device of a tensor, a module, a graph view, or a list of them."""
    if isinstance(value, (list, tuple)):
        return [there(each) for each in value]
    if isinstance(value, Tensor):
        return value.detach().clone().to(DEVICE).requires_grad_(value.requires_grad)
    return (copy.deepcopy(value) if isinstance(value, torch.nn.Module) else value).to(DEVICE)


def differences(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> dict[str, float]:
    """Name → ‖found − wanted‖, relative to ‖wanted‖ and a share of the norm of everything."""
    assert found.keys() == wanted.keys()
    exact = {name: value.detach().to(CPU, torch.float64) for name, value in wanted.items()}
    whole = float(sum((value.square().sum() for value in exact.values()), torch.zeros(()))) ** 0.5
    apart = {}
    for name, value in exact.items():
        got = found[name].detach().to(CPU, torch.float64)
        assert got.shape == value.shape, f"{name}: {list(got.shape)} in place of {list(value.shape)}"
        size = float(value.norm()) + SHARE * whole
        distance = float((got - value).norm())
        apart[name] = 0.0 if distance == 0 else distance / size if size else float("inf")
    return apart


def assert_near(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor], bound: float = EXACT) -> None:
    """All values are that near; the message has the worst ones."""
    apart = differences(found, wanted)
    far = {name: value for name, value in apart.items() if not value <= bound}  # NaN is far
    worst = sorted(far.items(), key=lambda item: -item[1])[:8]
    assert not far, f"{len(far)} of {len(apart)} are further apart than {bound}: " + ", ".join(
        f"{name} {value:.2e}" for name, value in worst
    )


def gradients(module: torch.nn.Module) -> dict[str, Tensor]:
    """Name → gradient of every parameter that has one."""
    return {name: p.grad for name, p in module.named_parameters() if p.grad is not None}


def half() -> torch.autocast:
    """Autocast to bfloat16 on the device."""
    return torch.autocast(DEVICE.type, dtype=torch.bfloat16)


def needs_its_library(name: str) -> None:
    """Skip a component whose library is not installed, which a machine may lack."""
    if name == "lightly":
        pytest.importorskip("lightly")
