"""One row for the rank of anything: its numbers, its names, and what it is where there is no rank."""

import math

import pytest
import torch
from torch import nn

from sslcollapse.core.types import Point
from sslcollapse.layers.map import layer_map
from sslcollapse.rank.covariance import StreamingCovariance
from sslcollapse.rank.measures import effective_rank, participation_ratio
from sslcollapse.rank.record import RankBatch, rank_of
from sslcollapse.rank.spectrum import NotFiniteError

CPU = torch.device("cpu")
WEIGHT = ["effective_rank", "rankme", "participation_ratio", "stable_rank", "numerical_rank", "rtol", "attainable"]
OUTPUT = [*WEIGHT, "n", "effective_rank_centred", "participation_ratio_centred", "attainable_centred"]


def stream_of(rows):
    stream = StreamingCovariance(rows.shape[1])
    stream.update(rows)
    return stream


def weight_rank(layer, **settings):
    asked = RankBatch(CPU, **settings)
    asked.ask_weights({layer.name: layer})
    return asked.found()[0]


def stream_rank(point, stream, shape, depth=0, **settings):
    asked = RankBatch(CPU, **settings)
    asked.ask_rows(point, stream, shape, depth=depth)
    return asked.found()[0]


def test_the_numbers_of_a_result_are_those_of_the_row_and_only_rows_of_samples_have_centred_ones():
    torch.manual_seed(0)
    layer, x = layer_map(nn.Sequential(nn.Linear(3, 8)))["0"], 5 + torch.randn(20, 8)
    weight, _ = weight_rank(layer, step=4)
    output, sigma = stream_rank(Point("output", "0"), stream_of(x), layer.shape, depth=2, step=4)
    assert list(weight.measures()) == WEIGHT
    assert list(output.measures()) == OUTPUT
    assert (weight.point.key, output.point.key) == ("weight/0", "output/0")
    assert Point("feature", "representation").key == "representation"
    assert output.effective_rank == pytest.approx(effective_rank(x), rel=1e-6)
    assert output.effective_rank_centred == pytest.approx(effective_rank(x, centred=True), rel=1e-6)
    assert output.participation_ratio_centred == pytest.approx(participation_ratio(x), rel=1e-6)
    torch.testing.assert_close(sigma, torch.linalg.svdvals(x.double()), rtol=1e-6, atol=1e-6)
    assert (output.step, output.depth, output.n) == (4, 2, 20)


def test_an_output_is_held_against_the_rank_of_its_weight_and_the_number_of_rows():
    x = torch.randn(20, 8)
    limits = {}
    for shape, rows in (((8, 3), x), ((8, 8), x), ((8, 8), x[:5]), ((8,), x)):
        row, _ = stream_rank(Point("output", "0"), stream_of(rows), shape)
        limits[shape, len(rows)] = row.attainable, row.attainable_centred, row.reachable
        assert row.fraction == row.effective_rank / row.reachable
    assert limits == {
        ((8, 3), 20): (8, 8, 3),
        ((8, 8), 20): (8, 8, 8),
        ((8, 8), 5): (5, 4, 5),
        ((8,), 20): (8, 8, 8),
    }


def test_what_is_not_finite_has_nan_for_every_measure_and_is_named_where_that_is_an_error():
    layer = layer_map(nn.Sequential(nn.Linear(3, 8)))["0"]
    with torch.no_grad():
        layer.parameter[0, 0] = math.inf
    row, sigma = weight_rank(layer)
    assert not row.finite
    assert all(math.isnan(value) for name, value in row.measures().items() if name != "attainable")
    assert sigma.isnan().tolist() == [True] * 3
    with pytest.raises(NotFiniteError, match=r"weight/0: the matrix has NaN or infinite entries"):
        weight_rank(layer, strict=True)
    whole, sigma = rank_of(Point("feature", "embedding"), (4,), lambda: torch.full((4,), math.nan), n=9)
    assert (whole.finite, whole.n, whole.attainable, len(sigma)) == (False, 9, 4, 4)
