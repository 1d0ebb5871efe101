"""Constraints: what acts, what the optimizer moves, what a target follows, and what is exported."""

import copy

import pytest
import timm
import torch
from tiny import random_graph
from torch import nn
from torch.nn.utils import parametrizations

from sslcollapse.core.errors import NonFiniteLossError, RecipeError
from sslcollapse.core.types import Batch
from sslcollapse.encoders.gcn import GCN
from sslcollapse.encoders.resnet import ResNet18
from sslcollapse.layers.map import layer_map
from sslcollapse.nn.init import polar_factor
from sslcollapse.objectives.byol import BGRL, BYOL
from sslcollapse.objectives.simclr import SimCLR
from sslcollapse.optim.adamw import AdamW
from sslcollapse.rank.gradients import penalty_gradients
from sslcollapse.regularizers.constraints import Constrained, Orthogonal, Retraction, SpectralNorm
from sslcollapse.regularizers.werank import WERankPenalty
from sslcollapse.training.finite import check_tensors
from sslcollapse.training.module import SSLModule

SETS = {"orthogonal": Orthogonal, "spectral_norm": SpectralNorm, "retraction": Retraction}


def batch():
    return Batch([random_graph(seed=seed) for seed in range(2)], torch.arange(1), None, True)


def module_of(constraint, objective=None, encoder=None, **regularizers):
    torch.manual_seed(0)
    made = objective or BGRL(predictor_hidden=7, momentum=0.75, momentum_schedule="constant")
    network = encoder or GCN(12, hidden=[8, 6])
    return SSLModule(network, made, regularizers, total_steps=10, constraints={"set": constraint}).train()


def take_steps(module, steps=3, **settings):
    optimizer = AdamW(**{"lr": 1e-2, **settings}).build(module)
    for step in range(steps):
        module(batch(), step)["loss"].backward()
        optimizer.step()
        module.constrained.after_step()
        module.update_target(step)
        optimizer.zero_grad()
    return module


def defect(weight):
    small = weight if weight.shape[0] <= weight.shape[1] else weight.t()
    return float((small @ small.t() - torch.eye(len(small))).abs().max().detach())


@pytest.mark.parametrize("shape", [(5, 9), (9, 5), (6, 6)])
def test_the_polar_factor_has_singular_values_of_one_and_is_the_nearest_such_matrix(shape):
    torch.manual_seed(0)
    matrix = torch.randn(shape)
    polar = polar_factor(matrix)
    left, _, right = torch.linalg.svd(matrix, full_matrices=False)
    torch.testing.assert_close(polar, left @ right)
    for _ in range(20):
        other = nn.init.orthogonal_(torch.empty(shape))
        assert (matrix - polar).norm() <= (matrix - other).norm()


def test_the_polar_factor_of_a_singular_matrix_is_orthonormal_too():
    matrix = torch.randn(5, 2) @ torch.randn(2, 7)
    assert defect(polar_factor(matrix)) < 1e-6
    assert torch.isfinite(polar_factor(torch.zeros(3, 4))).all()


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_a_retracted_weight_that_is_not_finite_stays_so_and_is_named_by_the_check_of_a_step(bad, tmp_path):
    module = nn.Sequential(nn.Linear(4, 6))
    module[0].weight.data[1, 2] = bad
    Retraction().after_step(layer_map(module))
    with pytest.raises(NonFiniteLossError, match=r"step 3: 0.weight has NaN or infinite entries"):
        check_tensors(3, module, tmp_path)


@pytest.mark.parametrize("make", [Orthogonal, Retraction, lambda: Orthogonal(map="matrix_exp")])
def test_weight_decay_does_not_move_an_orthogonal_weight_out_of_its_set(make):
    module = take_steps(module_of(make()), steps=5, weight_decay=0.5)
    assert all(defect(module.layers[name].weight()) < 1e-5 for name in ("convs.0", "convs.1"))
    assert defect(module.layers["predictor.layers.0"].weight()) > 1e-2  # no constraint there


def test_weight_decay_does_not_pull_an_orthogonal_weight_back_to_where_it_began():
    module = module_of(Orthogonal())
    groups = AdamW(lr=1e-2, weight_decay=0.5).groups(module)
    decay = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    assert decay[id(module.layers["convs.0"].parameter)] == 0.0
    assert decay[id(module.layers["predictor.layers.0"].parameter)] == 0.5


@pytest.mark.parametrize("name", SETS)
def test_the_layer_map_reads_the_weight_that_the_forward_pass_multiplies_with(name):
    module = take_steps(module_of(SETS[name]())).eval()
    for conv, layer in zip(module.encoder.convs, ("convs.0", "convs.1"), strict=True):
        torch.testing.assert_close(module.layers[layer].weight(), conv.weight, rtol=0, atol=0)
        assert layer_map(module.encoder)[layer].shape == tuple(conv.weight.shape)


def test_reading_a_spectral_norm_moves_no_vectors_even_of_a_layer_with_an_effective_weight_of_its_own():
    """GCN's convolution says itself what it multiplies with, in training mode."""
    module = module_of(SpectralNorm())
    before = copy.deepcopy(module.encoder.state_dict())
    first = module.layers["convs.0"].weight()
    assert torch.equal(first, module.layers["convs.0"].weight())
    assert all(torch.equal(value, before[name]) for name, value in module.encoder.state_dict().items())
    plain = GCN(12, hidden=[8, 6])
    parametrizations.spectral_norm(plain.convs[0])
    before = copy.deepcopy(plain.state_dict())
    layer_map(plain)["convs.0"].weight()
    assert all(torch.equal(value, before[name]) for name, value in plain.state_dict().items())


def test_a_step_iterates_the_power_method_once_whatever_the_number_of_views():
    module, twice = module_of(SpectralNorm()), module_of(SpectralNorm())
    weight = module.layers["convs.0"].parameter
    with torch.no_grad():
        for each in (weight, twice.layers["convs.0"].parameter):
            each.add_(torch.linspace(0, 1, each.numel()).view_as(each))
    module(batch(), 0)
    twice.encoder.convs[0].weight  # noqa: B018  # one iteration by hand
    kept, expected = (m.encoder.convs[0].parametrizations.weight[0]._u for m in (module, twice))
    assert torch.equal(kept, expected)


@pytest.mark.parametrize("name", SETS)
def test_a_target_follows_the_acting_weight_and_has_plain_parameters(name):
    module = module_of(SETS[name]())
    layers = ("convs.0", "convs.1")
    expected = {layer: layer_map(module.target.encoder)[layer].weight().clone() for layer in layers}
    optimizer = AdamW(lr=0.1).build(module)
    for step in range(3):
        module(batch(), step)["loss"].backward()
        optimizer.step()
        module.constrained.after_step()
        module.update_target(step)
        for layer in layers:
            expected[layer] = 0.75 * expected[layer] + 0.25 * module.layers[layer].weight().detach()
    target = layer_map(module.target.encoder)
    assert not any("parametrizations" in key for key in module.target.state_dict())
    for layer in layers:
        torch.testing.assert_close(target[layer].weight(), expected[layer])
        assert torch.equal(target[layer].weight(), target[layer].parameter)


@pytest.mark.parametrize("name", SETS)
def test_a_target_begins_in_the_set_as_a_copy_or_with_weights_of_its_own(name):
    constraint = SETS[name](on=["*", "projector.*"])
    copied = module_of(constraint, BYOL(projector=[9, 6], predictor_hidden=7))
    for layer in ("convs.0", "projector.layers.0"):
        theirs = dict(copied.target.named_parameters())[f"{'' if 'proj' in layer else 'encoder.'}{layer}.weight"]
        torch.testing.assert_close(theirs, copied.layers[layer].weight().detach())
    own = module_of(SETS[name]())
    theirs = layer_map(own.target.encoder)["convs.0"].weight()
    torch.testing.assert_close(theirs, constraint.nearest(theirs))
    assert not torch.allclose(theirs, own.layers["convs.0"].weight(), atol=1e-2)


def test_a_target_of_copied_buffers_is_updated_beside_buffers_of_a_parametrization():
    module = module_of(SpectralNorm(), BGRL(predictor_hidden=7, target_buffers="copy"))
    take_steps(module)
    online = dict(module.encoder.named_buffers())
    assert len(list(module.target.encoder.buffers())) < len(online)
    assert all(torch.equal(value, online[key]) for key, value in module.target.encoder.named_buffers())


@pytest.mark.parametrize("name", SETS)
def test_the_exported_encoder_is_plain_gives_the_same_and_leaves_the_trained_one_as_it_is(name):
    module = take_steps(module_of(SETS[name]()))
    plain = module.plain_encoder()
    assert list(plain.state_dict().keys() ^ GCN(12, hidden=[8, 6]).state_dict().keys()) == []
    view = random_graph()
    with torch.no_grad():
        assert torch.equal(plain.eval()(view), module.encoder.eval()(view))
    state = copy.deepcopy(module.state_dict())
    take_steps(module)  # still parametrized, and trained on
    assert module.state_dict().keys() == state.keys()
    if name == "retraction":
        assert plain is module.encoder  # whose weights are plain already
    else:
        assert not torch.equal(plain.convs[0].weight, module.encoder.convs[0].weight)


@pytest.mark.parametrize("name", SETS)
def test_state_survives_a_round_trip_and_training_goes_on_to_the_bit(name):
    module, other = take_steps(module_of(SETS[name]())), module_of(SETS[name]())
    other.load_state_dict(module.state_dict())
    for each in (take_steps(module), take_steps(other)):
        result = {key: value.clone() for key, value in each.state_dict().items()}
        assert all(torch.equal(value, module.state_dict()[key]) for key, value in result.items())


@pytest.mark.parametrize("name", SETS)
def test_werank_beside_a_constraint_has_finite_gradients_and_its_comparison_works(name):
    module = module_of(SETS[name](), werank=WERankPenalty(coefficient=0.1))
    parts = module(batch(), 0)
    parts["loss"].backward()
    assert all(torch.isfinite(p.grad).all() for p in module.parameters() if p.requires_grad)
    assert penalty_gradients(module, 0).keys() == {"convs.0", "convs.1"}
    if name != "spectral_norm":
        assert float(parts["regularizer/werank/convs.1/penalty"]) < 1e-4


def test_bf16_computes_the_weight_in_full_precision():
    module = module_of(Orthogonal(), werank=WERankPenalty())
    seen = []
    module.encoder.convs[1].register_forward_pre_hook(lambda conv, _: seen.append(conv.weight.detach()))
    with torch.autocast("cpu", torch.bfloat16):
        parts = module(batch(), 0)
    assert [weight.dtype for weight in seen] == [torch.float32] * 2
    assert defect(seen[0]) < 1e-5
    assert float(parts["regularizer/werank/convs.1/penalty"]) < 1e-3


@pytest.mark.parametrize("name", SETS)
def test_fp16_with_a_gradient_scaler_keeps_the_weight_in_its_set_and_a_skipped_step_leaves_it_there(name):
    """As Accelerate trains on a GPU: half precision, losses scaled, steps with an overflow left out."""
    module, exact = module_of(SETS[name]()), module_of(SETS[name]())
    optimizer = AdamW(lr=1e-2).build(module)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**8)
    overflows = iter([False, True, False, False])
    module.layers["convs.0"].parameter.register_hook(lambda g: g * (torch.inf if next(overflows) else 1.0))
    for step in range(4):
        before = module.layers["convs.0"].weight().detach().clone()
        with torch.autocast("cpu", dtype=torch.float16):
            loss = module(batch(), step)["loss"]
        if step == 0:
            assert loss.item() == pytest.approx(exact(batch(), 0)["loss"].item(), rel=2e-2)
        scaler.scale(loss).backward()
        scale = scaler.get_scale()
        scaler.step(optimizer)
        scaler.update()
        if moved := scaler.get_scale() >= scale:
            module.constrained.after_step()
            module.update_target(step)
        optimizer.zero_grad()
        weight = module.eval().layers["convs.0"].weight().detach()
        module.train()
        assert weight.dtype == torch.float32
        assert torch.isfinite(weight).all()
        assert moved is (step != 1)
        if name == "spectral_norm":
            assert float(torch.linalg.matrix_norm(weight, 2)) == pytest.approx(1.0, abs=0.05)
        else:
            assert torch.equal(weight, before) is not moved
            assert defect(weight) < 1e-5


def test_a_convolution_is_constrained_as_the_matrix_of_the_layer_map():
    torch.manual_seed(0)
    encoder = ResNet18((3, 8, 8))
    module = module_of(Orthogonal(on=["layer1.0.*"]), SimCLR(projector=[8, 8]), encoder)
    chosen = [name for name in module.layers if name.startswith("layer1.0.")]
    assert len(chosen) == 2
    for name in chosen:
        layer = module.layers[name]
        assert layer.shape == (64, 64 * 9)
        assert defect(layer.weight()) < 1e-5
        assert tuple(layer.parameter.shape) == layer.shape
        assert encoder.get_submodule(name).weight.shape == (64, 64, 3, 3)
    assert defect(module.layers["layer1.1.conv1"].weight()) > 1e-2
    plain = module.plain_encoder()
    assert plain.get_submodule(chosen[0]).weight.shape == (64, 64, 3, 3)


@pytest.mark.parametrize("name", SETS)
def test_parts_of_a_fused_map_are_constrained_each_and_the_rest_of_it_is_left(name):
    torch.manual_seed(0)
    encoder = timm.create_model("test_vit", num_classes=0, img_size=32)
    encoder.out_dim = encoder.num_features
    before = layer_map(encoder)["blocks.0.attn.qkv.v"].weight().detach().clone()
    layers = layer_map(encoder)
    constraint = SETS[name](on=["blocks.0.attn.qkv.q", "blocks.0.attn.qkv.k"])
    constrained = Constrained({"set": constraint}, encoder, layers)
    for part in "qk":
        weight = layers[f"blocks.0.attn.qkv.{part}"].weight()
        torch.testing.assert_close(weight, constraint.nearest(weight))
    assert torch.equal(layers["blocks.0.attn.qkv.v"].weight(), before)
    images = torch.randn(2, 3, 32, 32)
    plain = constrained.released(encoder)
    assert torch.equal(plain.eval()(images), encoder.eval()(images))
    kept = {key: value.clone() for key, value in encoder.state_dict().items()}
    layers["blocks.0.attn.qkv.q"].weight()  # in training mode nested vectors of a spectral norm stand still as well
    assert all(torch.equal(value, kept[key]) for key, value in encoder.train().state_dict().items())


@pytest.mark.parametrize(
    ("on", "message"),
    [
        (["conv.0"], r"constraints\.set\.on: 'conv\.0' matches no layer; did you mean 'convs\.0'\? \(layers: convs\.0"),
        (["projector.*"], r"constraints\.set\.on: 'projector\.\*' matches no layer.*predictor\.layers\.0, "),
    ],
)
def test_a_name_that_matches_no_layer_is_refused_with_all_layers(on, message):
    with pytest.raises(RecipeError, match=message):
        module_of(Orthogonal(on=on))


def test_a_layer_with_two_constraints_is_refused():
    with pytest.raises(RecipeError, match=r"constraints\.b\.on: layer 'convs\.1' .* has the constraint 'a' already"):
        SSLModule(
            GCN(12, hidden=[8, 6]),
            BGRL(),
            total_steps=1,
            constraints={"a": Orthogonal(), "b": SpectralNorm(on=["convs.1"])},
        )


class Tied(nn.Module):
    out_dim = 5

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(5, 5), nn.Linear(5, 5)
        self.b.weight = self.a.weight


def test_weights_that_are_not_what_acts_are_refused():
    normed = nn.Sequential(parametrizations.weight_norm(nn.Linear(5, 4)))
    for network, reason in (
        (GCN(12, hidden=[8, 6], weight_standardization=True), "GCNConv multiplies with something else"),
        (Tied(), "several modules share its weight"),
        (normed, "Linear computes its weight already"),
        (nn.Sequential(nn.Bilinear(3, 4, 2)), "one of a stack of matrices"),
    ):
        with pytest.raises(RecipeError, match=reason):
            Constrained({"set": Orthogonal()}, network, layer_map(network))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Orthogonal(on=[]), r"on must name layers or globs, each once, got \[\]"),
        (lambda: Retraction(on=["a", "a"]), r"each once, got \['a', 'a'\]"),
        (lambda: SpectralNorm(iterations=0), "iterations must be at least 1, got 0"),
    ],
)
def test_impossible_arguments_are_refused_with_their_value(make, message):
    with pytest.raises(ValueError, match=message):
        make()
