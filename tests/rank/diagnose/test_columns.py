"""Columns that people know from elsewhere, against their definitions and against what the page says of them."""

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import sslcollapse
from sslcollapse.rank.diagnose.columns import COLUMNS, columns_of, spikes, tail_exponent
from sslcollapse.rank.spectrum import singular_values

TEXT = (Path(__file__).parents[3] / "docs/diagnose-columns.md").read_text()


def of(weight: torch.Tensor) -> dict[str, float]:
    return columns_of(weight, singular_values(weight).numpy(), list(COLUMNS))


def with_spectrum(sigma: torch.Tensor, columns: int) -> torch.Tensor:
    left = torch.linalg.qr(torch.randn(len(sigma), len(sigma))).Q
    right = torch.linalg.qr(torch.randn(columns, len(sigma))).Q
    return (left * sigma) @ right.T


def share(weight: torch.Tensor) -> float:
    return sslcollapse.diagnose({"a.weight": weight}).rows[0].share


def test_alpha_is_that_of_a_power_law_that_was_drawn():
    rng = np.random.default_rng(0)
    for alpha in (1.8, 2.5, 4.0):
        drawn = (1 - rng.random(3000)) ** (-1 / (alpha - 1))
        assert tail_exponent(drawn)[0] == pytest.approx(alpha, rel=0.06)


def test_alpha_is_the_best_of_all_fits_computed_one_by_one():
    x = np.sort(np.random.default_rng(1).lognormal(size=60))
    fits = []
    for first in range(59):
        tail = x[first:]
        alpha = 1 + len(tail) / np.log(tail / tail[0]).sum()
        distance = np.abs(1 - (tail / tail[0]) ** (1 - alpha) - np.arange(len(tail)) / len(tail)).max()
        fits.append((distance, alpha))
    distance, alpha = min(fits)
    assert tail_exponent(x) == pytest.approx((alpha, distance), rel=1e-9)


def test_alpha_does_not_depend_on_the_scale_and_few_or_equal_values_have_none():
    x = np.random.default_rng(2).lognormal(size=50)
    assert tail_exponent(7 * x) == pytest.approx(tail_exponent(x), rel=1e-9)
    assert math.isnan(tail_exponent(x[:5])[0])
    assert math.isnan(tail_exponent(np.ones(50))[0])
    assert math.isnan(tail_exponent(np.zeros(50))[0])


@pytest.mark.parametrize("count", [0, 1, 5])
def test_spikes_are_the_directions_that_were_added_to_a_random_matrix(count):
    torch.manual_seed(0)
    weight = torch.randn(80, 200)
    for _ in range(count):
        weight += 60 * torch.outer(*(nn.functional.normalize(torch.randn(n), dim=0) for n in (80, 200)))
    found = spikes(singular_values(weight).square().numpy(), (80, 200))
    assert found[0] == count
    assert found[1] == pytest.approx(1.0, abs=0.1) if not count else found[1] < 0.4


def test_the_control_tells_large_entries_from_correlations():
    torch.manual_seed(0)
    entries = torch.randn(100, 100)
    entries[torch.rand(100, 100) < 0.0005] = 500
    correlated = torch.randn(100, 8) @ torch.randn(8, 100)
    for weight, low in ((entries, True), (correlated, False)):
        own = sslcollapse.effective_rank(weight)
        assert own < 45
        assert (of(weight)["shuffled_rank"] < 45) == low


def test_of_a_random_matrix_alpha_depends_on_the_shape_and_the_share_and_square_cuts_do_not():
    torch.manual_seed(0)
    square, wide = torch.randn(96, 96), torch.randn(96, 960)
    assert share(square) == pytest.approx(1, abs=0.02)
    assert share(wide) == pytest.approx(1, abs=0.02)
    assert of(wide)["alpha"] > 1.3 * of(square)["alpha"]
    assert of(wide)["alpha_farms"] == pytest.approx(of(square)["alpha_farms"], rel=0.1)


def test_lost_directions_are_seen_by_the_share_and_not_by_alpha():
    torch.manual_seed(0)
    flat = torch.cat([torch.ones(30), torch.zeros(226)])
    assert share(with_spectrum(flat, 256)) == pytest.approx(0.14, abs=0.01)
    sigma = torch.cat([torch.linspace(1, 1.4, 30), torch.zeros(226)])
    whole = torch.linspace(1, 1.4, 30)
    lost, kept = (tail_exponent(values.square().numpy())[0] for values in (sigma, whole))
    assert lost == pytest.approx(kept, rel=1e-9)


def test_a_layer_that_has_learned_is_healthy_by_both():
    torch.manual_seed(0)
    tail = torch.distributions.Pareto(1.0, 2.0).sample((12,))  # λ with α = 3
    weight = torch.randn(128, 256) / 16
    weight += with_spectrum(torch.cat([(4 * tail).sqrt(), torch.zeros(116)]), 256)
    assert 2 < of(weight)["alpha"] < 6
    assert 0.5 < share(weight) < 1


def rankmes(sigma: torch.Tensor) -> list[float]:
    """By the paper, without ε, with 1e-5 added after normalising, and of eigenvalues."""
    p, q = sigma / sigma.sum(), sigma.square() / sigma.square().sum()
    entropies = [torch.special.entr(p + eps).sum() for eps in (1e-7, 0.0, 1e-5)]
    return [float(value.exp()) for value in (*entropies, torch.special.entr(q).sum())]


def test_the_rankmes_of_one_matrix_are_those_of_the_page():
    one = torch.zeros(2048, dtype=torch.float64)
    one[0] = 1
    decaying = torch.arange(1, 513, dtype=torch.float64) ** -0.5
    column = re.findall(r"^\| [^|]+ \| [^|]+ \| ([\d.]+) \|$", TEXT, re.M)
    assert [f"{value:.3f}" for value in rankmes(one)] == column
    shown = ", ".join(f"{value:.1f}" for value in rankmes(decaying)[:3])
    assert f"{shown} and, by eigenvalues, {rankmes(decaying)[3]:.1f}" in " ".join(TEXT.split())
    features = with_spectrum(decaying.float(), 512).T
    assert sslcollapse.rankme(features) == pytest.approx(rankmes(decaying)[0], rel=1e-4)
    assert sslcollapse.effective_rank(features) == pytest.approx(rankmes(decaying)[1], rel=1e-4)


def test_every_column_is_on_the_page_and_can_be_asked_for():
    assert all(f"| `{name}` |" in TEXT for name in COLUMNS)
    found = sslcollapse.diagnose({"a.weight": torch.randn(20, 30)}, columns="all")
    assert list(found.rows[0].columns) == list(COLUMNS)


def test_what_the_page_says_of_weightwatcher_is_in_the_record():
    record = json.loads((Path(__file__).parents[3] / "docs/benchmarks/diagnose-weightwatcher.json").read_text())
    said = record["agreement"]
    assert f"Both name {said['layers']} layers alike" in " ".join(TEXT.split())
    equal = said["stable_rank"]["within_1_percent"], said["alpha"]["within_1_percent"]
    assert f"stable rank of {equal[0]} of them and the α of {equal[1]} agree" in " ".join(TEXT.split())
