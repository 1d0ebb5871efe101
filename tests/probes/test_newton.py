import math

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch.nn.functional import normalize, one_hot

from sslcollapse.core.memory import one_thread
from sslcollapse.probes import newton
from sslcollapse.probes.newton import solve

CS = [2.0**k for k in (-10, -5, 0, 5, 10)]
KINDS = ["softmax", "sigmoids", "liblinear"]


@pytest.fixture(autouse=True)
def on_one_thread():
    with one_thread():
        yield


def data(n=120, d=8, classes=4, decay=0.0, seed=0):
    """Normalised rows whose spectrum falls by 10^-decay, with classes and labels they partly predict."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, d, generator=generator, dtype=torch.float64) * torch.logspace(0, -decay, d)
    x = normalize(x + 0.5)
    noise = torch.randn(n, classes, generator=generator, dtype=torch.float64)
    logits = 3 * x @ torch.randn(d, classes, generator=generator, dtype=torch.float64) + noise
    return x, logits.argmax(1), (logits > 0).double()


def fit(kind, x, codes, columns, cs=CS, **arguments):
    """Solutions of one training part."""
    targets = columns.T if kind == "sigmoids" else one_hot(codes).T.double()
    settings = {"softmax": kind == "softmax", "penalised_bias": kind == "liblinear", "max_iter": 1000, **arguments}
    return solve(x[None], targets[None], cs, **settings)


def scores(solutions, x, k):
    return x.double() @ solutions.weight[0, k].T + solutions.bias[0, k]


@pytest.mark.parametrize(("n", "d"), [(120, 8), (40, 60)])
@pytest.mark.parametrize("decay", [0.0, 3.0])
def test_softmax_agrees_with_scikit_learn(decay, n, d):
    x, codes, columns = data(n, d, decay=decay)
    found = fit("softmax", x, codes, columns)
    assert found.converged.all()
    for k, c in enumerate(CS):
        reference = LogisticRegression(C=c, tol=1e-9, max_iter=10000).fit(x.numpy(), codes.numpy())
        np.testing.assert_allclose(
            scores(found, x, k).softmax(1).numpy(), reference.predict_proba(x.numpy()), atol=1e-4
        )


def test_sigmoids_agree_with_scikit_learns_binary_fits():
    x, codes, columns = data()
    found = fit("sigmoids", x, codes, columns)
    for k, c in enumerate(CS):
        for column in range(columns.shape[1]):
            reference = LogisticRegression(C=c, tol=1e-9, max_iter=10000)
            reference.fit(x.numpy(), columns[:, column].numpy())
            expected = reference.predict_proba(x.numpy())[:, 1]
            np.testing.assert_allclose(scores(found, x, k)[:, column].sigmoid().numpy(), expected, atol=1e-4)


@pytest.mark.parametrize("decay", [0.0, 4.0])
@pytest.mark.parametrize(("n", "d"), [(120, 8), (40, 60)])
@pytest.mark.parametrize("kind", KINDS)
def test_no_score_of_a_unit_row_is_further_from_the_optimum_than_the_gradient_allows(kind, n, d, decay):
    """The objective less its penalty is convex, so it is as curved as ½ ‖W‖² at least: |Δ score| ≤ ‖gradient‖."""
    x, codes, columns = data(n, d, decay=decay)
    found = fit(kind, x, codes, columns)
    assert found.converged.all()
    for k, c in enumerate(CS):
        weight, bias = (part[0, k].clone().requires_grad_() for part in (found.weight, found.bias))
        z = x @ weight.T + bias
        if kind == "softmax":
            loss = torch.nn.functional.cross_entropy(z, codes, reduction="sum")
        else:
            target = columns if kind == "sigmoids" else one_hot(codes).double()
            loss = torch.nn.functional.binary_cross_entropy_with_logits(z, target, reduction="sum")
        penalty = weight.square().sum() + (bias.square().sum() if kind == "liblinear" else 0)
        gradients = torch.autograd.grad(c * loss + 0.5 * penalty, [weight, bias])
        assert math.hypot(*(float(g.norm()) for g in gradients)) < 2e-3  # in scores of up to 20


@pytest.mark.parametrize("kind", KINDS)
def test_parts_and_values_of_c_that_are_solved_together_are_solved_as_alone(kind, monkeypatch):
    parts = [data(seed=seed, decay=seed) for seed in (0, 1, 2)]
    x = torch.stack([part[0] for part in parts])
    targets = torch.stack([part[2].T if kind == "sigmoids" else one_hot(part[1], 4).T.double() for part in parts])
    settings = {"softmax": kind == "softmax", "penalised_bias": kind == "liblinear", "max_iter": 1000}
    together = solve(x, targets, CS, **settings)
    monkeypatch.setattr(newton, "TOGETHER", 2 * targets[0].numel())  # two C at a time, the second pair from the first
    monkeypatch.setattr(newton, "TILE", 1000)  # a few rows at a time
    for s in range(3):
        alone = solve(x[s : s + 1], targets[s : s + 1], CS, **settings)
        torch.testing.assert_close(alone.weight[0], together.weight[s], atol=2e-4, rtol=1e-4)
        a, b = (
            x[s] @ each.mT + bias[:, None]
            for each, bias in ((alone.weight[0], alone.bias[0]), (together.weight[s], together.bias[s]))
        )
        centre = (lambda z: z - z.mean(-1, keepdim=True)) if kind == "softmax" else (lambda z: z)
        torch.testing.assert_close(centre(a), centre(b), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_rows_in_float32_give_the_predictions_of_float64(kind):
    x, codes, columns = data(n=400, decay=2.0)
    double, single = fit(kind, x, codes, columns), fit(kind, x.float(), codes, columns)
    assert single.converged.all()
    for k in range(len(CS)):
        a, b = scores(double, x, k), scores(single, x, k)
        same = (a > 0) == (b > 0) if kind == "sigmoids" else a.argmax(1) == b.argmax(1)
        assert same.double().mean() > 0.99


def test_fully_collapsed_rows_are_solved_by_the_bias_alone():
    _, codes, columns = data()
    found = fit("softmax", normalize(torch.ones(120, 8, dtype=torch.float64)), codes, columns)
    assert found.converged.all()
    assert found.weight.abs().max() < 1e-5
    shares = torch.bincount(codes).double() / len(codes)
    torch.testing.assert_close(found.bias[0, -1].softmax(0), shares, atol=1e-6, rtol=0)


def test_what_stops_early_has_not_converged():
    x, codes, columns = data()
    converged = fit("softmax", x, codes, columns, max_iter=3).converged[0]
    assert not converged[-1]
    assert not converged.all()
