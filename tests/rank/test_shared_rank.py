import pytest
import torch
from tiny import random_graph
from torch import nn

from sslcollapse.core.types import Batch
from sslcollapse.domains.base import flat_rows
from sslcollapse.domains.graph.domain import GraphDomain
from sslcollapse.domains.graph.view import GraphView
from sslcollapse.rank.measures import effective_rank
from sslcollapse.rank.spectrum import effective_rank_from_singular_values
from sslcollapse.rank.views import MAX_ROWS, cross_covariance, measure_shared, shared_rank

GRAPHS = [random_graph(), random_graph()]


def features(rows=500, dim=8, seed=0):
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(rows, dim, generator=rng) * torch.linspace(0.5, 2.0, dim) + 3.0


def test_the_cross_covariance_is_centred_and_of_both_views():
    first, second = features(dim=3).double(), features(dim=3, seed=1).double()[:, :2]
    joint = torch.cov(torch.cat([first, second], dim=1).t(), correction=0)
    torch.testing.assert_close(cross_covariance(first, second), joint[:3, 3:])


def test_of_equal_views_it_is_the_rank_of_the_covariance_and_its_root_the_centred_rank_of_the_features():
    x = features()
    ranks = shared_rank(x, x)
    variances = torch.linalg.eigvalsh(torch.cov(x.double().t()))
    assert ranks["effective_rank"] == pytest.approx(effective_rank_from_singular_values(variances), rel=1e-6)
    assert ranks["effective_rank_root"] == pytest.approx(effective_rank(x - x.mean(0)), rel=1e-4)
    assert ranks["overlap"] == pytest.approx(1.0)
    assert (ranks["n"], ranks["attainable"], ranks["numerical_rank"]) == (500, 8, 8)


def test_dimensions_that_one_view_lacks_are_not_shared():
    x, masked = features(), features()
    masked[:, 5:] = 0.0
    assert shared_rank(x, masked)["numerical_rank"] == 5


def test_independent_noise_lowers_the_overlap_and_views_that_share_nothing_have_little():
    x = features(rows=20_000)
    noisy = [x + torch.randn(x.shape, generator=torch.Generator().manual_seed(s)) * x.std(0) for s in (1, 2)]
    assert shared_rank(*noisy)["overlap"] == pytest.approx(0.5, abs=0.02)
    unrelated = shared_rank(x, features(rows=20_000, seed=9))
    assert unrelated["overlap"] == pytest.approx(0.85 * (8 / 20_000) ** 0.5, rel=0.3)
    assert unrelated["effective_rank"] > 5  # sampling noise has full rank


def test_constant_features_share_nothing():
    ranks = shared_rank(torch.ones(5, 3), torch.ones(5, 3))
    assert (ranks["effective_rank"], ranks["overlap"]) == (0.0, 0.0)


def test_views_of_different_samples_are_refused():
    with pytest.raises(ValueError, match=r"two views of N samples .* got \(4, 2\) and \(5, 2\)"):
        shared_rank(torch.ones(4, 2), torch.ones(5, 2))


def batches(count, rows, view=lambda x: x):
    for k in range(count):
        x = features(rows, seed=k)
        yield Batch([view(x), view(x)], torch.arange(rows), None, False)


def test_batches_are_taken_until_there_are_enough_rows_and_a_large_one_is_thinned_out():
    encoder = nn.Sequential(nn.Linear(8, 3), nn.BatchNorm1d(3)).train()
    stream = batches(9, 100)
    assert measure_shared(encoder, stream, max_rows=250)["shared"]["n"] == 250
    assert len(list(stream)) == 6
    assert measure_shared(encoder, batches(1, 100), 30, flat_rows)["shared_input"]["n"] == 30
    assert encoder.training
    assert int(encoder[1].num_batches_tracked) == 0


def test_large_inputs_and_single_views_are_left_out():
    encoder = nn.Sequential(nn.Flatten(), nn.LazyLinear(3))
    images = batches(1, 50, lambda x: x.repeat(1, 400)[:, None])
    assert list(measure_shared(encoder, images, measurable=flat_rows)) == ["shared"]
    assert measure_shared(encoder, [Batch([features()], torch.arange(500), None, False)]) == {}


class Columns(nn.Module):
    """The first four columns of a graph view."""

    def forward(self, view):
        return view.x[:, :4]


def test_of_graphs_the_inputs_are_the_masked_columns():
    masks = torch.ones(2, 12)
    masks[0, :3] = masks[1, 3:5] = 0.0
    views = [GraphView(graph.structure, graph.features.masked(mask)) for graph, mask in zip(GRAPHS, masks, strict=True)]
    batch = Batch(views, torch.tensor([0]), None, True)
    ranks = measure_shared(Columns(), [batch], measurable=GraphDomain(None, dataset=dict(type="digits")).measurable)
    assert ranks["shared_input"]["numerical_rank"] == 9
    assert ranks["shared_input"]["overlap"] < 0.9  # 7 of 12 columns are in both; the rest is chance
    assert (ranks["shared"]["n"], ranks["shared"]["attainable"]) == (60, 4)


def endless(rows: int, of: int):
    """The same samples again and again, in epochs of ``of`` batches."""
    step = 0
    while True:
        x = features(rows, seed=step % of)
        yield Batch([x, x], torch.arange(rows) + rows * (step % of), None, True)
        step += 1


def test_of_endless_batches_no_more_than_one_epoch_is_taken_however_many_samples_are_asked_for():
    encoder = nn.Linear(8, 3)
    assert measure_shared(encoder, endless(2000, 3), max_rows=10**12)["shared"]["n"] == 6000


def test_of_a_small_epoch_no_more_rows_are_taken_than_by_default():
    ranks = measure_shared(nn.Linear(8, 3), endless(50, 2), max_rows=10**12)
    assert MAX_ROWS <= ranks["shared"]["n"] < MAX_ROWS + 50
    assert measure_shared(nn.Linear(8, 3), endless(50, 2))["shared"]["n"] == MAX_ROWS


class Words:
    """A view that is no tensor and has no width."""

    def __init__(self, ids):
        self.ids = ids


def test_views_of_any_kind_are_read_by_encoder_and_domain_only():
    class Bag(nn.EmbeddingBag):
        def forward(self, view):
            return super().forward(view.ids)

    ids = torch.randint(9, (40, 5), generator=torch.Generator().manual_seed(0))
    batch = Batch([Words(ids), Words(ids.flip(1))], torch.arange(40), None, False)
    assert list(measure_shared(Bag(9, 4), [batch])) == ["shared"]
    assert list(measure_shared(Bag(9, 4), [batch], measurable=lambda view: None)) == ["shared"]
    counts = measure_shared(
        Bag(9, 4), [batch], measurable=lambda view: nn.functional.one_hot(view.ids, 9).sum(1).float()
    )
    assert counts["shared_input"]["overlap"] == pytest.approx(1.0)
