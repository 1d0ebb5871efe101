"""SGD against its formula."""

import pytest
import torch
from torch import nn

from sslcollapse.optim.sgd import SGD


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_a_step_is_the_formulas_whatever_the_memory_layout(nesterov, memory_format):
    torch.manual_seed(0)
    module = nn.Conv2d(3, 4, 3, bias=False)
    module.undecayed = set
    w, v = module.weight.detach().clone().double(), 0.0
    module.to(memory_format=memory_format)
    optimizer = SGD(lr=0.1, momentum=0.8, nesterov=nesterov, weight_decay=0.05).build(module)
    for _ in range(3):
        gradient = torch.randn(4, 3, 3, 3)
        module.weight.grad = gradient.clone()
        optimizer.step()
        decayed = gradient.double() + 0.05 * w
        v = 0.8 * v + decayed
        w = w - 0.1 * (decayed + 0.8 * v if nesterov else v)
    torch.testing.assert_close(module.weight.detach().double(), w, rtol=1e-5, atol=1e-6)
