import sys
from pathlib import Path

import pytest
import torch
import torch.multiprocessing as mp

from sslcollapse.rank.covariance import StreamingCovariance

sys.path.insert(0, str(Path(__file__).parent))
import covariance_workers


def stream(rows, *sizes):
    covariance = StreamingCovariance(rows.shape[1])
    for part in rows.split(list(sizes)):
        covariance.update(part)
    return covariance


@pytest.mark.parametrize("centred", [False, True])
def test_streamed_singular_values_are_those_of_all_rows_together(centred):
    rows = torch.randn(50, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 0.5
    expected = torch.linalg.svdvals(rows - rows.mean(0) if centred else rows)
    torch.testing.assert_close(stream(rows, 10, 25, 15).singular_values(centred=centred), expected)


def test_the_result_does_not_depend_on_how_rows_are_batched():
    rows = torch.randn(50, 6, generator=torch.Generator().manual_seed(0))
    sigma = [stream(rows, *sizes).singular_values(centred=True) for sizes in ((50,), (1, 49), (7, 20, 23))]
    for other in sigma[1:]:
        torch.testing.assert_close(other, sigma[0], rtol=1e-12, atol=0)


def test_a_large_mean_costs_the_centred_spectrum_no_precision():
    rows = torch.randn(200, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    shifted = stream(rows + 1e8, 120, 80).singular_values(centred=True)
    torch.testing.assert_close(shifted, torch.linalg.svdvals(rows - rows.mean(0)), rtol=1e-6, atol=0)


def test_wide_rows_that_drift_within_a_chunk_have_the_spectrum_and_scatter_of_all_together():
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(1500, 300, generator=generator) * 0.9 ** torch.arange(300.0) + 10.0
    rows[1024:] += 50.0
    wide = rows.double()
    covariance = stream(rows, 1400, 100)
    centred = wide - wide.mean(0)
    torch.testing.assert_close(covariance.scatter, centred.t() @ centred, rtol=1e-10, atol=1e-8)
    for about, matrix in ((True, centred), (False, wide)):
        expected, found = torch.linalg.svdvals(matrix), covariance.singular_values(centred=about)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=float(5e-7 * expected[0]))


def test_rows_are_left_as_they_were():
    rows = torch.randn(20, 6, dtype=torch.float64)
    before = rows.clone()
    StreamingCovariance(6).update(rows)
    assert torch.equal(rows, before)


def test_half_precision_rows_are_accumulated_in_float64():
    rows = torch.randn(64, 4, generator=torch.Generator().manual_seed(0)).bfloat16()
    torch.testing.assert_close(stream(rows, 64).singular_values(centred=False), torch.linalg.svdvals(rows.double()))


def test_two_processes_with_unequal_shares_have_the_spectrum_of_one(tmp_path):
    mp.spawn(covariance_workers.merged, (2, str(tmp_path / "store"), str(tmp_path)), nprocs=2)
    alone = stream(covariance_workers.rows(), 50)
    results = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    assert torch.equal(results[0]["sigma"], results[1]["sigma"])
    assert results[0]["n"] == 50
    torch.testing.assert_close(results[0]["sigma"], alone.singular_values(centred=True), rtol=1e-9, atol=1e-9)


def test_rows_of_another_width_are_refused():
    with pytest.raises(ValueError, match=r"expected rows of width 6, got shape \(3, 5\)"):
        StreamingCovariance(6).update(torch.zeros(3, 5))


def test_a_copy_has_seen_the_same_rows_and_goes_its_own_way():
    rows = torch.randn(50, 6, generator=torch.Generator().manual_seed(0))
    first = stream(rows[:20], 20)
    second = first.copy()
    second.update(rows[20:])
    assert (first.n, second.n) == (20, 50)
    for covariance, seen in ((first, rows[:20]), (second, rows)):
        torch.testing.assert_close(covariance.singular_values(centred=False), torch.linalg.svdvals(seen.double()))
