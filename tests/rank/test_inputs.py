"""What measures are given that is no dense matrix of numbers is refused with a sentence that says what to do."""

import numpy as np
import pytest
import torch

import sslcollapse as sc
from sslcollapse.rank.covariance import StreamingCovariance
from sslcollapse.rank.spectrum import singular_values

MEASURES = {
    **{
        name: getattr(sc, name)
        for name in (
            "effective_rank",
            "rankme",
            "participation_ratio",
            "stable_rank",
            "nesum",
            "numerical_rank",
            "alpha_req",
            "local_intrinsic_dimension",
            "uniformity",
            "feature_std",
            "orthogonality_defect",
            "effective_rank_from_singular_values",
        )
    },
    "alignment": lambda x: sc.alignment(x, x),
    "singular_values": singular_values,
    "lidar": sc.lidar,
}
ROWS = [[1.0, 2.0], [3.0, 5.0]]


@pytest.mark.parametrize("name", MEASURES)
@pytest.mark.parametrize(("given", "kind"), [(np.array(ROWS), "ndarray"), (ROWS, "list"), (None, "NoneType")])
def test_what_is_no_tensor_is_refused_with_how_to_make_one(name, given, kind):
    with pytest.raises(TypeError, match=rf"torch\.Tensor, got {kind}; use torch\.as_tensor"):
        MEASURES[name](given)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", [*MEASURES, "update"])
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (torch.Tensor.to_sparse, r"has the layout torch\.sparse_coo; use its to_dense"),
        (torch.Tensor.to_sparse_csr, r"has the layout torch\.sparse_csr; use its to_dense"),
        (lambda x: x.to("meta"), "is on the meta device, where it has no values"),
        (lambda x: torch.nested.nested_tensor([x, x]), r"is nested; use the tensors of its unbind"),
        (lambda x: torch.quantize_per_tensor(x, 0.1, 0, torch.qint8), "is quantised; use its dequantize"),
    ],
)
def test_a_tensor_without_dense_values_is_refused_with_what_to_do(name, make, message):
    measure = StreamingCovariance(2).update if name == "update" else MEASURES[name]
    with pytest.raises(ValueError, match=message):
        measure(make(torch.tensor(ROWS)))


def test_integers_and_booleans_are_measured_and_are_no_weights():
    assert sc.effective_rank(torch.eye(3, dtype=torch.int64)) == pytest.approx(3.0)
    assert sc.effective_rank(torch.eye(3, dtype=torch.bool)) == pytest.approx(3.0)
    with pytest.raises(ValueError, match=r"has the type torch\.int64; use floating-point or complex numbers"):
        sc.orthogonality_defect(torch.eye(3, dtype=torch.int64))


def test_a_finite_matrix_that_is_too_large_to_be_squared_has_its_spectrum():
    large = 1e200 * torch.randn(5, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(singular_values(large) / 1e200, torch.linalg.svdvals(large / 1e200))
    large[0, 0] = torch.inf
    with pytest.raises(ValueError, match="NaN or infinite"):
        singular_values(large)
