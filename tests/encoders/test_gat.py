"""GAT: attention against PyTorch Geometric's, with dropped edges, and on both sides of the product."""

from __future__ import annotations

import pytest
import torch

from sslcollapse.domains.graph.view import Features, GraphStructure, GraphView
from sslcollapse.encoders.gat import GAT, GATConv, present_matrix
from sslcollapse.nn.sparse import import_geometric


@pytest.fixture
def view():
    torch.manual_seed(0)
    edges = torch.randint(0, 12, (2, 40))
    keep = torch.rand(40) > 0.4
    return GraphView(GraphStructure(edges, 12), Features(torch.randn(12, 6)), keep)


@pytest.mark.parametrize(("heads", "width"), [(1, 4), (3, 12), (2, 30)], ids=["wide input", "heads", "narrow input"])
def test_attention_and_its_gradients_are_those_of_pytorch_geometric(view, heads, width):
    own = GATConv(6, width, heads=heads)
    theirs = import_geometric("nn").GATConv(6, width // heads, heads=heads)
    with torch.no_grad():
        own.bias.normal_()
        theirs.lin.weight.copy_(own.lin.weight)
        theirs.att_src.copy_(own.attention[:1])
        theirs.att_dst.copy_(own.attention[1:])
        theirs.bias.copy_(own.bias)
    a, b = view.x.clone().requires_grad_(), view.x.clone().requires_grad_()
    mine, other = own(a, view.adjacency(present_matrix)), theirs(b, view.edge_index)
    torch.testing.assert_close(mine, other)
    weights = torch.randn_like(mine)
    (mine * weights).sum().backward()
    (other * weights).sum().backward()
    for ours, reference in (
        (a, b),
        (own.lin.weight, theirs.lin.weight),
        (own.attention[None].transpose(0, 1), None),
        (own.bias, theirs.bias),
    ):
        if reference is not None:
            torch.testing.assert_close(ours.grad, reference.grad, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(own.attention.grad[0], theirs.att_src.grad[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(own.attention.grad[1], theirs.att_dst.grad[0], rtol=1e-4, atol=1e-5)


def test_chosen_rows_are_those_rows_of_all(view):
    torch.manual_seed(1)
    encoder, rows = GAT((6,), hidden=[8, 30], heads=2).eval(), torch.tensor([7, 0, 3])
    torch.testing.assert_close(encoder(view, rows=rows), encoder(view)[rows])


def test_features_of_a_graph_and_the_same_as_a_tensor_give_the_same(view):
    conv = GATConv(6, 4, heads=2)
    edges = view.adjacency(present_matrix)
    torch.testing.assert_close(conv(view.features, edges), conv(view.x, edges))


def test_a_score_that_overflows_an_exponential_gives_finite_shares_also_where_its_edge_is_dropped():
    edges = torch.tensor([[0, 1], [1, 0]])
    view = GraphView(GraphStructure(edges, 2), Features(torch.eye(2)), torch.tensor([False, True]))
    conv = GATConv(2, 2)
    with torch.no_grad():
        conv.lin.weight.copy_(torch.tensor([[500.0, 0.0], [0.0, 1.0]]))
        conv.attention.fill_(1.0)
    out = conv(view.x, view.adjacency(present_matrix))
    assert torch.isfinite(out).all()
    torch.testing.assert_close(out[1], torch.tensor([0.0, 1.0]))  # its edge from node 0 is dropped: itself alone


def test_heads_that_do_not_divide_a_width_are_quoted():
    with pytest.raises(ValueError, match=r"heads must divide every width of hidden=\[8, 9\], got 2"):
        GAT((4,), hidden=[8, 9], heads=2)


def test_dropout_of_features_and_attention_acts_in_training_alone(view):
    encoder = GAT((6,), hidden=[8], heads=2, dropout=0.5, attention_dropout=0.5)
    assert not torch.equal(encoder(view), encoder(view))
    encoder.eval()
    assert torch.equal(encoder(view), encoder(view))
