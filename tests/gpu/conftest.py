import pytest
import torch


@pytest.fixture(autouse=True)
def exact_float32(monkeypatch):
    """Products of float32 in float32, and convolutions that are the same each time."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)
    yield
    torch.set_float32_matmul_precision(before)
