"""Spectra of many matrices at once: three routes to one result, and what float32 is trusted with."""

import math
from itertools import pairwise

import pytest
import torch
from torch import nn

from sslcollapse.encoders.resnet import ResNet18
from sslcollapse.rank import batch as batch_module
from sslcollapse.rank.batch import ROUTES, TOLERANCE, Gram, entropy_bound, rounding, settled_in_float32, spectra
from sslcollapse.rank.covariance import StreamingCovariance
from sslcollapse.rank.measure import measure
from sslcollapse.rank.monitor import CollapseMonitor
from sslcollapse.rank.spectrum import (
    effective_rank_from_singular_values,
    numerical_rank_from_singular_values,
    singular_values,
)


def drawn(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def with_spectrum(sigma, rows=None, seed=0):
    """A matrix with these singular values."""
    k = len(sigma)
    left, _ = torch.linalg.qr(drawn(seed, rows or k, k))
    right, _ = torch.linalg.qr(drawn(seed + 1, k, k))
    return left * sigma @ right.t()


def spectra_of(*matrices, route):
    return [sigma for (sigma,) in spectra([lambda m=m: [Gram.of(m)] for m in matrices], route)]


MATRICES = {
    "tall": drawn(0, 90, 40),
    "wide": drawn(1, 40, 90),
    "square": drawn(2, 48, 48),
    "orthogonal": with_spectrum(torch.ones(40, dtype=torch.float64)),
    "decaying": with_spectrum(0.7 ** torch.arange(40.0, dtype=torch.float64)),
    "rank one": with_spectrum(torch.tensor([3.0] + [0.0] * 39, dtype=torch.float64)),
    "zero": torch.zeros(40, 40, dtype=torch.float64),
    "huge": 1e200 * drawn(3, 40, 60),
    "tiny": 1e-150 * drawn(4, 40, 60),
    "complex": torch.complex(drawn(5, 40, 60), drawn(6, 40, 60)),
}


@pytest.mark.parametrize("route", ROUTES)
def test_every_route_has_the_singular_values_of_each_matrix_by_itself_in_order(route):
    found = spectra_of(*MATRICES.values(), route=route)
    for (name, matrix), sigma in zip(MATRICES.items(), found, strict=True):
        expected = torch.linalg.svdvals(matrix)
        largest = float(expected.max()) or 1.0
        # In float32 only what is settled is left, where even the smallest of these are well above √τ.
        torch.testing.assert_close(
            sigma / largest, expected / largest, rtol=0, atol=1e-5 if route == "single" else 1e-7, msg=name
        )
        assert numerical_rank_from_singular_values(sigma) == numerical_rank_from_singular_values(expected), name
        assert effective_rank_from_singular_values(sigma) == pytest.approx(
            effective_rank_from_singular_values(expected), rel=1e-5 if route == "single" else 1e-7
        ), name


def test_on_the_host_a_spectrum_is_to_the_bit_that_of_the_matrix_by_itself_so_that_records_do_not_move():
    found = spectra_of(*MATRICES.values(), route="host")
    for matrix, sigma in zip(MATRICES.values(), found, strict=True):
        assert torch.equal(sigma, singular_values(matrix))


@pytest.mark.parametrize("route", ROUTES)
def test_a_matrix_that_is_not_finite_has_nan_and_costs_the_others_nothing(route):
    bad = drawn(0, 40, 60)
    bad[3, 5] = math.inf
    worse = drawn(0, 40, 60)
    worse[0, 0] = math.nan
    good = drawn(1, 40, 60)
    first, middle, last = spectra_of(bad, good, worse, route=route)
    assert first.isnan().all()
    assert last.isnan().all()
    assert (len(first), len(last)) == (40, 40)
    torch.testing.assert_close(middle, singular_values(good), rtol=1e-5, atol=0)


@pytest.mark.parametrize("size", [4, 24, 96, 256])
def test_float32_eigenvalues_are_within_the_bound_that_is_assumed_of_them(size):
    for seed, decay in enumerate((1.0, 0.98, 0.9)):
        for mean in (0.0, 30.0):
            rows = drawn(seed, 2 * size, size) * decay ** torch.arange(size) + mean
            gram = rows.t() @ rows
            exact = torch.linalg.eigvalsh(gram)
            found = torch.linalg.eigvalsh((gram / gram.diagonal().max()).float()).double() * gram.diagonal().max()
            assert (found - exact).abs().max() <= rounding(size) * exact[-1]


def test_the_effective_rank_of_float32_eigenvalues_is_off_by_less_than_its_bound():
    tight = 0.0
    for size in (8, 64, 192):
        for seed, decay in enumerate((1.0, 0.99, 0.95, 0.8)):
            rows = drawn(seed, 3 * size, size) * decay ** torch.arange(size)
            gram = rows.t() @ rows / 100
            exact = effective_rank_from_singular_values(torch.linalg.svdvals(rows))
            energy = torch.linalg.eigvalsh(gram.float()).double().flip(0)
            off = abs(math.log(effective_rank_from_singular_values(energy.clamp(min=0).sqrt()) / exact))
            bound = float(entropy_bound(energy[None]))
            assert off <= bound
            tight = max(tight, off / bound)
    assert tight > 1e-4  # the bound is no trivial one


def test_float32_is_trusted_where_all_singular_values_are_large_and_nowhere_near_what_it_loses():
    def settled(sigma):
        return bool(settled_in_float32(torch.tensor(sigma, dtype=torch.float64).square()[None]))

    assert settled([1.0] * 64)
    assert settled([1.0 - k / 100 for k in range(64)])
    assert settled([0.0] * 64)
    assert not settled([1.0] * 63 + [1e-3])  # on the border of the numerical rank
    assert not settled([1.0] * 63 + [1e-6])  # below what float32 has
    assert not settled([1.0] + [2e-2] * 63)  # counted for sure, but together they are seen in the effective rank
    # A bound above the tolerance is refused, whatever else.
    energy = torch.tensor([1.0] + [4e-4] * 63, dtype=torch.float64)[None]
    assert float(entropy_bound(energy)) > TOLERANCE


def test_what_a_float32_solver_cannot_do_is_done_in_float64(monkeypatch):
    matrix = drawn(0, 192, 96) * 0.5 ** torch.arange(96)  # entries of its Gram underflow in float32
    expected = torch.linalg.svdvals(matrix)
    solve = torch.linalg.eigvalsh

    def failing(stack):
        if stack.dtype == torch.float32:
            raise torch.linalg.LinAlgError("it did not converge")
        return solve(stack)

    for solver in (solve, failing):
        monkeypatch.setattr(torch.linalg, "eigvalsh", solver)
        (sigma,) = spectra_of(matrix, route="single")
        torch.testing.assert_close(sigma, expected, rtol=1e-6, atol=float(2e-7 * expected[0]))


def test_only_what_float32_does_not_settle_is_made_again():
    made = []

    def make(name):
        return lambda: made.append(name) or [Gram.of(MATRICES[name])]

    names = ("orthogonal", "decaying", "tall")
    spectra([make(name) for name in names], "single")
    assert made == [*names, "decaying"]
    made.clear()
    spectra([make(name) for name in names], "single", ordered=True)  # shards are gathered once, by all ranks alike
    assert made == list(names)


@pytest.mark.parametrize("budget", [1, 2**29])
def test_grams_of_a_device_that_are_copied_to_the_host_have_the_spectra_that_they_have_there(budget, monkeypatch):
    monkeypatch.setattr(batch_module, "_BUDGET", budget)
    makes = [lambda pair=pair: [Gram.of(matrix) for matrix in pair] for pair in pairwise(MATRICES.values())]
    for copied, here in zip(batch_module._copied(makes), spectra(makes, "host"), strict=True):
        assert all(torch.equal(one, other) for one, other in zip(copied, here, strict=True))


@pytest.mark.parametrize("route", ["double", "single"])
def test_what_does_not_fit_together_is_computed_in_parts_with_the_same_result(route, monkeypatch):
    together = spectra_of(*MATRICES.values(), route=route)
    monkeypatch.setattr(batch_module, "_BUDGET", 1)
    apart = spectra_of(*MATRICES.values(), route=route)
    for one, other in zip(together, apart, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=float(1e-7 * one.max()))


def test_fewer_rows_than_columns_have_a_gram_matrix_of_rows_and_the_same_spectrum():
    rows = drawn(0, 20, 64) + 5.0
    stream = StreamingCovariance(64)
    for part in rows.split(7):
        stream.update(part)
    for centred in (False, True):
        gram = stream.gram(centred=centred)
        assert (len(gram.matrix), gram.size) == (20, 64)
        sigma = stream.singular_values(centred=centred)
        expected = torch.linalg.svdvals(rows - rows.mean(0) if centred else rows)
        assert len(sigma) == 64
        torch.testing.assert_close(sigma[:20], expected, rtol=1e-7, atol=1e-6)
        assert not sigma[20:].any()
    torch.testing.assert_close(stream.mean, rows.mean(0))
    centred_rows = rows - rows.mean(0)
    torch.testing.assert_close(stream.scatter, centred_rows.t() @ centred_rows)


def test_rows_that_were_kept_count_as_if_they_had_been_added_at_once():
    rows = drawn(0, 90, 64).float()
    kept, added = StreamingCovariance(64), StreamingCovariance(64)
    for part in rows.split(30):
        kept.update(part)
        added._add_all(part)
    assert torch.equal(kept.scatter, added.scatter)
    assert torch.equal(kept.mean, added.mean)
    assert kept.n == 90


@pytest.mark.parametrize("parts", [(5, 9), (5, 80), (80, 5), (80, 80)])
def test_streams_are_merged_whether_their_rows_are_kept_or_added(parts):
    rows = drawn(0, sum(parts), 64)
    first, second = StreamingCovariance(64), StreamingCovariance(64)
    first.update(rows[: parts[0]])
    second.update(rows[parts[0] :])
    before = second.scatter
    first.merge(second)
    torch.testing.assert_close(first.singular_values(centred=False)[: len(rows)], torch.linalg.svdvals(rows))
    assert first.n == len(rows)
    first.update(rows[:3])
    assert torch.equal(second.scatter, before)


def test_a_change_of_the_rows_after_they_were_taken_changes_nothing():
    rows = drawn(0, 4, 9)
    stream = StreamingCovariance(9)
    stream.update(rows)
    expected = torch.linalg.svdvals(rows)
    rows.zero_()
    torch.testing.assert_close(stream.singular_values(centred=False)[:4], expected)


def encoders():
    """A healthy network, and one with a collapsed layer."""
    for collapsed in (False, True):
        torch.manual_seed(0)
        network = nn.Sequential(nn.Linear(24, 48), nn.BatchNorm1d(48), nn.ReLU(), nn.Linear(48, 32), nn.Linear(32, 96))
        if collapsed:
            with torch.no_grad():
                network[3].weight.copy_(torch.outer(torch.ones(32), torch.ones(48)) + 1e-4 * network[3].weight)
        yield network


@pytest.mark.parametrize("route", ["double", "single"])
def test_the_measures_of_a_network_are_those_of_the_host_on_every_route(route):
    x = drawn(0, 80, 24).float()
    for network in encoders():
        host, other = (measure(network, [x], route=which) for which in ("host", route))
        for row, same in zip(host.rows, other.rows, strict=True):
            for name, value in row.measures().items():
                assert same.measures()[name] == pytest.approx(value, rel=1e-5 if route == "single" else 1e-8), name
            assert row.numerical_rank == same.numerical_rank
        with CollapseMonitor(network, every=1) as monitor:
            network.train()(x)
            ranks = [[row.effective_rank for row in monitor.summary(route=which)] for which in ("host", route)]
        assert ranks[1] == pytest.approx(ranks[0], rel=1e-5 if route == "single" else 1e-8)


def test_the_weights_of_a_resnet_need_no_float64():
    torch.manual_seed(0)
    network = ResNet18((3, 32, 32))
    made = []
    weights = [p.detach().flatten(1) for name, p in network.named_parameters() if p.dim() == 4]
    found = spectra([lambda w=w: made.append(0) or [Gram.of(w)] for w in weights], "single")
    assert len(made) == len(weights) == 20
    for weight, (sigma,) in zip(weights, found, strict=True):
        exact = effective_rank_from_singular_values(singular_values(weight))
        assert effective_rank_from_singular_values(sigma) == pytest.approx(exact, rel=1e-6)


def test_a_route_that_there_is_not_is_refused():
    with pytest.raises(ValueError, match="route must be one of 'host', 'double', 'single', got 'float16'"):
        spectra([], "float16")
