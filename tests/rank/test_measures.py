import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from sslcollapse.rank import measures, spectrum
from sslcollapse.rank.covariance import StreamingCovariance
from sslcollapse.rank.spectrum import NotFiniteError

RANKS = ["effective_rank", "rankme", "participation_ratio", "stable_rank", "nesum", "numerical_rank", "alpha_req"]
GEOMETRIC = 0.9 ** torch.arange(40, dtype=torch.float64)
SPECTRA = {
    "geometric": GEOMETRIC,
    "rank 7": torch.cat([torch.linspace(3, 1, 7, dtype=torch.float64), torch.zeros(33, dtype=torch.float64)]),
    "isotropic": torch.ones(40, dtype=torch.float64),
}


def features(sigma, n=200, seed=0):
    """[n, d] with these singular values, whose columns have mean 0, so that centring changes nothing."""
    rng = torch.Generator().manual_seed(seed)
    noise = torch.randn(n, len(sigma), generator=rng, dtype=torch.float64)
    left = torch.linalg.qr(noise - noise.mean(0)).Q
    right = torch.linalg.qr(torch.randn(len(sigma), len(sigma), generator=rng, dtype=torch.float64)).Q
    return left @ torch.diag(sigma) @ right.t()


def formulas(sigma):
    """The published formulas, in NumPy, of singular values."""
    sigma = sigma.numpy()
    energy, p = sigma**2, sigma / sigma.sum()
    seen = p[p > 0]
    k = np.arange(11, (energy > 1e-20).sum() + 1)
    alpha = -np.polyfit(np.log(k), np.log(energy[k - 1]), 1, w=np.sqrt(1 / k))[0] if len(k) > 1 else math.nan
    return {
        "effective_rank": np.exp(-(seen * np.log(seen)).sum()),
        "rankme": np.exp(-((p + 1e-7) * np.log(p + 1e-7)).sum()),
        "participation_ratio": energy.sum() ** 2 / (energy**2).sum(),
        "stable_rank": energy.sum() / energy.max(),
        "nesum": energy.sum() / energy.max(),
        "numerical_rank": (sigma > 1e-3 * sigma.max()).sum(),
        "alpha_req": alpha,
    }


@pytest.mark.parametrize("name", SPECTRA)
@pytest.mark.parametrize("measure", RANKS)
def test_a_measure_of_features_is_its_formula_of_the_spectrum_they_were_made_with(measure, name):
    expected = formulas(SPECTRA[name])[measure]
    value = getattr(measures, measure)(features(SPECTRA[name]))
    assert value == pytest.approx(expected, rel=1e-6, abs=1e-9, nan_ok=True)


@pytest.mark.parametrize("centred", [False, True])
@pytest.mark.parametrize("name", SPECTRA)
@pytest.mark.parametrize("measure", RANKS)
def test_a_streamed_covariance_gives_the_measure_of_the_matrix(measure, name, centred):
    rows = features(SPECTRA[name]) + 0.01
    stream = StreamingCovariance(40)
    for part in rows.split(33):
        stream.update(part)
    streamed = getattr(spectrum, f"{measure}_from_singular_values")(stream.singular_values(centred=centred))
    sigma = torch.linalg.svdvals(rows - rows.mean(0) if centred else rows)
    assert streamed == pytest.approx(formulas(sigma)[measure], rel=1e-5, abs=1e-9, nan_ok=True)


@pytest.mark.parametrize("measure", ["effective_rank", "participation_ratio", "stable_rank", "nesum", "numerical_rank"])
def test_centring_takes_the_mean_away(measure):
    rows = features(GEOMETRIC) + 3.0
    function = getattr(measures, measure)
    assert function(rows, centred=True) == pytest.approx(function(features(GEOMETRIC), centred=False), rel=1e-6)
    assert function(rows, centred=False) < function(rows, centred=True)


@pytest.mark.parametrize("measure", [name for name in RANKS if name != "alpha_req"])
def test_a_zero_matrix_has_rank_zero_and_one_sample_rank_one_or_centred_zero(measure):
    function = getattr(measures, measure)
    assert function(torch.zeros(5, 3)) == 0
    one = torch.tensor([[1.0, -2.0, 3.0]])
    if measure == "rankme":
        assert function(one) == pytest.approx(1, abs=1e-5)
        return
    assert function(one, centred=False) == pytest.approx(1)
    assert function(one, centred=True) == 0


@pytest.mark.parametrize("measure", [*RANKS, "uniformity", "feature_std", "local_intrinsic_dimension"])
def test_nan_and_singular_values_are_refused_as_features(measure):
    function = getattr(measures, measure)
    with pytest.raises(NotFiniteError, match="NaN or infinite entries"):
        function(torch.tensor([[1.0, 2.0], [math.nan, 1.0]]))
    with pytest.raises(ValueError, match="for singular values use the function called"):
        function(torch.ones(3))


def test_half_precision_features_are_measured_in_float64():
    rows = torch.randn(64, 8, generator=torch.Generator().manual_seed(0)).bfloat16()
    assert measures.effective_rank(rows) == measures.effective_rank(rows.double())


def lidar_by_eigenvectors(x, delta):
    """From the definition, with the inverse square root of the within-sample scatter."""
    x = x.numpy()
    n, q, d = x.shape
    mean = x.mean((0, 1))
    between = sum(np.outer(s.mean(0) - mean, s.mean(0) - mean) for s in x) / n
    within = sum(np.outer(v - s.mean(0), v - s.mean(0)) for s in x for v in s) / (n * q) + delta * np.eye(d)
    values, vectors = np.linalg.eigh(within)
    root = vectors @ np.diag(values**-0.5) @ vectors.T
    eigenvalues = np.linalg.eigvalsh(root @ between @ root).clip(0)
    p = eigenvalues / eigenvalues.sum() + 1e-7
    return np.exp(-(p * np.log(p)).sum())


@pytest.mark.parametrize("shape", [(30, 4, 6), (5, 3, 9)])
def test_lidar_is_the_effective_rank_of_the_discriminant(shape):
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(shape[0], 1, shape[2], generator=rng, dtype=torch.float64)
    x = x + 0.3 * torch.randn(shape, generator=rng, dtype=torch.float64)
    for delta in (1e-4, 1e-1):
        assert measures.lidar(x, delta=delta) == pytest.approx(lidar_by_eigenvectors(x, delta), rel=1e-5)


def test_lidar_counts_the_directions_that_tell_samples_apart_and_no_others():
    rng = torch.Generator().manual_seed(0)
    samples = torch.zeros(400, 1, 8)
    samples[:, 0, :3] = features(torch.ones(3, dtype=torch.float64), n=400).float() * 20
    views = torch.randn(400, 6, 8, generator=rng) * 0.1
    assert measures.lidar(samples + views) == pytest.approx(3, abs=0.1)
    assert measures.lidar(torch.zeros(10, 2, 4)) == 0
    assert measures.lidar(torch.randn(1, 4, 3, generator=rng)) == 0
    with pytest.raises(ValueError, match=r"expected \[n, q, d\]: q views of each of n samples, got shape \(3, 2\)"):
        measures.lidar(torch.zeros(3, 2))


def lid_by_sorting(x, k):
    distances = (x[:, None] - x[None]).norm(dim=2).sort(1).values[:, 1 : k + 1]
    m, a = distances.mean(1), distances[:, -1]
    return float((m / (a - m)).log().mean().exp())


def test_local_intrinsic_dimension_is_the_geometric_mean_of_the_estimates(monkeypatch):
    x = torch.randn(90, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = lid_by_sorting(x, 10)
    assert measures.local_intrinsic_dimension(x, k=10) == pytest.approx(expected, rel=1e-9)
    monkeypatch.setattr(measures, "_CHUNK", 40)
    assert measures.local_intrinsic_dimension(x, k=10) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("dimension", [1, 2, 4])
def test_local_intrinsic_dimension_of_a_flat_sheet_is_its_dimension_whatever_the_space(dimension):
    rng = torch.Generator().manual_seed(0)
    sheet = (
        torch.rand(2000, dimension, generator=rng) @ torch.linalg.qr(torch.randn(20, dimension, generator=rng)).Q.t()
    )
    assert measures.local_intrinsic_dimension(sheet, k=40) == pytest.approx(dimension, rel=0.15)


def test_coinciding_samples_have_no_dimension_and_too_many_neighbours_are_refused():
    assert measures.local_intrinsic_dimension(torch.ones(9, 3), k=4) == 0
    with pytest.raises(ValueError, match="k must be between 2 and N - 1 = 8, got 9"):
        measures.local_intrinsic_dimension(torch.ones(9, 3), k=9)


def test_alignment_and_uniformity_are_their_formulas_of_normalised_features(monkeypatch):
    rng = torch.Generator().manual_seed(0)
    x, y = (torch.randn(50, 6, generator=rng, dtype=torch.float64) for _ in range(2))
    u, v = F.normalize(x), F.normalize(y)
    assert measures.alignment(3 * x, y) == pytest.approx(float((2 - 2 * (u * v).sum(1)).mean()))
    expected = float(torch.pdist(u).square().mul(-2).exp().mean().log())
    assert measures.uniformity(3 * x) == pytest.approx(expected)
    monkeypatch.setattr(measures, "_CHUNK", 13)
    assert measures.uniformity(x) == pytest.approx(expected)
    assert (measures.alignment(x, 2 * x), measures.uniformity(torch.ones(4, 3))) == (pytest.approx(0), 0)
    with pytest.raises(ValueError, match=r"of one shape, got \(50, 6\) and \(9, 6\)"):
        measures.alignment(x, y[:9])
    with pytest.raises(ValueError, match="needs two samples, got 1"):
        measures.uniformity(x[:1])


def test_feature_std_is_one_over_the_root_of_d_when_spread_and_zero_when_collapsed():
    x = torch.randn(20000, 16, generator=torch.Generator().manual_seed(0))
    assert measures.feature_std(5 * x) == pytest.approx(0.25, rel=0.01)
    assert measures.feature_std(torch.arange(1.0, 5)[:, None] * torch.ones(4, 3)) == pytest.approx(0, abs=1e-12)
    assert measures.feature_std(x[:1]) == 0
