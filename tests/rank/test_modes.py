"""What measuring changes for a while is put back to the bit: modes, adapters, the stance of the compiler."""

import copy

import pytest
import torch
from torch import nn

from sslcollapse.rank.measure import measure, represent
from sslcollapse.rank.monitor import CollapseMonitor
from sslcollapse.rank.recorder import EAGER, EagerSwitch, evaluating, resting


class Merging(nn.Linear):
    """A low-rank adapter that its own train() adds to the weight and takes off again, as published code does."""

    def __init__(self, dim: int) -> None:
        super().__init__(dim, dim)
        self.down, self.up = nn.Parameter(torch.randn(2, dim)), nn.Parameter(torch.randn(dim, 2))
        self.merged, self.switched = False, 0

    def train(self, mode: bool = True) -> "Merging":
        super().train(mode)
        self.switched += 1
        if self.merged == mode:
            self.weight.data += (-1.0 if mode else 1.0) * (self.up @ self.down).data
            self.merged = not mode
        return self

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) + (0.0 if self.merged else x @ self.down.t() @ self.up.t())


class Frozen(nn.Module):
    """Its BatchNorm stays in eval mode, whatever the mode of the rest."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(6)
        self.train()

    def train(self, mode: bool = True) -> "Frozen":
        super().train(mode)
        self.norm.eval()
        return self

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(x)


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(Merging(6), Frozen(), nn.Sequential(nn.Linear(6, 4), nn.Dropout(0.5)))


def batch() -> torch.Tensor:
    return torch.randn(20, 6, generator=torch.Generator().manual_seed(1))


def observed(model: nn.Module) -> None:
    monitor = CollapseMonitor(model, every=1)
    with monitor.observe():
        model(batch())
    monitor.summary()
    monitor.close()


@pytest.mark.parametrize(
    "use",
    [lambda model: measure(model, [batch()]), lambda model: represent(model, [batch()]), observed],
    ids=["measure", "represent", "monitor"],
)
@pytest.mark.parametrize("mode", [True, False])
def test_measuring_leaves_an_adapter_merged_or_not_and_every_bit_and_flag_as_they_were(use, mode):
    model = network().train(mode)
    model[2].train(not mode)
    before = copy.deepcopy(model.state_dict())
    flags = [part.training for part in model.modules()]
    use(model)
    assert model[0].merged is not mode
    assert [part.training for part in model.modules()] == flags
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    if mode:
        model(batch()).sum().backward()
        assert model[0].up.grad is not None
        assert model[0].down.grad is not None


def test_a_network_in_eval_mode_is_not_switched_and_reading_weights_switches_none():
    model = network().eval()
    before = model[0].switched
    with evaluating(model):
        model(batch())
    assert model[0].switched == before
    model.train()
    before = model[0].switched
    with resting(model):
        assert not any(part.training for part in model.modules())
    observed(model)
    assert model[0].switched == before
    assert (model[2].training, model[1].norm.training) == (True, False)


def test_modes_come_back_where_measuring_fails_or_is_interrupted():
    model = network()
    for error in (ValueError, KeyboardInterrupt):
        with pytest.raises(error), evaluating(model):
            raise error
        assert (model.training, model[0].merged, model[1].norm.training) == (True, False, False)
    assert stance() == "default"


def stance() -> str:
    return torch._dynamo.eval_frame._stance.stance


def test_the_compiler_is_eager_while_anybody_holds_it_and_as_before_after_the_last_one():
    switch = EagerSwitch()
    with torch.compiler.set_stance("eager_on_recompile"):
        for action, expected in (
            (switch.hold, "force_eager"),
            (switch.hold, "force_eager"),
            (switch.release, "force_eager"),
            (switch.release, "eager_on_recompile"),
        ):
            action()
            assert stance() == expected
    assert stance() == "default"


def test_a_stance_that_is_set_while_measuring_stays():
    with EAGER.held():
        torch.compiler.set_stance("fail_on_recompile")
    try:
        assert stance() == "fail_on_recompile"
    finally:
        torch.compiler.set_stance("default")
