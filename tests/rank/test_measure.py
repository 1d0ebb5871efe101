import copy

import pytest
import torch
from tiny import random_graph
from torch import nn

from sslcollapse.encoders.gcn import GCN, gcn_matrix
from sslcollapse.layers.map import layer_map
from sslcollapse.nn.heads import Head
from sslcollapse.rank.covariance import MAX_ROWS, activation_rows, output_rows
from sslcollapse.rank.measure import low_rank_warnings, measure, represent


def network():
    torch.manual_seed(0)
    return GCN(12, hidden=[8, 6]), Head(6, 7, 6)


def test_the_network_is_left_exactly_as_it_was_found():
    encoder, predictor = network()
    encoder.train()
    encoder.norm_acts[1].eval()
    encoder(random_graph()).sum().backward()
    before, flags = copy.deepcopy(encoder.state_dict()), [module.training for module in encoder.modules()]
    gradients = [p.grad.clone() for p in encoder.parameters()]
    random_state = torch.get_rng_state()
    measure(encoder, [random_graph()], predictor=predictor)
    for name, value in encoder.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert [module.training for module in encoder.modules()] == flags
    assert all(torch.equal(p.grad, g) for p, g in zip(encoder.parameters(), gradients, strict=True))
    assert torch.equal(torch.get_rng_state(), random_state)
    assert all(not module._forward_hooks for module in encoder.modules())


def test_ranks_are_of_eval_mode_features_and_layer_outputs():
    encoder, predictor = network()
    encoder.train()
    view = random_graph()
    measurement = measure(encoder, [view], predictor=predictor)
    encoder.eval()
    with torch.no_grad():
        h = encoder(view)
        hidden = encoder.convs[0](view.features, view.adjacency(gcn_matrix))
    torch.testing.assert_close(represent(encoder, [view]), h)
    for name, matrix in (("representation", h), ("prediction", predictor(h)), ("output/convs.0", hidden)):
        sigma = torch.linalg.svdvals(matrix.detach().double())
        torch.testing.assert_close(torch.tensor(measurement.singular[name]), sigma, rtol=1e-5, atol=1e-5)
    weight = torch.linalg.svdvals(encoder.convs[0].weight.detach().double())
    torch.testing.assert_close(torch.tensor(measurement.singular["weight/convs.0"]), weight, rtol=1e-6, atol=1e-8)


def test_every_layer_and_feature_is_there_with_n_and_its_attainable_rank():
    encoder, predictor = network()
    ranks = measure(encoder, [random_graph(nodes=5)], predictor=predictor).ranks
    assert list(ranks["layers"]) == ["convs.0", "convs.1", "predictor.layers.0", "predictor.layers.1"]
    assert ranks["embedding"] == ranks["representation"]
    representation = ranks["representation"]
    assert (representation["n"], representation["attainable"], representation["attainable_centred"]) == (5, 5, 4)
    assert representation["effective_rank_centred"] <= 4 + 1e-9
    assert ranks["layers"]["convs.0"]["weight"]["attainable"] == 8
    assert ranks["layers"]["convs.0"]["output"]["attainable"] == 5


def test_views_are_accumulated_as_if_they_were_one():
    encoder, _ = network()
    views = [random_graph(nodes=20, seed=seed) for seed in range(3)]
    measurement = measure(encoder, views)
    assert measurement.ranks["representation"]["n"] == 60
    sigma = torch.linalg.svdvals(represent(encoder, views).double())
    torch.testing.assert_close(torch.tensor(measurement.singular["representation"]), sigma, rtol=1e-6, atol=1e-6)


def test_a_collapsed_layer_is_warned_about_by_name_and_a_healthy_one_is_not():
    encoder, _ = network()
    with torch.no_grad():
        encoder.convs[1].weight.copy_(torch.outer(torch.ones(6), torch.ones(8)))
    lines = low_rank_warnings(measure(encoder, [random_graph()]), 0.25)
    subjects = [line.partition(":")[0] for line in lines]
    assert "convs.1 weight" in subjects
    assert "convs.1 output" in subjects
    assert not any(subject.startswith("convs.0") for subject in subjects)
    assert "is below 0.25 of the attainable 6" in lines[subjects.index("convs.1 weight")]


def test_an_output_is_held_against_what_its_weight_can_reach():
    torch.manual_seed(0)
    wide = nn.Sequential(nn.Linear(2, 40))
    measurement = measure(wide, [torch.randn(60, 2)])
    assert measurement.ranks["layers"]["0"]["output"]["attainable"] == 40
    assert [line for line in low_rank_warnings(measurement, 0.2) if line.startswith("0 output")] == []


def test_outputs_of_convolutions_and_tokens_are_rows_of_channels_thinned_to_a_fixed_choice():
    image = torch.arange(2 * 3 * 4 * 5.0).view(2, 3, 4, 5)
    assert torch.equal(activation_rows(image)[1], image[0, :, 0, 1])
    assert activation_rows(torch.zeros(2, 7, 3)).shape == (14, 3)
    many = torch.randn(3, 2, 64, 64)
    assert activation_rows(many).shape == (MAX_ROWS, 2)
    assert torch.equal(activation_rows(many), activation_rows(many))


def test_metrics_are_flat_numbers_that_name_layer_part_and_measure():
    encoder, predictor = network()
    measurement = measure(encoder, [random_graph()], predictor=predictor)
    flat = measurement.metrics()
    assert flat["rank/layers/convs.1/weight/stable_rank"] == pytest.approx(
        measurement.ranks["layers"]["convs.1"]["weight"]["stable_rank"]
    )
    assert all(isinstance(value, (int, float)) for value in flat.values())


def test_the_channels_of_a_linear_on_an_image_are_its_last_dimension_and_a_map_inside_attention_has_no_output():
    torch.manual_seed(0)
    linear, attention = nn.Linear(3, 4), nn.MultiheadAttention(4, 2)
    (layer,) = layer_map(linear).values()
    image = torch.randn(2, 5, 6, 3)
    assert torch.equal(output_rows(layer, linear(image)), linear(image).flatten(0, 2))
    assert torch.equal(output_rows(layer, linear(image), max_rows=2), linear(image).flatten(0, 2)[[0, 59]])
    tokens = torch.randn(7, 1, 4)
    inside = layer_map(attention)["in_proj.q"]
    assert output_rows(inside, attention(tokens, tokens, tokens)) is None


@pytest.mark.parametrize("split", [[60], [20, 40]])
def test_rows_that_count_are_those_of_the_samples_over_all_views(split):
    network = nn.Sequential(nn.Linear(5, 8), nn.ReLU(inplace=True), nn.Linear(8, 4))
    x, rows = torch.randn(60, 5), torch.tensor([0, 7, 19, 20, 41, 59])
    some = measure(network, x.split(split), rows=rows)
    of_those = measure(network, [x[rows]])
    assert some.ranks["representation"]["n"] == 6
    assert some.ranks["representation"] == pytest.approx(of_those.ranks["representation"])
    for layer in ("0", "2"):
        assert some.ranks["layers"][layer]["output"] == pytest.approx(of_those.ranks["layers"][layer]["output"])


def test_of_outputs_with_other_rows_than_samples_all_count():
    class Pooled(nn.Module):
        def __init__(self):
            super().__init__()
            self.nodes, self.graph = nn.Linear(5, 3), nn.Linear(3, 2)

        def forward(self, x):
            return self.graph(self.nodes(x).view(10, 6, 3).mean(1))

    ranks = measure(Pooled(), [torch.randn(60, 5)], rows=torch.arange(4)).ranks
    assert ranks["representation"]["n"] == ranks["layers"]["graph"]["output"]["n"] == 4
    assert ranks["layers"]["nodes"]["output"]["n"] == 60
