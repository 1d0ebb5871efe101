import copy

import pytest
import torch
from tiny import random_graph, tiny_view
from torch import nn
from torch_geometric.nn import BatchNorm, GCNConv, LayerNorm, SAGEConv

from sslcollapse.core.registry import ENCODERS, RegistryError
from sslcollapse.encoders.gcn import GCN, gcn_matrix
from sslcollapse.encoders.mlp import MLP
from sslcollapse.encoders.pyg import PyG
from sslcollapse.encoders.sage import SAGE
from sslcollapse.nn.heads import Head
from sslcollapse.nn.norm import GraphNorm, NormAct, PReLU


def test_gcn_is_the_authors_encoder_convolution_batchnorm_prelu_after_every_layer():
    view = random_graph()
    torch.manual_seed(0)
    ours = GCN(12, hidden=[10, 6]).train()
    x = view.x
    for conv, norm_act in zip(ours.convs, ours.norm_acts, strict=True):
        library = GCNConv(conv.weight.shape[1], conv.weight.shape[0])
        library.lin.weight.data.copy_(conv.weight)
        x = nn.PReLU()(BatchNorm(conv.weight.shape[0], momentum=0.99)(library(x, view.edge_index)))
        assert norm_act.norm.momentum == 0.99
    torch.testing.assert_close(ours(view), x, atol=1e-5, rtol=1e-5)


def test_a_residual_gcn_adds_the_input_of_each_layer_after_the_first_that_is_as_wide():
    view = random_graph()
    torch.manual_seed(0)
    plain = GCN(12, hidden=[12, 12, 6, 6]).eval()
    residual = GCN(12, hidden=[12, 12, 6, 6], residual=True).eval()
    residual.load_state_dict(plain.state_dict(), strict=True)
    seen = [view.features]
    for conv, norm_act in zip(plain.convs, plain.norm_acts, strict=True):
        out = norm_act(conv(seen[-1], view.adjacency(gcn_matrix)))
        added = len(seen) in (2, 4)  # not the first, which reads the data, nor the one that is narrower
        seen.append(out + seen[-1] if added else out)
    assert torch.equal(residual(view), seen[-1])
    assert not torch.allclose(residual(view), plain(view))


def test_residual_without_a_layer_that_could_add_its_input_is_refused():
    with pytest.raises(ValueError, match=r"a layer as wide as the one before it, got hidden=\[8, 6\]"):
        GCN(8, hidden=[8, 6], residual=True)


def test_gcn_running_statistics_follow_the_last_batch_at_momentum_099():
    view = random_graph()
    encoder = GCN(12, hidden=[8]).train()
    out = encoder.convs[0](view.features, view.adjacency(gcn_matrix))
    encoder(view)
    torch.testing.assert_close(encoder.norm_acts[0].norm.running_mean, 0.99 * out.mean(0), atol=1e-6, rtol=1e-4)


def test_gcn_leaves_out_the_bias_that_batchnorm_would_cancel_and_keeps_it_elsewhere():
    assert GCN(4, hidden=[3]).convs[0].bias is None
    assert GCN(4, hidden=[3], norm="layer").convs[0].bias is not None
    assert GCN(4, hidden=[3], bias=True).convs[0].bias is not None


def test_weight_standardization_gives_rows_of_mean_zero_and_variance_one_after_the_first_layer():
    encoder = GCN(12, hidden=[10, 6, 5], weight_standardization=True)
    assert torch.equal(encoder.convs[0].effective_weight(), encoder.convs[0].weight)
    for conv in encoder.convs[1:]:
        var, mean = torch.var_mean(conv.effective_weight(), dim=1)
        torch.testing.assert_close(mean, torch.zeros_like(mean), atol=1e-6, rtol=0)
        torch.testing.assert_close(var, torch.ones_like(var), atol=1e-3, rtol=0)


def test_final_activation_none_lets_representations_through_unbounded_below():
    view = random_graph()
    assert float(GCN(12, hidden=[6], final_activation="none")(view).detach().min()) < -1.0
    assert float(GCN(12, hidden=[6], final_activation="relu")(view).detach().min()) == 0.0


def test_sage_is_the_authors_encoder_with_skips_from_the_input():
    view = random_graph()
    torch.manual_seed(0)
    ours = SAGE(12, hidden=[8, 8, 8])
    x, edges = view.x, view.edge_index

    def layer(k, inputs):
        conv = SAGEConv(inputs.shape[1], 8)
        conv.lin_l.load_state_dict(ours.convs[k].neighbors.state_dict())
        conv.lin_r.load_state_dict(ours.convs[k].root.state_dict())
        return nn.PReLU()(LayerNorm(8)(conv(inputs, edges)))

    h1 = layer(0, x)
    h2 = layer(1, h1 + ours.skips[0](x))
    h3 = layer(2, h1 + h2 + ours.skips[1](x))
    torch.testing.assert_close(ours(view), h3, atol=1e-5, rtol=1e-5)


def test_graph_norm_is_the_library_layer_norm_of_each_graph():
    x, index = torch.randn(9, 4), torch.tensor([0] * 4 + [1] * 5)
    torch.testing.assert_close(GraphNorm(4)(x, index), LayerNorm(4)(x, index), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(GraphNorm(4)(x), LayerNorm(4)(x), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("slope", [0.25, -0.3, 1.0, 0.0])
def test_fused_batchnorm_prelu_has_the_gradients_of_the_two_modules(slope):
    torch.manual_seed(0)
    fused = NormAct(6, "batch", 0.99, "prelu").double().train()
    with torch.no_grad():
        fused.activation.weight.fill_(slope)
        fused.norm.weight.uniform_(0.5, 2.0)
        fused.norm.bias.normal_()
    plain = nn.Sequential(copy.deepcopy(fused.norm), nn.PReLU().double())
    plain[1].weight.data.copy_(fused.activation.weight)
    x = torch.randn(20, 6, dtype=torch.float64)
    upstream = torch.randn(20, 6, dtype=torch.float64)
    results = []
    for module in (fused, plain):
        leaf = x.clone().requires_grad_()
        out = module(leaf)
        out.backward(upstream)
        results.append([out.detach(), leaf.grad, *(p.grad for p in module.parameters())])
    torch.testing.assert_close(results[0], results[1])
    torch.testing.assert_close(fused.norm.running_var, plain[0].running_var)
    with torch.no_grad():
        torch.testing.assert_close(fused(x), plain(x))
    torch.testing.assert_close(fused.eval()(x), plain.eval()(x))


def test_prelu_has_the_values_and_gradients_of_the_library_module():
    x = torch.randn(8, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(PReLU().double(), [x])
    torch.testing.assert_close(PReLU().double()(x), nn.PReLU().double()(x))


def test_hooks_on_normalisation_and_activation_fire_on_the_fast_path_too():
    module, seen = NormAct(3, "batch", 0.1, "prelu").train(), []
    module.activation.register_forward_hook(lambda *_: seen.append("activation"))
    module(torch.randn(5, 3))
    assert seen == ["activation"]


def test_hooks_on_every_convolution_fire():
    encoder, seen = GCN(12, hidden=[8, 4]).train(), []
    for name, conv in encoder.convs.named_children():
        conv.register_forward_hook(lambda *_, name=name: seen.append(name))
    encoder(random_graph())
    assert seen == ["0", "1"]


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("in_dim", [5, 40])
def test_gcn_gives_the_same_for_sparse_and_dense_features_whichever_side_is_narrower(sparse, in_dim):
    encoder = GCN(in_dim, hidden=[9, 4]).double().train()
    dense, stored = tiny_view(features=in_dim), tiny_view(features=in_dim, sparse=sparse)
    torch.testing.assert_close(encoder(stored), encoder(dense))


def test_mlp_ignores_edges_and_reads_images_flattened():
    encoder = MLP(12, hidden=[8, 4]).eval()
    view = random_graph()
    torch.testing.assert_close(encoder(view), encoder(view.x))
    assert encoder(torch.randn(5, 3, 2, 2)).shape == (5, 4)


def test_pyg_adapter_runs_a_library_model_on_the_dropped_edges():
    encoder = PyG(12, module="GCN", out_dim=4, kwargs={"hidden_channels": 8, "num_layers": 2})
    view = random_graph()
    view.keep = torch.rand(view.structure.edge_index.shape[1]) < 0.5
    torch.testing.assert_close(encoder(view), encoder.module(view.x, view.edge_index))


def test_pyg_adapter_suggests_the_nearest_module_and_refuses_a_cached_normalisation():
    with pytest.raises(ValueError, match="no module 'GTA'; did you mean 'GAT"):
        PyG(4, module="GTA", out_dim=2)
    with pytest.raises(ValueError, match="cached normalisation ignores edge dropping"):
        PyG(4, module="GCNConv", out_dim=2, kwargs={"cached": True})


@pytest.mark.parametrize("make", [lambda: GCN(5, hidden=[4, 3]), lambda: SAGE(5, hidden=[4, 3]), lambda: MLP(5)])
def test_reset_parameters_draws_every_weight_again(make):
    encoder = make()
    before = {name: p.clone() for name, p in encoder.named_parameters() if p.dim() == 2}
    encoder.reset_parameters()
    assert all(not torch.equal(dict(encoder.named_parameters())[name], p) for name, p in before.items())


def test_the_weight_a_sparse_product_reads_by_rows_needs_no_copy():
    conv = GCN(5, hidden=[4]).convs[0]
    assert conv.weight.t().is_contiguous()
    clone = copy.deepcopy(conv)
    assert clone.weight.t().is_contiguous()


def test_head_without_norm_is_linear_prelu_linear():
    head = Head(6, 5, 4)
    x = torch.randn(3, 6)
    plain = head.layers[1](nn.PReLU()(head.layers[0](x)))
    torch.testing.assert_close(head(x), plain)


@pytest.mark.parametrize("hidden", [[], [4, 0]])
def test_impossible_widths_are_refused(hidden):
    with pytest.raises(ValueError, match="hidden must be a non-empty list of positive widths, got"):
        GCN(5, hidden=hidden)


def test_unequal_widths_under_residual_sums_are_refused_with_a_way_out():
    with pytest.raises(ValueError, match=r"got \[8, 6, 4\].*residual=False"):
        SAGE(5, hidden=[8, 6, 4])


@pytest.mark.parametrize(
    ("module", "kwargs", "message"),
    [
        ("PNA", {"hidden_channels": 8, "num_layers": 2, "deg": [1, 2]}, r"torch_geometric.nn.PNA refuses .*deg.*: "),
        ("PNA", {"hidden_channels": 8, "num_layers": 2}, r"torch_geometric.nn.PNA refuses "),
        (
            "GAT",
            {"hidden_channels": 8, "num_layers": 2, "out_channels": 5},
            r"it returns \[32, 5\] for 32 nodes, where",
        ),
        ("GINEConv", {}, r"torch_geometric.nn.GINEConv refuses "),
        ("ChebConv", {"K": 0}, r"torch_geometric.nn.ChebConv refuses \{'K': 0.*: Assertion"),
    ],
)
def test_what_a_module_of_pyg_refuses_is_refused_when_it_is_built(module, kwargs, message):
    with pytest.raises(RegistryError, match=message):
        ENCODERS.build({"type": "pyg", "module": module, "out_dim": 6, "kwargs": kwargs}, (5,))


def test_trying_a_module_of_pyg_moves_no_random_number_and_leaves_it_in_train_mode():
    from torch_geometric.nn import GAT

    torch.manual_seed(0)
    plain = GAT(5, hidden_channels=8, num_layers=2, out_channels=6, dropout=0.5)
    after = torch.rand(1)
    torch.manual_seed(0)
    kwargs = {"hidden_channels": 8, "num_layers": 2, "dropout": 0.5}
    encoder = ENCODERS.build({"type": "pyg", "module": "GAT", "out_dim": 6, "kwargs": kwargs}, (5,))
    assert torch.equal(torch.rand(1), after)
    assert encoder.module.training
    assert all(torch.equal(a, b) for a, b in zip(encoder.module.parameters(), plain.parameters(), strict=True))


@pytest.mark.parametrize("name", ["gcn", "sage", "mlp"])
@pytest.mark.parametrize("momentum", [5, -1])
def test_a_momentum_of_running_statistics_outside_0_to_1_is_refused(name, momentum):
    with pytest.raises(RegistryError, match=rf"norm_momentum must be in \[0, 1\], got {momentum}"):
        ENCODERS.build({"type": name, "hidden": [4, 4], "norm_momentum": momentum}, (5,))


@pytest.mark.parametrize("name", ["gcn", "linear"])
def test_an_initial_rank_that_no_weight_has_is_refused(name):
    with pytest.raises(RegistryError, match=r"initial_rank must be in \[1, 8\], .* or None, got 1000000000"):
        ENCODERS.build({"type": name, "hidden": [8, 16], "initial_rank": 10**9}, (30,))


def test_a_module_of_pyg_that_is_built_for_its_shapes_alone_is_not_called():
    with torch.device("meta"):
        encoder = PyG((5,), module="GAT", out_dim=6, kwargs={"hidden_channels": 8, "num_layers": 2})
    assert all(parameter.is_meta for parameter in encoder.parameters())
