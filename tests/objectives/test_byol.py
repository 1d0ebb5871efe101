import pytest
import torch
from lightly.loss import NegativeCosineSimilarity
from lightly.models.modules.heads import (
    BarlowTwinsProjectionHead,
    BYOLPredictionHead,
    BYOLProjectionHead,
    SimCLRProjectionHead,
    SimSiamPredictionHead,
    SimSiamProjectionHead,
)
from torch import nn

from sslcollapse.core.distributed import Gather
from sslcollapse.core.errors import RecipeError
from sslcollapse.core.types import Batch, Branch
from sslcollapse.encoders.mlp import MLP
from sslcollapse.nn.heads import Head
from sslcollapse.objectives.byol import BYOL, mean_cosine
from sslcollapse.objectives.simclr import SimCLR
from sslcollapse.objectives.simsiam import SimSiam
from sslcollapse.training.module import SSLModule

HEADS = {
    "byol projector": (BYOL(projector=[7, 5]).projector(6), BYOLProjectionHead(6, 7, 5)),
    "byol predictor": (BYOL(predictor_hidden=7).predictor(6), BYOLPredictionHead(6, 7, 6)),
    "simsiam projector": (SimSiam(projector=[7, 7, 5]).projector(6), SimSiamProjectionHead(6, 7, 5)),
    "simsiam predictor": (SimSiam(predictor_hidden=3).predictor(6), SimSiamPredictionHead(6, 3, 6)),
    "simclr projector": (SimCLR(projector=[7, 5], last_norm=True).projector(6), SimCLRProjectionHead(6, 7, 5)),
    "simclr projector, plain": (
        SimCLR(projector=[7, 5], norm="none").projector(6),
        SimCLRProjectionHead(6, 7, 5, batch_norm=False),
    ),
    "three layers": (Head(6, 7, 7, 5, norm="batch", activation="relu"), BarlowTwinsProjectionHead(6, 7, 5)),
}


@pytest.mark.parametrize("name", HEADS)
def test_heads_are_the_functions_that_lightly_has(name):
    ours, theirs = HEADS[name]
    norms = [*(norm_act.norm for norm_act in ours.norm_acts), ours.last_norm]
    linear = [part for part in theirs.modules() if isinstance(part, nn.Linear)]
    theirs_norms = [part for part in theirs.modules() if isinstance(part, nn.BatchNorm1d)]
    our_parts = [*ours.layers, *(part for part in norms if not isinstance(part, nn.Identity))]
    for mine, other in zip(our_parts, [*linear, *theirs_norms], strict=True):
        mine.load_state_dict(other.state_dict())
    x = torch.randn(8, 6)
    torch.testing.assert_close(ours(x), theirs(x))
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in theirs.parameters())
    assert ours.out_dim == linear[-1].out_features


def test_a_head_starts_again_and_its_last_norm_may_have_no_scale():
    head = Head(6, 5, 4, norm="batch", activation="relu", last_norm=True, last_affine=False)
    assert head.last_norm.weight is None
    before = [layer.weight.detach().clone() for layer in head.layers]
    head.reset_parameters()
    assert all(not torch.equal(old, layer.weight) for old, layer in zip(before, head.layers, strict=True))


@pytest.mark.parametrize("widths", [(), (4, 0)])
def test_a_head_without_positive_widths_is_refused(widths):
    with pytest.raises(ValueError, match="widths must be a non-empty list of positive widths, got"):
        Head(6, *widths)


def test_mean_cosine_is_minus_the_loss_of_lightly_with_its_gradient():
    p, z = torch.randn(2, 6, 4, dtype=torch.float64)
    leaves = [p.clone().requires_grad_() for _ in range(2)]
    mean_cosine(leaves[0], z).backward()
    (-NegativeCosineSimilarity()(leaves[1], z)).backward()
    torch.testing.assert_close(mean_cosine(p, z), -NegativeCosineSimilarity()(p, z))
    torch.testing.assert_close(leaves[0].grad, leaves[1].grad)


def test_mean_cosine_is_computed_in_float32_under_autocast():
    p, z = torch.randn(2, 6, 40)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = mean_cosine(p, z)
    assert mixed.dtype == torch.float32
    assert torch.equal(mixed, mean_cosine(p, z))


def branches(count=2):
    torch.manual_seed(0)
    online = [Branch(*(torch.randn(5, 4).requires_grad_() for _ in range(3))) for _ in range(count)]
    return online, [Branch(torch.randn(5, 4), torch.randn(5, 4), None) for _ in range(count)]


def test_byol_is_two_minus_the_crossed_cosines_with_the_target():
    online, target = branches()
    loss = BYOL()(online, target, Gather())["byol"]
    expected = 2 - mean_cosine(online[0].p, target[1].z) - mean_cosine(online[1].p, target[0].z)
    torch.testing.assert_close(loss, expected)


def test_simsiam_is_lightly_s_symmetric_loss_plus_one_and_stops_the_gradient_at_embeddings():
    online, _ = branches()
    loss = SimSiam()(online, None, Gather())["simsiam"]
    distance = NegativeCosineSimilarity()
    expected = 0.5 * (distance(online[0].p, online[1].z) + distance(online[1].p, online[0].z))
    torch.testing.assert_close(loss, 1 + expected)
    loss.backward()
    assert online[0].p.grad.abs().sum() > 0
    assert online[0].z.grad is None
    assert not SimSiam().needs_target


def test_byol_s_target_starts_as_a_copy_follows_parameters_only_and_normalises_by_its_own_forward_passes():
    torch.manual_seed(0)
    objective = BYOL(projector=[6, 4], predictor_hidden=5, momentum=0.5, momentum_schedule="constant")
    module = SSLModule(MLP(3, hidden=[8]), objective, total_steps=10).train()
    online = {**dict(module.encoder.named_parameters()), **dict(module.projector.named_parameters())}
    target = {**dict(module.target.encoder.named_parameters()), **dict(module.target.projector.named_parameters())}
    assert online.keys() == target.keys()
    assert all(torch.equal(online[name], target[name]) for name in online)
    module(Batch([torch.randn(6, 3), torch.randn(6, 3)], torch.arange(6), None, False), 0)["loss"].backward()
    assert all(parameter.grad is None for parameter in module.target.parameters())
    with torch.no_grad():
        for parameter in module.encoder.parameters():
            parameter.add_(2.0)
        before = {name: value.clone() for name, value in module.target.named_buffers()}
    module.update_target(0)
    for name, value in module.encoder.named_parameters():
        torch.testing.assert_close(module.target.encoder.get_parameter(name), value - 1.0)
    after = dict(module.target.named_buffers())
    assert before
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert all(value == 2 for name, value in after.items() if name.endswith("num_batches_tracked"))


def test_momentum_is_raised_to_one_along_a_cosine_by_default():
    assert [BYOL().momentum_at(step, 100) for step in (0, 50, 100)] == pytest.approx([0.99, 0.995, 1.0])


@pytest.mark.parametrize("make", [BYOL, SimSiam])
def test_other_than_two_views_are_refused(make):
    online, target = branches(3)
    with pytest.raises(RecipeError, match="needs two predictions and two targets, one a view, got 3 and 3"):
        make()(online, target, Gather())


@pytest.mark.parametrize(
    ("make", "arguments", "message"),
    [
        (BYOL, {"momentum": -0.1}, r"momentum must be in \[0, 1\], got -0.1"),
        (BYOL, {"projector": [-1]}, r"projector must be .* positive widths, got \[-1\]"),
        (SimSiam, {"predictor_hidden": [4, 0]}, r"predictor_hidden must be .* positive widths, got \[4, 0\]"),
    ],
)
def test_impossible_arguments_are_refused_with_their_value(make, arguments, message):
    with pytest.raises(ValueError, match=message):
        make(**arguments)
