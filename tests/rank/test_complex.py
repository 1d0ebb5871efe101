"""Complex matrices are measured as such, against the same matrix written with real numbers and against torch's SVD."""

import warnings

import pytest
import torch

import sslcollapse as sc
from sslcollapse.nn.moments import gram_matrix
from sslcollapse.rank.covariance import StreamingCovariance
from sslcollapse.rank.spectrum import singular_values

SPECTRAL = ["effective_rank", "rankme", "participation_ratio", "stable_rank", "nesum", "numerical_rank", "alpha_req"]


@pytest.fixture(autouse=True)
def no_cast_that_drops_a_part():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def matrix(rows=60, columns=7, dtype=torch.complex128):
    rng = torch.Generator().manual_seed(0)
    parts = torch.randn(2, rows, columns, generator=rng, dtype=torch.float64)
    return (torch.complex(*parts) * torch.logspace(0, -2, columns) + (2 + 3j)).to(dtype)


def test_a_matrix_whose_real_part_has_rank_one_has_the_rank_of_the_whole():
    real = torch.ones(7, 7, dtype=torch.float64)
    imaginary = 100 * torch.linalg.qr(torch.randn(7, 7, dtype=torch.float64))[0]
    assert sc.effective_rank(real) == pytest.approx(1.0)
    assert sc.effective_rank(torch.complex(real, imaginary)) == pytest.approx(7.0, abs=0.01)


@pytest.mark.parametrize("name", SPECTRAL)
@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
def test_a_measure_is_that_of_the_complex_spectrum(name, dtype):
    x = matrix(40, 20, dtype)
    centred = name in ("participation_ratio", "nesum", "alpha_req")
    sigma = torch.linalg.svdvals((x - x.mean(0) if centred else x).to(torch.complex128))
    of_spectrum = getattr(sc, f"{name}_from_singular_values")
    assert getattr(sc, name)(x) == pytest.approx(of_spectrum(sigma), rel=1e-5)
    assert getattr(sc, name)(1j * x) == pytest.approx(getattr(sc, name)(x), rel=1e-5)


@pytest.mark.parametrize("shape", [(60, 7), (7, 60), (300, 280)])
def test_singular_values_and_grams_are_those_of_the_conjugate_transpose(shape):
    x = matrix(*shape)
    torch.testing.assert_close(gram_matrix(x), x @ x.mH)
    torch.testing.assert_close(singular_values(x), torch.linalg.svdvals(x), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("width", [7, 300])
def test_a_covariance_becomes_complex_with_its_first_complex_rows(width):
    x = matrix(600, width)
    stream, other = StreamingCovariance(width), StreamingCovariance(width)
    stream.update(x.real[:50])
    for part in x[:200].split(70):
        stream.update(part)
    other.update(x[200:])
    stream.merge(other)
    rows = torch.cat([x.real[:50].to(x.dtype), x])
    centred = rows - rows.mean(0)
    assert stream.n == 650
    torch.testing.assert_close(stream.mean, rows.mean(0))
    torch.testing.assert_close(stream.scatter, centred.t() @ centred.conj())
    for is_centred, of in ((False, rows), (True, centred)):
        sigma = torch.linalg.svdvals(of)
        torch.testing.assert_close(stream.singular_values(centred=is_centred), sigma, rtol=1e-5, atol=1e-5)


def test_distances_are_those_of_real_and_imaginary_parts_side_by_side():
    x = matrix()
    real = torch.cat([x.real, x.imag], dim=1)
    assert sc.local_intrinsic_dimension(x, k=9) == pytest.approx(sc.local_intrinsic_dimension(real, k=9))
    assert sc.uniformity(x) == pytest.approx(sc.uniformity(real))
    assert sc.alignment(x, x.flip(0)) == pytest.approx(sc.alignment(real, real.flip(0)))
    assert sc.alignment(x, x.conj()) > 0
    assert sc.feature_std(1j * real) == pytest.approx(sc.feature_std(real))


def test_lidar_does_not_see_a_turn_of_every_channel():
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(30, 4, 6, generator=rng, dtype=torch.float64)
    turn = torch.polar(torch.ones(6, dtype=torch.float64), torch.linspace(0, 3, 6, dtype=torch.float64))
    assert sc.lidar(x * turn) == pytest.approx(sc.lidar(x))
    assert sc.lidar(x[:3] * turn) == pytest.approx(sc.lidar(x[:3]))


def test_complex_singular_values_are_refused():
    with pytest.raises(ValueError, match=r"singular values are real numbers, got torch\.complex128"):
        sc.effective_rank_from_singular_values(torch.ones(3, dtype=torch.complex128))
