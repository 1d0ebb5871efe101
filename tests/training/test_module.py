import copy
from types import SimpleNamespace

import pytest
import torch
from tiny import random_graph
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from sslcollapse.core.seeding import generator
from sslcollapse.core.types import Batch
from sslcollapse.domains.graph.view import augment
from sslcollapse.encoders.gcn import GCN
from sslcollapse.nn.norm import NormAct
from sslcollapse.objectives.byol import BGRL
from sslcollapse.objectives.simclr import SimCLR
from sslcollapse.optim.adamw import AdamW
from sslcollapse.rank.gradients import gradient_warnings, penalty_gradients
from sslcollapse.regularizers.werank import WERankPenalty, orthogonality_defect
from sslcollapse.training.build import prepare_networks
from sslcollapse.training.module import SSLModule


def make_module(objective=None, steps=10, **regularizers):
    torch.manual_seed(0)
    return SSLModule(GCN(12, hidden=[8, 6]), objective or BGRL(predictor_hidden=7), regularizers, total_steps=steps)


def batch(step=0):
    rngs = [generator(torch.device("cpu"), "test", step, k) for k in range(2)]
    return Batch([augment(random_graph(), 0.3, 0.2, rng) for rng in rngs], torch.arange(1), None, True)


def test_gradient_reaches_every_trainable_parameter_and_no_target_parameter():
    module = make_module(werank=WERankPenalty())
    module(batch(), 0)["loss"].backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in module.parameters() if p.requires_grad)
    assert all(p.grad is None and not p.requires_grad for p in module.target.parameters())


def test_target_has_the_encoders_shape_and_its_own_initialisation():
    module = make_module()
    ours, theirs = module.encoder.convs[0].weight, module.target.encoder.convs[0].weight
    assert ours.shape == theirs.shape
    assert not torch.equal(ours, theirs)
    copied = make_module(BGRL(predictor_hidden=7, target_initialization="copy"))
    assert torch.equal(copied.encoder.convs[0].weight, copied.target.encoder.convs[0].weight)


def test_a_target_that_copies_buffers_has_the_online_ones_after_an_update_and_averages_parameters_as_before():
    modules = [
        make_module(BGRL(predictor_hidden=7, momentum=0.75, momentum_schedule="constant", target_buffers=buffers))
        for buffers in ("own", "copy")
    ]
    for module in modules:
        module(batch(), 0)
        module.update_target(0)
    own, copied = modules
    online = dict(copied.encoder.named_buffers())
    assert any("running_mean" in name for name in online)
    for name, value in copied.target.encoder.named_buffers():
        assert torch.equal(value, online[name])
    assert not all(torch.equal(v, online[n]) for n, v in own.target.encoder.named_buffers())
    torch.testing.assert_close(list(own.target.parameters()), list(copied.target.parameters()))


def test_update_target_averages_parameters_only_and_leaves_batchnorm_buffers_alone():
    module = make_module(BGRL(predictor_hidden=7, momentum=0.75, momentum_schedule="constant"))
    module(batch(), 0)
    before = copy.deepcopy(module.target.state_dict())
    module.update_target(0)
    for name, after in module.target.state_dict().items():
        online = module.state_dict()[name]
        if "running" in name or "tracked" in name:
            assert torch.equal(after, before[name])
        else:
            torch.testing.assert_close(after, 0.75 * before[name] + 0.25 * online)
    assert not torch.equal(
        module.target.encoder.norm_acts[0].norm.running_mean, module.encoder.norm_acts[0].norm.running_mean
    )


def test_target_runs_in_train_mode_with_the_online_network():
    module = make_module().train()
    assert module.target.encoder.norm_acts[0].norm.training
    module(batch(), 0)
    assert int(module.target.encoder.norm_acts[0].norm.num_batches_tracked) == 2


def test_loss_is_the_sum_of_objective_and_weighted_penalties_and_all_parts_are_named():
    module = make_module(werank=WERankPenalty(coefficient={"convs.0": 0.1, "convs.1": 0.2}))
    parts = module(batch(), 0)
    defects = [orthogonality_defect(conv.weight).detach() for conv in module.encoder.convs]
    torch.testing.assert_close(parts["regularizer/werank/convs.1/penalty"], defects[1])
    torch.testing.assert_close(parts["regularizer/werank/convs.0/weighted"], 0.1 * defects[0])
    expected = parts["objective/bgrl"] + 0.1 * defects[0] + 0.2 * defects[1]
    torch.testing.assert_close(parts["loss"], expected)


def test_layer_map_has_encoder_names_without_and_head_names_with_a_prefix():
    names = list(make_module().layers)
    assert names == ["convs.0", "convs.1", "predictor.layers.0", "predictor.layers.1"]


def test_heads_are_regularised_only_on_request():
    assert set(make_module(werank=WERankPenalty()).coefficients(0)["werank"]) == {"convs.0", "convs.1"}
    both = make_module(werank=WERankPenalty(networks=["encoder", "predictor"]))
    assert "predictor.layers.0" in both.coefficients(0)["werank"]


def test_state_survives_a_round_trip_with_the_target():
    module, other = make_module(werank=WERankPenalty()), make_module(werank=WERankPenalty())
    module(batch(), 0)["loss"].backward()
    module.update_target(0)
    other.load_state_dict(module.state_dict())
    torch.testing.assert_close(module(batch(1), 1)["loss"], other(batch(1), 1)["loss"], rtol=0, atol=0)


def test_penalty_gradient_is_compared_with_the_objectives_own_gradient():
    module = make_module(werank=WERankPenalty(coefficient=0.05))
    bare = make_module()
    bare.load_state_dict(module.state_dict(), strict=False)
    bare(batch(), 0)["loss"].backward()
    module(batch(), 0)["loss"].backward()
    measured = penalty_gradients(module, 0)
    for depth, name in enumerate(("convs.0", "convs.1")):
        weight = module.encoder.convs[depth].weight.detach().clone().requires_grad_()
        (0.05 * orthogonality_defect(weight)).backward()
        objective = bare.encoder.convs[depth].weight.grad
        assert measured[name]["norm_ratio"] == pytest.approx(float(weight.grad.norm() / objective.norm()), rel=1e-3)
        cosine = torch.cosine_similarity(weight.grad.flatten(), objective.flatten(), dim=0)
        assert measured[name]["cosine"] == pytest.approx(float(cosine), abs=1e-3)


def test_a_coefficient_whose_gradient_outweighs_or_opposes_the_objective_gives_a_warning():
    lines = gradient_warnings(
        {
            "a": {"norm_ratio": 3.0, "cosine": 0.0},
            "b": {"norm_ratio": 0.5, "cosine": -0.9},
            "c": {"norm_ratio": 0.5, "cosine": 0.1},
            "d": {"norm_ratio": 0.01, "cosine": -0.9},
        }
    )
    assert [line[0] for line in lines] == ["a", "b"]
    assert "3.0 times" in lines[0]
    assert "opposes" in lines[1]


def test_regularised_matrices_keep_weight_decay_unless_spared():
    module = make_module(werank=WERankPenalty(coefficient={"convs.0": 0.1}))
    assert len(AdamW(lr=1e-3, weight_decay=0.1).build(module).param_groups) == 1
    decayed, spared = AdamW(lr=1e-3, weight_decay=0.1, decay_regularized=False).build(module).param_groups
    assert [p is module.encoder.convs[0].weight for p in spared["params"]] == [True]
    assert (decayed["weight_decay"], spared["weight_decay"]) == (0.1, 0.0)


def test_learning_rate_warms_up_linearly_then_follows_a_cosine_to_zero():
    optimizer = AdamW(lr=1.0, warmup_steps=10)
    assert [optimizer.lr_at(step, 110) for step in (0, 5, 10, 60, 110)] == pytest.approx([0, 0.5, 1, 0.5, 0])


def norms_of(module):
    """How many BatchNorms of torch's own, and how many synchronised ones."""
    parts = list(module.modules())
    synchronised = sum(isinstance(part, nn.SyncBatchNorm) for part in parts)
    return sum(isinstance(part, _BatchNorm) for part in parts) - synchronised, synchronised


@pytest.mark.parametrize(
    ("wanted", "devices", "gpu", "replicated"),
    [
        (True, 2, True, False),
        (True, 2, True, True),
        (True, 1, True, False),
        (True, 2, False, False),
        (False, 2, True, False),
    ],
)
def test_batch_norm_is_synchronised_on_several_gpus_that_hold_different_samples_and_nowhere_else(
    monkeypatch, wanted, devices, gpu, replicated
):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    module = make_module(SimCLR(projector=[9, 6], norm="batch"))
    batch_norms, none = norms_of(module)
    assert (batch_norms > 2, none) == (True, 0)
    names = list(module.state_dict())
    settings = {"channels_last": False, "compile": False, "sync_batchnorm": wanted}
    prepare_networks({"train": settings}, module, SimpleNamespace(replicated=replicated), devices)
    several = wanted and devices == 2 and gpu and not replicated
    assert norms_of(module) == ((0, batch_norms) if several else (batch_norms, 0))
    assert list(module.state_dict()) == names


def test_a_synchronised_batch_norm_is_not_passed_over_by_the_fused_kernel(monkeypatch):
    seen, usual = [], nn.SyncBatchNorm.forward
    monkeypatch.setattr(nn.SyncBatchNorm, "forward", lambda norm, x: seen.append(norm) or usual(norm, x))
    module = nn.SyncBatchNorm.convert_sync_batchnorm(NormAct(4, "batch", 0.9, "prelu")).train()
    module(torch.randn(3, 4))
    assert seen == [module.norm]
