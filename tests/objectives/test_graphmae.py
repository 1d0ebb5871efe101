"""GraphMAE: its loss against a direct formula, its decoders, and runs that learn, resume and share a graph."""

from __future__ import annotations

import pytest
import torch

from sslcollapse.core.distributed import Gather
from sslcollapse.core.errors import RecipeError
from sslcollapse.core.registry import REGULARIZERS
from sslcollapse.core.types import Batch, Branch, Hidden
from sslcollapse.domains.graph.node_views import NodeMask
from sslcollapse.domains.graph.view import Features, GraphStructure, GraphView
from sslcollapse.encoders.gcn import GCN
from sslcollapse.objectives.graphmae import GraphMAE
from sslcollapse.training.module import SSLModule


def branch(made, true):
    h = torch.zeros(len(true), 2)
    return Branch(h, h, None, made, Hidden(torch.arange(len(true)), true))


@pytest.fixture
def view():
    torch.manual_seed(0)
    graph = GraphView(GraphStructure(torch.randint(0, 12, (2, 40)), 12), Features(torch.rand(12, 5)))
    return NodeMask(p=0.5)(graph, torch.Generator().manual_seed(0))


@pytest.mark.parametrize("gamma", [1.0, 3.0])
def test_the_loss_is_the_mean_over_nodes_of_a_power_of_one_minus_the_cosine(gamma):
    torch.manual_seed(0)
    made, true = torch.randn(4, 3, requires_grad=True), torch.randn(4, 3)
    true[3] = 0.0  # a node without features: cosine 0, loss 1
    loss = GraphMAE(gamma=gamma)([branch(made, true)], None, Gather())["graphmae"]
    cosines = [
        float(a @ b / (a.norm() * b.norm())) if bool(b.any()) else 0.0 for a, b in zip(made.detach(), true, strict=True)
    ]
    assert float(loss) == pytest.approx(sum((1 - c) ** gamma for c in cosines) / 4, rel=1e-5)
    (gradient,) = torch.autograd.grad(loss, made)
    leaf = made.detach().double().requires_grad_()
    direct = sum(
        (1 - (a @ b / (a.norm() * b.norm()))) ** gamma
        for a, b in zip(leaf, true.double(), strict=True)
        if bool(b.any())
    )
    (expected,) = torch.autograd.grad(direct / 4, leaf)
    torch.testing.assert_close(gradient, expected.float(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("decoder", ["gat", "gcn", "mlp", "linear"])
def test_every_decoder_makes_the_features_of_the_hidden_nodes_and_passes_a_gradient_on(view, decoder):
    torch.manual_seed(0)
    module = SSLModule(GCN((5,), hidden=[4], norm="none"), GraphMAE(decoder=decoder), total_steps=1, in_shape=(5,))
    losses = module(Batch([view], torch.tensor([0]), None, True), 0)
    losses["loss"].backward()
    without = [name for name, p in module.named_parameters() if p.grad is None or not p.grad.any()]
    assert not [name for name in without if not name.endswith("bias")]
    assert module.branch(view).d.shape == (6, 5)


@pytest.mark.parametrize(("decoder", "reads"), [("gat", False), ("gcn", False), ("linear", True)])
def test_representations_of_hidden_nodes_are_masked_again_for_decoders_that_read_edges(view, decoder, reads):
    torch.manual_seed(0)
    network = GraphMAE(decoder=decoder).decoder(4, (5,)).eval()
    h = torch.randn(12, 4)
    other = h.index_fill(0, view.hidden.rows, 9.0)
    assert torch.equal(network(h, view), network(other, view)) is not reads


def test_the_token_stands_where_nodes_are_hidden_and_learns(view):
    module = SSLModule(GCN((5,), hidden=[4], norm="none"), GraphMAE(), total_steps=1, in_shape=(5,))
    assert not module.token.any()
    with torch.no_grad():
        plain = module.encoder(view)
        module.token.fill_(3.0)
        module.train(False)
        shown = module.branch(view).h
    assert not torch.equal(plain, shown)
    module.train()
    module(Batch([view], torch.tensor([0]), None, True), 0)["loss"].backward()
    assert module.token.grad.abs().sum() > 0


def test_views_that_hide_nothing_are_refused_with_what_would_help():
    module = SSLModule(GCN((5,), hidden=[4]), GraphMAE(), total_steps=1, in_shape=(5,))
    graph = GraphView(GraphStructure(torch.zeros(2, 0).long(), 3), Features(torch.rand(3, 5)))
    with pytest.raises(RecipeError, match=r"GraphMAE finds again what views hide, and these hide nothing; .*node_mask"):
        module(Batch([graph], torch.tensor([0]), None, True), 0)


def test_layers_of_a_decoder_can_be_regularised_by_name():
    module = SSLModule(
        GCN((5,), hidden=[4]),
        GraphMAE(decoder="gcn"),
        {"werank": REGULARIZERS.build(dict(type="werank", coefficient=1.0, networks=["encoder", "decoder"]))},
        total_steps=1,
        in_shape=(5,),
    )
    assert module.regularized_layers() == {"convs.0", "decoder.first", "decoder.network.convs.0"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(dict(gamma=0.5), "gamma must be >= 1, got 0.5"), (dict(dropout=1.0), r"dropout must be in \[0, 1\), got 1.0")],
)
def test_arguments_out_of_range_are_quoted(arguments, message):
    with pytest.raises(ValueError, match=message):
        GraphMAE(**arguments)
