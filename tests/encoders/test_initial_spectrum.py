import pytest
import torch
from tiny import random_graph
from torch.testing import assert_close

from sslcollapse.encoders.gcn import GCN
from sslcollapse.encoders.linear import DeepLinear
from sslcollapse.nn.init import decaying_spectrum_, truncate_rank_


@pytest.mark.parametrize("shape", [(5, 5), (3, 7), (7, 3)])
def test_singular_values_decay_exponentially_from_one(shape):
    sigma = torch.linalg.svdvals(decaying_spectrum_(torch.empty(shape), 0.35))
    assert_close(sigma, torch.exp(-0.35 * torch.arange(min(shape))), atol=1e-6, rtol=0)


def test_the_largest_singular_values_stay_and_the_other_rows_are_exactly_zero():
    torch.manual_seed(0)
    weight = torch.randn(20, 12)
    before = torch.linalg.svdvals(weight)
    truncate_rank_(weight, 4)
    assert_close(torch.linalg.svdvals(weight)[:4], before[:4])
    assert torch.equal(weight[4:], torch.zeros(16, 12))


@pytest.mark.parametrize("tail", [1e-1, 1e-3, 1e-6])
def test_the_other_singular_values_are_a_chosen_share_of_the_largest_to_their_own_precision(tail):
    torch.manual_seed(0)
    weight = torch.randn(20, 12)
    before = torch.linalg.svdvals(weight)
    sigma = torch.linalg.svdvals(truncate_rank_(weight, 4, tail).double())
    assert_close(sigma[:4].float(), before[:4])
    assert_close(sigma[4:], torch.full((8,), tail * float(before[0]), dtype=torch.float64), rtol=1e-3, atol=0)
    assert torch.equal(weight[12:], torch.zeros(8, 12))


def test_a_share_above_what_is_there_changes_no_singular_value():
    torch.manual_seed(0)
    weight = torch.randn(5, 8)
    before = torch.linalg.svdvals(weight)
    assert_close(torch.linalg.svdvals(truncate_rank_(weight, 2, 1.0)), before)


def test_a_weight_of_no_more_than_that_rank_is_left_as_it_is():
    weight = torch.randn(4, 9)
    assert torch.equal(truncate_rank_(weight.clone(), 4), weight)


def ranks(*weights):
    return [int(torch.linalg.matrix_rank(weight.detach(), rtol=1e-5)) for weight in weights]


def test_a_linear_network_is_the_product_of_its_weights_and_starts_with_the_same_spectra_again():
    encoder = DeepLinear((1, 6), hidden=[8, 5], decay=0.5, initial_rank=3)
    x = torch.randn(4, 1, 6)
    first, second = (layer.weight for layer in encoder.layers)
    assert_close(encoder(x), x.flatten(1) @ (second @ first).t())
    before = first.detach().clone()
    encoder.reset_parameters()
    assert not torch.equal(first, before)
    assert ranks(first, second) == [3, 3]
    assert_close(torch.linalg.svdvals(first)[:3], torch.exp(-0.5 * torch.arange(3)))


def test_a_gcn_of_lower_rank_has_it_in_every_layer_and_after_a_reset_and_by_default_is_the_usual_one():
    torch.manual_seed(0)
    usual = GCN(12, hidden=[8, 6])
    torch.manual_seed(0)
    lower = GCN(12, hidden=[8, 6], initial_rank=2)
    assert ranks(*(conv.weight for conv in usual.convs)) == [8, 6]
    assert ranks(*(conv.weight for conv in lower.convs)) == [2, 2]
    assert lower.convs[0].weight.stride() == usual.convs[0].weight.stride()
    lower.reset_parameters()
    assert ranks(*(conv.weight for conv in lower.convs)) == [2, 2]
    assert lower(random_graph()).shape == (60, 6)


def test_a_gcn_keeps_the_share_in_every_layer_and_after_a_reset_and_0_is_the_lower_rank():
    def smallest(gcn):
        return [
            float(s[-1] / s[0]) for s in (torch.linalg.svdvals(conv.weight.detach().double()) for conv in gcn.convs)
        ]

    torch.manual_seed(0)
    small = GCN(12, hidden=[8, 6], initial_rank=2, initial_tail=1e-4)
    assert smallest(small) == pytest.approx([1e-4] * 2, rel=1e-3)
    small.reset_parameters()
    assert smallest(small) == pytest.approx([1e-4] * 2, rel=1e-3)
    states = []
    for more in ({}, {"initial_tail": 0.0}):
        torch.manual_seed(0)
        states.append(GCN(12, hidden=[8, 6], initial_rank=2, **more).state_dict())
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


def test_a_share_out_of_range_or_of_no_rank_is_refused():
    with pytest.raises(ValueError, match=r"initial_tail must be in \[0, 1\], got 1.5"):
        GCN(12, initial_rank=2, initial_tail=1.5)
    with pytest.raises(ValueError, match=r"beyond initial_rank; state that too, got 0.1"):
        GCN(12, initial_tail=0.1)


@pytest.mark.parametrize("encoder", [GCN, DeepLinear])
def test_an_initial_rank_below_one_is_refused(encoder):
    with pytest.raises(ValueError, match=r"initial_rank must be in \[1, .*, or None, got 0"):
        encoder(12, initial_rank=0)


def test_a_growing_initial_spectrum_is_refused():
    with pytest.raises(ValueError, match=r"decay must be a finite number >= 0, or None, got -0.1"):
        DeepLinear(12, decay=-0.1)
