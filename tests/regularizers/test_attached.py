import copy
import pickle

import pytest
import torch
import torch.distributed as dist
from torch import nn

import sslcollapse
from sslcollapse.core.errors import RecipeError, RunError, SSLCollapseError
from sslcollapse.layers.map import LayerError
from sslcollapse.rank.monitor import CollapseMonitor
from sslcollapse.regularizers.attach import DSO, SO, SRIP, AttachedPenalty, WERank
from sslcollapse.regularizers.werank import orthogonality_defect

ALL = {"werank": WERank, "so": SO, "dso": DSO, "srip": SRIP}


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3), nn.Linear(3, 3))


def defects(model):
    return {name: orthogonality_defect(model[int(name)].weight) for name in ("0", "2", "3")}


def test_the_penalty_is_the_weighted_sum_over_layers_and_its_gradient_reaches_every_weight():
    model = network()
    total = WERank(model, coefficient=0.25)()
    torch.testing.assert_close(total, 0.25 * sum(defects(model).values()))
    total.backward()
    gradients = [model[k].weight.grad.clone() for k in (0, 2, 3)]
    model.zero_grad()
    (0.25 * sum(defects(model).values())).backward()
    for k, gradient in zip((0, 2, 3), gradients, strict=True):
        torch.testing.assert_close(gradient, model[k].weight.grad)
    assert model[0].bias.grad is None


@pytest.mark.parametrize("name", ALL)
def test_every_attached_regularizer_is_the_registered_one_with_its_default_coefficient(name):
    model = network()
    own, registered = ALL[name](model), AttachedPenalty(model, name)
    assert own.coefficients() == registered.coefficients()
    torch.testing.assert_close(own(), registered())
    penalties = own.penalties()
    assert list(penalties) == ["0", "2", "3"]
    assert not any(value.requires_grad for value in penalties.values())
    torch.testing.assert_close(own(), sum(own.coefficients()[layer] * value for layer, value in penalties.items()))


def test_arguments_of_the_penalty_are_passed_on():
    model = network()
    torch.testing.assert_close(
        WERank(model, squared=True, gram="smaller").penalties()["0"] + 3, WERank(model, squared=True).penalties()["0"]
    )
    assert WERank(model).floors() == {"0": 3**0.5, "2": 0, "3": 0}
    one, many = (AttachedPenalty(model, dict(type="srip", iterations=n)).penalties()["0"] for n in (1, 50))
    assert one < many
    torch.testing.assert_close(SRIP(model, iterations=50).penalties()["0"], many)


@pytest.mark.parametrize(
    ("coefficient", "expected"),
    [
        (0.5, {"0": 0.5, "2": 0.5, "3": 0.5}),
        ({"0": 1.0, "*": 0.1}, {"0": 1.0, "2": 0.1, "3": 0.1}),
        (dict(type="depth", first=0.0, last=1.0), {"0": 0.0, "2": 0.5, "3": 1.0}),
    ],
)
def test_every_form_of_coefficient_weights_the_layers(coefficient, expected):
    model = network()
    werank = WERank(model, coefficient)
    assert werank.coefficients() == expected
    torch.testing.assert_close(werank(), sum(expected[name] * value for name, value in defects(model).items()))


def test_a_scheduled_coefficient_follows_the_step_and_cannot_do_without():
    model = network()
    werank = WERank(model, dict(type="schedule", base=0.5, start=3, schedule="linear"), total_steps=13)
    assert (werank(0), werank(2)) == (0, 0)
    torch.testing.assert_close(werank(8), 0.25 * sum(defects(model).values()))
    with pytest.raises(RecipeError, match=r"the coefficient of WERank depends on the step; .*penalty\(step\)"):
        werank()
    with pytest.raises(RecipeError, match=r"schedule of WERank's coefficient ends with training; .*total_steps="):
        WERank(model, dict(type="schedule", base=0.5, schedule="cosine"))
    assert WERank(model, dict(type="schedule", base=0.5, start=3))(3) > 0


def test_layers_are_chosen_by_name_or_globs_and_a_wrong_one_lists_them():
    model = network()
    assert list(WERank(model, layers="2").layers) == ["2"]
    assert list(WERank(model, layers=["3", "0"]).layers) == ["0", "3"]
    torch.testing.assert_close(WERank(model, 1.0, ["3", "0"])(), defects(model)["0"] + defects(model)["3"])
    with pytest.raises(LayerError, match=r"'conv\*' matches no layer.* \(layers: 0, 2, 3\)"):
        WERank(model, layers="conv*")
    with pytest.raises(LayerError, match="at least one layer or glob"):
        WERank(model, layers=[])
    with pytest.raises(RecipeError, match="coefficient '0' matches no layer"):
        WERank(model, {"0": 1.0}, layers="2")


def test_wrong_arguments_are_refused_with_what_was_given():
    with pytest.raises(SSLCollapseError, match=r"WERank needs a torch.nn.Module as its first argument, got list"):
        WERank(list(network().parameters()))
    with pytest.raises(RecipeError, match="VariancePenalty is none"):
        AttachedPenalty(network(), "variance")
    with pytest.raises(RecipeError, match="finite number >= 0, got -1"):
        WERank(network(), -1)
    with pytest.raises(RecipeError, match=r"coefficient \{\} names no layer"):
        WERank(network(), {})
    with pytest.raises(ValueError, match="gram must be 'output', 'input' or 'smaller', got 'ouput'"):
        WERank(network(), gram="ouput")
    with pytest.raises(ValueError, match="squared must be True or False, got 'False'"):
        WERank(network(), squared="False")


@pytest.mark.parametrize("make", ALL.values())
def test_lengths_of_training_that_cannot_be_are_refused(make):
    for steps, message in ((-5, "at least 1, got -5"), (0, "at least 1, got 0"), (1.5, "a whole number, got 1.5")):
        with pytest.raises(ValueError, match=f"total_steps must be {message}"):
            make(network(), total_steps=steps)


def test_the_penalty_of_a_complex_network_is_real_with_a_gradient():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 3, dtype=torch.complex64), nn.Linear(3, 3, dtype=torch.complex64))
    value = WERank(model, coefficient=1.0)()
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(sum(orthogonality_defect(model[k].weight) for k in (0, 1)).item())
    value.backward()
    with torch.no_grad():
        for parameter in (model[0].weight, model[1].weight):
            parameter.sub_(0.05 * parameter.grad)
    assert WERank(model, coefficient=1.0)() < value


def test_as_an_attribute_of_the_network_it_registers_nothing():
    model = network()
    names, parameters = list(model.state_dict()), len(list(model.parameters()))
    model.werank = WERank(model)
    assert (list(model.state_dict()), len(list(model.parameters()))) == (names, parameters)
    other = copy.deepcopy(model)
    with torch.no_grad():
        other[0].weight.mul_(2)
    torch.testing.assert_close(other.werank(), 1e-2 * sum(defects(other).values()))


def test_a_pickled_one_penalises_the_pickled_network():
    model = network()
    werank = WERank(model, dict(type="schedule", base={"0": 1.0}))
    torch.testing.assert_close(pickle.loads(pickle.dumps(werank))(2), werank(2))


def test_a_compiled_network_has_the_layers_of_the_network_itself():
    model = network()
    expected = WERank(model)()
    compiled = torch.compile(model, backend="eager")
    assert list(WERank(compiled).layers) == ["0", "2", "3"]
    compiled(torch.randn(2, 5))
    torch.testing.assert_close(WERank(compiled)(), expected)
    inside = nn.Sequential(torch.compile(model, backend="eager"))
    assert list(WERank(inside).layers) == ["0.0", "0.2", "0.3"]
    torch.testing.assert_close(WERank(inside)(), expected)


def test_a_data_parallel_network_gets_the_gradient_of_loss_and_penalty_together(tmp_path):
    model, x = network(), torch.randn(4, 5)
    (model(x).square().mean() + WERank(model)()).backward()
    expected = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        wrapped = nn.parallel.DistributedDataParallel(model)
        werank = WERank(wrapped)
        assert list(werank.layers) == ["0", "2", "3"]
        (wrapped(x).square().mean() + werank()).backward()
    finally:
        dist.destroy_process_group()
    for parameter, gradient in zip(model.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)


def test_under_autocast_and_in_half_precision_the_penalty_is_float32():
    model = network()
    expected = WERank(model)()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        total = WERank(model)()
        total_srip = SRIP(model)()
    assert torch.equal(total, expected)
    assert torch.equal(total_srip, SRIP(model)())
    assert WERank(network().bfloat16())().dtype == torch.float32
    assert WERank(network().double())().dtype == torch.float64


def test_tied_weights_count_once():
    model = network()
    model.append(nn.Linear(3, 3))
    model[4].weight = model[3].weight
    assert list(WERank(model).layers) == ["0", "2", "3"]
    torch.testing.assert_close(WERank(model, 1.0)(), sum(defects(model).values()))


def test_the_top_of_the_package_has_them_and_everything_it_lists():
    assert sslcollapse.WERank is WERank
    for name in sslcollapse.__all__:
        assert getattr(sslcollapse, name) is not None


def steered(model, **floor):
    coefficient = dict(type="rank_floor", smoothing=0.0, start=1e-3, **floor)
    return WERank(model, coefficient), CollapseMonitor(model, every=1)


def seen(model, monitor, step, shrink=1.0):
    """The monitor's rows after a forward of inputs most of whose directions are this small."""
    torch.manual_seed(0)
    model(torch.randn(64, 5) * torch.tensor([1.0] + [shrink] * 4))
    return monitor.summary(step)


@pytest.mark.parametrize("floor", [dict(), dict(of="weight"), dict(of="weight", per="pooled")])
def test_a_rank_floor_is_moved_by_the_rows_of_a_monitor(floor):
    model = network()
    werank, monitor = steered(model, **floor)
    assert werank.coefficients() == {"0": 1e-3, "2": 1e-3, "3": 1e-3}
    werank.observe(seen(model, monitor, 0))
    assert werank.coefficients() == {"0": 1e-3, "2": 1e-3, "3": 1e-3}
    if floor:
        with torch.no_grad():
            for k in (0, 2, 3):
                model[k].weight[1:] *= 1e-3
    werank.observe(seen(model, monitor, 50, shrink=1e-3))
    assert werank.coefficients() == pytest.approx({"0": 2e-3, "2": 2e-3, "3": 2e-3})
    torch.testing.assert_close(werank(), 2e-3 * sum(defects(model).values()))
    with pytest.raises(RunError, match="moved by step 50 cannot be moved by step 50"):
        werank.observe(monitor.summary(50))


def test_a_saved_rank_floor_goes_on_where_it_stopped_and_so_do_its_copies():
    model = network()
    werank, monitor = steered(model)
    for step, shrink in ((0, 1.0), (1, 1e-3)):
        werank.observe(seen(model, monitor, step, shrink))
    loaded, _ = steered(model)
    loaded.load_state_dict(werank.state_dict())
    again = [loaded, pickle.loads(pickle.dumps(werank)), copy.deepcopy(werank)]
    rows = seen(model, monitor, 2, shrink=1e-3)
    for each in (werank, *again):
        each.observe(rows)
    assert all(each.coefficients() == werank.coefficients() for each in again)
    assert werank.coefficients()["0"] == pytest.approx(2**2 * 1e-3)


def test_a_rank_floor_without_a_row_for_a_layer_or_without_a_representation_is_refused():
    model = network()
    werank, monitor = steered(model)
    with pytest.raises(RunError, match=r"no row of the output of layer '0' \(there are: 2, 3\); give CollapseMonitor"):
        werank.observe([row for row in seen(model, monitor, 0) if row.layer != "0"])
    with pytest.raises(RecipeError, match=r"WERank cannot see which output is the representation; use of='weight'"):
        steered(model, per="pooled")
    with pytest.raises(RecipeError, match=r"coefficient 0.1 follows no measured rank; use rank_floor"):
        WERank(model, 0.1).observe([])
    assert WERank(model, 0.1).state_dict() == {}
    with pytest.raises(RunError, match=r"is of another kind of coefficient than 0\.1"):
        WERank(model, 0.1).load_state_dict(werank.state_dict())
