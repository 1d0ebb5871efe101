"""One recorder sees what layers put out; what measuring changes is put back to the bit: hooks, modes, the compiler."""

import ast
import copy
import dataclasses
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import sslcollapse
from sslcollapse.core.types import Point
from sslcollapse.layers.map import layer_map
from sslcollapse.rank.measure import Observation, measure, represent
from sslcollapse.rank.monitor import CollapseMonitor
from sslcollapse.rank.recorder import EAGER, EagerSwitch, Recorder, evaluating, resting

PACKAGE = Path(sslcollapse.__file__).parent


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


def test_a_measurement_a_monitor_and_an_observation_of_the_same_outputs_say_the_same_to_the_bit():
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(6, 9), nn.ReLU(), nn.Conv1d(9, 4, 1)), torch.randn(30, 6)
    model[1].register_forward_hook(lambda module, inputs, output: output.t().view(1, 9, 30))
    layers = layer_map(model)
    points = [Point(kind, name) for name in layers for kind in ("weight", "output")]
    measured = {row.point: row for row in measure(model, [x], step=1).rows if row.kind != "feature"}
    with CollapseMonitor(model, every=1) as monitor:
        model(x)
        watched = {row.point: row for row in monitor.summary()}
    with Observation(points, layers, model) as observation:
        model(x)
    seen = observation.readings()
    assert list(measured) == list(watched) == list(seen) == points
    without = {"step": 0, "effective_rank_centred": None, "participation_ratio_centred": None}
    for point in points:
        assert measured[point] == watched[point]
        assert dataclasses.replace(measured[point], **without) == dataclasses.replace(seen[point], **without)
    assert measured[Point("output", "0")].reachable == 6  # of nine that 30 rows can have: the weight's rank


def test_a_recorder_takes_the_product_of_a_layer_or_all_that_a_module_puts_out_and_leaves_no_hook():
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(6, 4), nn.Tanh()), batch()
    whole, product = Point("feature", "representation"), Point("output", "0")
    recorder = Recorder({whole: model, product: layer_map(model)["0"]}, max_rows=7)
    with recorder:
        y = model(x)
    model(x)
    assert not any(part._forward_hooks for part in model.modules())
    assert EAGER._holders == 0
    chosen = torch.linspace(0, 19, 7).round().long()
    for point, output in ((whole, y), (product, model[0](x))):
        sigma = torch.linalg.svdvals(output[chosen].detach().double())
        assert recorder.streams[point].n == 7
        torch.testing.assert_close(recorder.streams[point].singular_values(centred=False), sigma, rtol=1e-6, atol=1e-6)


class Counting(nn.Linear):
    """Its output is whole numbers."""

    def effective_weight(self):
        return self.weight

    def forward(self, x):
        return super().forward(x).round().int()


@pytest.mark.parametrize("tolerant", [True, False])
def test_what_is_no_product_of_real_numbers_is_left_out_with_the_reason(tolerant):
    model = nn.Sequential(nn.Linear(6, 4), Counting(4, 3))
    points = {Point("output", name): layer for name, layer in layer_map(model).items()}
    with Recorder(points, tolerant=tolerant) as recorder:
        model(batch())
    assert list(recorder.streams) == [Point("output", "0")]
    assert recorder.unread == {Point("output", "1"): "it has the shape (20, 3) and the type torch.int32"}
    attention = nn.MultiheadAttention(4, 2)
    points = {Point("output", name): layer for name, layer in layer_map(attention).items() if "in_proj" in name}
    with Recorder(points, tolerant=tolerant) as recorder:
        assert not attention._forward_hooks  # it shows the product of none of them


@pytest.mark.parametrize("tolerant", [True, False])
def test_an_error_while_an_output_is_read_ends_the_forward_pass_unless_the_recorder_is_tolerant(tolerant):
    model, point = nn.Linear(6, 4), Point("feature", "representation")
    model.register_forward_hook(lambda module, inputs, output: [output])
    with Recorder({point: model}, tolerant=tolerant) as recorder:
        if tolerant:
            model(batch())
            assert recorder.unread == {point: "AttributeError: 'list' object has no attribute 'detach'"}
        else:
            with pytest.raises(AttributeError, match="'list' object has no attribute 'detach'"):
                model(batch())
    assert not recorder.streams
    assert len(model._forward_hooks) == 1


def test_an_output_that_a_backward_pass_computes_again_is_seen_once():
    model = nn.Sequential(nn.Linear(6, 4))
    point = Point("output", "0")
    with Recorder({point: layer_map(model)["0"]}) as recorder:
        checkpoint(model, batch().requires_grad_(), use_reentrant=False).sum().backward()
    assert recorder.streams[point].n == 20


def called(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    calls = (node.func for node in ast.walk(tree) if isinstance(node, ast.Call))
    return {call.attr for call in calls if isinstance(call, ast.Attribute)}


def test_in_the_room_one_file_hooks_networks_and_one_draws_maps_of_ranks_for_reports_as_well():
    rank, report = (sorted((PACKAGE / room).rglob("*.py")) for room in ("rank", "report"))
    hooking = [path for path in rank if any(name.startswith("register_forward") for name in called(path))]
    drawing = [path for path in rank + report if called(path) & {"pcolormesh", "imshow", "matshow"}]
    assert [str(path.relative_to(PACKAGE)) for path in hooking] == ["rank/recorder.py"]
    assert [str(path.relative_to(PACKAGE)) for path in drawing] == ["rank/plots.py"]
