"""Logistic regression by scikit-learn over ascending C."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from sslcollapse.probes.base import Fit

TOLERANCE = 1e-6
"""Largest gradient entry at which lbfgs stops. At scikit-learn's 1e-4, and to a lesser degree at 1e-5, the
predictions at large C depend on where the path stopped, and one validation row is enough to choose
another C; at 1e-6 they agree with those of the optimum."""


def sklearn_path(
    x: Tensor, values: Tensor, cs: Sequence[float], *, solver: str, max_iter: int, tol: float = TOLERANCE
) -> Iterator[Fit]:
    """Yield the solution for each C, the smallest first.

    ``lbfgs`` starts from the previous solution; ``liblinear`` cannot, and penalises the intercept.

    Shapes:
        x: [n, d].
        values: [n] codes (softmax, lbfgs only) or [n, L] in {0, 1} (one model a column).
    """
    rows = x.double().cpu().numpy()
    columns = [values.cpu().numpy()] if values.dim() == 1 else list(values.cpu().numpy().T)
    models = [
        LogisticRegression(solver=solver, tol=tol, max_iter=max_iter, warm_start=solver == "lbfgs") for _ in columns
    ]
    for c in sorted(cs):
        converged = True
        for model, column in zip(models, columns, strict=True):
            converged &= _fit(model.set_params(C=c), rows, column)
        weight = np.concatenate([model.coef_ for model in models])
        bias = np.concatenate([model.intercept_ for model in models])
        yield Fit(torch.from_numpy(weight), torch.from_numpy(bias), converged)


def _fit(model: LogisticRegression, rows: np.ndarray, column: np.ndarray) -> bool:
    """Fit and return whether it converged, without the warning; other warnings pass through."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ConvergenceWarning)
        model.fit(rows, column)
    for warning in caught:
        if not issubclass(warning.category, ConvergenceWarning):
            warnings.warn(warning.message, stacklevel=2)
    return not any(issubclass(warning.category, ConvergenceWarning) for warning in caught)
