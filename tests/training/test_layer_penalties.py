"""Penalties on features that sit on the outputs of layers."""

import pytest
import torch
from tiny import random_graph
from torch import nn

from sslcollapse.core.distributed import Gather
from sslcollapse.core.errors import RecipeError
from sslcollapse.core.registry import OBJECTIVES
from sslcollapse.core.types import Batch
from sslcollapse.encoders.gcn import GCN
from sslcollapse.encoders.resnet import NarrowResNet
from sslcollapse.objectives.byol import BGRL
from sslcollapse.objectives.simclr import SimCLR
from sslcollapse.rank.measure import Observation
from sslcollapse.regularizers.ldreg import LDRegPenalty
from sslcollapse.regularizers.sigreg import SIGRegPenalty
from sslcollapse.regularizers.variance_covariance import CovariancePenalty, VariancePenalty
from sslcollapse.regularizers.werank import WERankPenalty
from sslcollapse.training import outputs
from sslcollapse.training.build import check_batch
from sslcollapse.training.module import SSLModule
from sslcollapse.training.outputs import LayerOutputs

ALONE = Gather(enabled=False)
SMALL = {"projector": [9, 6], "predictor_hidden": 7, "norm": "none", "loss": "NTXentLoss"}


class Net(nn.Module):
    """[N, 4] → [N, 3]; the activation after the first layer works in place."""

    out_dim = 3

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Linear(4, 5), nn.ReLU(inplace=True), nn.Linear(5, 3))

    def reset_parameters(self) -> None:
        self.layers[0].reset_parameters()

    def forward(self, view: torch.Tensor) -> torch.Tensor:
        return self.layers(view)


def graphs():
    return Batch([random_graph(seed=seed) for seed in range(2)], torch.arange(1), None, True)


def rows(views=2, seed=0):
    rng = torch.Generator().manual_seed(seed)
    return Batch([torch.randn(8, 4, generator=rng) for _ in range(views)], torch.arange(8), None, False)


def module_of(encoder=None, objective=None, **regularizers):
    torch.manual_seed(0)
    network = GCN(12, hidden=[8, 6]) if encoder is None else encoder
    return SSLModule(network, objective or BGRL(predictor_hidden=7), regularizers, total_steps=10).train()


@pytest.mark.parametrize("make", [VariancePenalty, CovariancePenalty, SIGRegPenalty, LDRegPenalty])
def test_value_and_gradient_are_those_of_the_penalty_of_the_layers_own_outputs(make):
    """Before the activation that changes them in place."""
    module = module_of(Net(), layer=make(on=["layers.0"], coefficient=0.7))
    batch = rows()
    parts = module(batch, 3)
    expected = make()([module.encoder.layers[0](view) for view in batch.views], ALONE, 3)
    torch.testing.assert_close(parts["regularizer/layer/layers.0/penalty"], expected.detach())
    first = module.encoder.layers[0].weight
    (total,) = torch.autograd.grad(parts["loss"], first)
    (own,) = torch.autograd.grad(0.7 * expected, first)
    bare = module_of(Net())
    bare(batch, 3)["loss"].backward()
    torch.testing.assert_close(total, bare.encoder.layers[0].weight.grad + own)
    assert own.abs().sum() > 0


def test_globs_choose_layers_and_each_gets_its_coefficient():
    variance = VariancePenalty(on=["convs.*", "representation"], coefficient={"convs.0": 0.5, "representation": 2.0})
    module = module_of(variance=variance)
    assert module.coefficients(0) == {"variance": {"convs.0": 0.5, "convs.1": 0.0, "representation": 2.0}}
    parts = module(graphs(), 0)
    places = {key.split("/")[2] for key in parts if key.startswith("regularizer/")}
    assert places == {"convs.0", "representation"}
    assert set(module.observed()) == {("variance", "convs.0"), ("variance", "representation")}


def test_a_coefficient_by_depth_reaches_from_the_first_layer_to_the_last_feature():
    depth = {"type": "depth", "first": 0.0, "last": 1.0}
    module = module_of(variance=VariancePenalty(on=["representation", "convs.*"], coefficient=depth))
    assert module.coefficients(0)["variance"] == {"convs.0": 0.0, "convs.1": 0.5, "representation": 1.0}


def test_a_glob_is_of_the_encoder_unless_it_names_a_head():
    on = VariancePenalty(on=["*"]), VariancePenalty(on=["predictor.*"])
    assert set(module_of(v=on[0]).coefficients(0)["v"]) == {"convs.0", "convs.1"}
    assert set(module_of(v=on[1]).coefficients(0)["v"]) == {"predictor.layers.0", "predictor.layers.1"}


def test_a_name_that_matches_nothing_is_refused_with_the_layers_and_the_kinds_of_feature():
    message = (
        r"regularizers\.v\.on: 'layer\.2' matches no layer.*\(layers: convs\.0, convs\.1\); or name representation, "
        "embedding, prediction"
    )
    with pytest.raises(RecipeError, match=message):
        module_of(v=VariancePenalty(on=["layer.2"]))


def test_an_output_that_is_no_product_of_the_layer_is_refused_before_the_first_step():
    class Attention(Net):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(3, 1)

        def forward(self, view: torch.Tensor) -> torch.Tensor:
            x = super().forward(view)
            return self.attention(x, x, x)[0]

    module = module_of(Attention(), v=VariancePenalty(on=["attention.in_proj.q"]))
    with pytest.raises(RecipeError, match=r"regularizers\.v\.on: the output of the layer 'attention\.in_proj\.q'"):
        check_batch(module, rows())


def test_a_layer_that_does_not_run_is_refused_before_the_first_step():
    class Idle(Net):
        def __init__(self) -> None:
            super().__init__()
            self.idle = nn.Linear(3, 3)

    module = module_of(Idle(), v=VariancePenalty(on=["idle"]))
    with pytest.raises(RecipeError, match=r"regularizers\.v\.on: the layer 'idle' did not run"):
        check_batch(module, rows())


@pytest.mark.parametrize("name", [name for name in OBJECTIVES.names() if not OBJECTIVES.get(name).needs_hidden])
def test_the_views_of_every_objective_have_their_outputs_penalised(name):
    small = {key: value for key, value in SMALL.items() if key in OBJECTIVES.parameters(name)}
    module = module_of(Net(), OBJECTIVES.build({"type": name, **small}), v=VariancePenalty(on=["layers.*"]))
    parts = module(rows(), 0)
    views = [module.encoder.layers[0](view) for view in rows().views]
    torch.testing.assert_close(
        parts["regularizer/v/layers.0/penalty"], VariancePenalty()(views, ALONE).detach(), rtol=1e-5, atol=1e-6
    )


def images(size=8, samples=6):
    rng = torch.Generator().manual_seed(0)
    return [torch.randn(samples, 3, size, size, generator=rng) for _ in range(2)]


def test_rows_of_a_convolution_are_the_same_positions_of_every_sample_at_most_so_many(monkeypatch):
    monkeypatch.setattr(outputs, "MAX_ROWS", 26)
    module = module_of(NarrowResNet((3, 8, 8), width=4), SimCLR(projector=[8, 8]))
    seen = []
    module.encoder.conv1.register_forward_hook(lambda conv, _, output: seen.append(output.detach()))
    found = {}
    for ranks in (1, 2):
        with LayerOutputs({"conv1": module.layers["conv1"]}, ranks) as kept:
            module.encoder(images()[0])
        found[ranks] = kept.rows("conv1")[0]
    positions = {1: [8, 24, 40, 56], 2: [16, 48]}  # 26 rows for 6 samples or for 12
    for ranks, chosen in positions.items():
        expected = seen[0].flatten(2)[:, :, chosen].transpose(1, 2).flatten(0, 1)
        assert torch.equal(found[ranks], expected)


def test_views_of_different_sizes_are_penalised_together():
    module = module_of(NarrowResNet((3, 8, 8), width=4), SimCLR(projector=[8, 8]), v=CovariancePenalty(on=["conv1"]))
    parts = module(Batch([images(8)[0], images(6)[0]], torch.arange(6), None, False), 0)
    assert torch.isfinite(parts["regularizer/v/conv1/penalty"])


def test_nothing_is_hooked_where_no_layer_has_a_coefficient():
    late = {"type": "schedule", "base": 1.0, "start": 5}
    module = module_of(werank=WERankPenalty(), v=VariancePenalty(on=["convs.*"], coefficient=late))
    counts = []
    conv = module.encoder.convs[0]
    conv.register_forward_pre_hook(lambda *_: counts.append(len(conv._forward_hooks)))
    module(graphs(), 4)
    module(graphs(), 5)
    assert counts == [0, 0, 1, 1]
    assert not conv._forward_hooks


def test_a_rank_floor_may_move_the_coefficient_of_a_layers_output():
    floor = {"type": "rank_floor", "every": 1}
    module = module_of(v=VariancePenalty(on=["convs.*"], coefficient=floor))
    asked = [point for points in module.controllers["v"].points.values() for point in points]
    observation = Observation(asked, module.layers, module.encoder, predictor=module.predictor)
    with observation:
        module(graphs(), 0)
    module.controllers["v"].update(0, observation.readings())
    assert set(module.controllers["v"].metrics()) >= {"convs.0/rank", "convs.1/rank"}
