"""AdamW against torch's own, for both ways to store a matrix."""

import pytest
import torch
from torch import nn

from sslcollapse.optim.adamw import AdamW
from sslcollapse.training.module import SSLModule


def layout(matrix: torch.Tensor, by_columns: bool) -> torch.Tensor:
    return matrix.t().contiguous().t() if by_columns else matrix.contiguous()


@pytest.mark.parametrize("parameter_by_columns", [False, True])
@pytest.mark.parametrize("gradient_by_columns", [False, True])
@pytest.mark.parametrize(("decoupled", "torchs"), [(True, torch.optim.AdamW), (False, torch.optim.Adam)])
def test_a_step_is_torchs_whatever_the_memory_layout(parameter_by_columns, gradient_by_columns, decoupled, torchs):
    torch.manual_seed(0)
    start, gradients = torch.randn(3, 5), torch.randn(4, 3, 5)
    module: SSLModule = nn.Linear(5, 3, bias=False)
    module.undecayed = set
    module.weight = nn.Parameter(layout(start, parameter_by_columns))
    reference = nn.Parameter(start.clone())
    ours = AdamW(lr=0.1, weight_decay=0.1, decoupled=decoupled).build(module)
    theirs = torchs([reference], lr=0.1, weight_decay=0.1, fused=False, foreach=False)
    for gradient in gradients:
        module.weight.grad = layout(gradient, gradient_by_columns)
        reference.grad = gradient.clone()
        ours.step()
        theirs.step()
    torch.testing.assert_close(module.weight, reference)
    assert torch.equal(module.weight.grad, gradients[-1])
    assert module.weight.is_contiguous() is not parameter_by_columns


def test_a_convolution_in_channels_last_is_updated_as_a_contiguous_one():
    torch.manual_seed(0)
    module: SSLModule = nn.Conv2d(3, 4, 3, bias=False)
    module.undecayed = set
    reference = nn.Parameter(module.weight.detach().clone())
    module.to(memory_format=torch.channels_last)
    ours = AdamW(lr=0.1, weight_decay=0.1).build(module)
    theirs = torch.optim.AdamW([reference], lr=0.1, weight_decay=0.1, fused=False, foreach=False)
    for memory_format in (torch.channels_last, torch.contiguous_format, torch.channels_last):
        gradient = torch.randn(4, 3, 3, 3)
        module.weight.grad = gradient.clone(memory_format=memory_format)
        reference.grad = gradient
        ours.step()
        theirs.step()
    torch.testing.assert_close(module.weight, reference)
    assert module.weight.is_contiguous(memory_format=torch.channels_last)


def test_weight_decay_stays_in_the_gradient_after_loading_a_state():
    module: SSLModule = nn.Linear(2, 2, bias=False)
    module.undecayed = set
    optimizer = AdamW(lr=0.1, weight_decay=0.1, decoupled=False).build(module)
    optimizer.load_state_dict(optimizer.state_dict())
    assert not optimizer.param_groups[0]["decoupled_weight_decay"]
