"""What controllers look at in a training step, and that looking changes nothing."""

import sys
from pathlib import Path

import pytest
import torch
import torch.multiprocessing as mp
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[1] / "distributed"))
import control_workers
from control_workers import image_batch, image_module, observation, trained

from sslcollapse.core.errors import RunError
from sslcollapse.core.types import Point
from sslcollapse.layers.map import layer_map
from sslcollapse.rank.measure import ROWS
from sslcollapse.rank.measures import effective_rank


def observed(module, batches, step=0):
    seen = observation(module, step)
    for batch in batches:
        with seen:
            module(batch, step)
    return seen.readings()


def hooks(module):
    return sum(len(part._forward_hooks) for part in module.modules())


def test_a_reading_is_the_effective_rank_of_a_layers_outputs_of_all_views_together():
    module, batch = image_module(), image_batch(range(8))
    views = torch.cat([view.flatten(1) for view in batch.views])
    first = module.encoder.layers[0](views)
    readings = observed(module, [batch])
    assert set(readings) == {Point("output", "layers.0"), Point("output", "layers.1")}
    reading = readings[Point("output", "layers.0")]
    assert reading.effective_rank == pytest.approx(effective_rank(first.detach()), rel=1e-6)
    assert reading.reachable == min(16, *module.layers["layers.0"].shape)


def test_batches_whose_gradients_accumulate_are_read_as_one():
    module = image_module()
    whole = observed(module, [image_batch(range(8))])
    parts = observed(module, [image_batch(range(4)), image_batch(range(4, 8))])
    for point, reading in whole.items():
        assert parts[point].n == reading.n
        assert parts[point].effective_rank == pytest.approx(reading.effective_rank, rel=1e-9)


def test_weights_and_features_are_read_where_a_floor_asks_for_them():
    weights = observed(image_module(of="weight"), [image_batch(range(8))])
    module, batch = image_module(per="pooled", feature="embedding"), image_batch(range(8))
    features = observed(module, [batch])
    assert weights[Point("weight", "layers.1")].effective_rank == pytest.approx(
        effective_rank(image_module().layers["layers.1"].weight().detach()), rel=1e-6
    )
    assert set(features) == {Point("feature", "representation"), Point("feature", "embedding")}
    for name, branches in zip(("h", "z"), zip(*[module.branch(v) for v in batch.views], strict=True), strict=False):
        point = Point("feature", {"h": "representation", "z": "embedding"}[name])
        assert features[point].effective_rank == pytest.approx(effective_rank(torch.cat(branches).detach()), rel=1e-6)


def test_rows_of_a_view_are_limited_so_that_a_large_graph_costs_no_more():
    module = image_module()
    reading = observed(module, [image_batch([0] * (ROWS + 50))])[Point("output", "layers.0")]
    assert reading.effective_rank < reading.reachable


def test_only_the_steps_that_are_due_are_hooked_and_no_hook_is_left_even_by_an_error():
    module = image_module(every=5)
    before = hooks(module)
    for step, expected in ((0, before + 2), (1, before), (4, before + 2)):
        with observation(module, step):
            assert hooks(module) == expected
    with pytest.raises(ZeroDivisionError), observation(module, 0):
        _ = 1 / 0
    assert hooks(module) == before
    assert observation(module, 1).readings() == {}


def test_looking_changes_no_loss_no_gradient_and_no_buffer():
    plain, watched = image_module(norm="batch"), image_module(norm="batch")
    losses = []
    for module, step in ((plain, 1), (watched, 0)):
        with observation(module, step) as seen:
            losses.append(module(image_batch(range(8)), 0)["loss"])
        losses[-1].backward()
        seen.readings()
    assert torch.equal(*losses)
    for one, other in zip(plain.parameters(), watched.parameters(), strict=True):
        assert torch.equal(one.grad, other.grad)
    for one, other in zip(plain.buffers(), watched.buffers(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("used", [False, True])
def test_compiled_networks_are_read_as_others_are(used):
    module, batch = image_module(), image_batch(range(8))
    expected = observed(module, [batch])
    for network in (module.encoder, module.projector):
        network.compile(backend="eager")
    if used:
        module(batch, 1)
    assert observed(module, [batch]) == expected


def test_under_autocast_covariances_are_of_float64_and_outputs_of_half_precision():
    module, batch = image_module(), image_batch(range(8))
    expected = observed(module, [batch])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        halved = observed(module, [batch])
    for point, reading in expected.items():
        assert halved[point].effective_rank == pytest.approx(reading.effective_rank, rel=0.02)


def test_an_output_that_is_not_finite_gives_a_reading_that_moves_nothing():
    module = image_module()
    with torch.no_grad():
        module.encoder.layers[1].weight.fill_(float("inf"))
    readings = observed(module, [image_batch(range(8))])
    controller = module.controllers["werank"]
    controller.update(0, readings)
    assert controller.loops["layers.0"].rank is not None
    assert controller.loops["layers.1"].rank is None


def test_a_layer_that_did_not_run_is_named():
    module = image_module()
    module.encoder.layers[1].forward = lambda x: None
    with pytest.raises(RunError, match=r"rank floor of the output of 'layers.0': it did not run in this training"):
        observation(module, 0).readings()


def test_reading_a_weight_leaves_its_spectral_norm_where_it_is():
    module = image_module(of="weight")
    nn.utils.parametrizations.spectral_norm(module.encoder.layers[0])
    module.layers = layer_map(module.encoder)
    vectors = [buffer.clone() for buffer in module.encoder.layers[0].buffers()]
    observation(module, 0).readings()
    assert all(torch.equal(*pair) for pair in zip(vectors, module.encoder.layers[0].buffers(), strict=True))


def test_two_processes_read_the_same_and_decide_as_one_with_all_samples_does(tmp_path):
    mp.spawn(control_workers.floor_on_two, (2, str(tmp_path / "store"), str(tmp_path)), nprocs=2)
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2))
    assert first == second
    alone = trained([range(8)])
    assert len({tuple(entry["coefficients"].values()) for entry in alone}) == len(alone)
    for kind in ("shared", "replicated"):
        assert [entry["coefficients"] for entry in first[kind]] == [entry["coefficients"] for entry in alone]
        for ours, theirs in zip(first[kind], alone, strict=True):
            assert ours["ranks"] == pytest.approx(theirs["ranks"], rel=1e-4)
