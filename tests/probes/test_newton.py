import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch.nn.functional import normalize

from sslcollapse.core.memory import one_thread
from sslcollapse.probes.torch_logistic import torch_path

CS = [2.0**k for k in (-10, -5, 0, 5, 10)]


@pytest.fixture(autouse=True)
def on_one_thread():
    with one_thread():
        yield


def data(n=120, d=8, classes=4, decay=0.0):
    """Normalised rows whose spectrum falls by 10^-decay, with classes and labels they partly predict."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n, d, generator=generator, dtype=torch.float64) * torch.logspace(0, -decay, d)
    x = normalize(x + 0.5)
    noise = torch.randn(n, classes, generator=generator, dtype=torch.float64)
    logits = 3 * x @ torch.randn(d, classes, generator=generator, dtype=torch.float64) + noise
    return x, logits.argmax(1), (logits > 0).double()


@pytest.mark.parametrize("decay", [0.0, 3.0])
def test_softmax_agrees_with_scikit_learn(decay):
    x, codes, _ = data(decay=decay)
    for c, fit in zip(CS, torch_path(x, codes, CS, max_iter=2000, tol=1e-8), strict=True):
        reference = LogisticRegression(C=c, tol=1e-9, max_iter=10000).fit(x.numpy(), codes.numpy())
        np.testing.assert_allclose(
            (x @ fit.weight.T + fit.bias).softmax(1).numpy(), reference.predict_proba(x.numpy()), atol=1e-4
        )
        assert fit.converged


def test_sigmoids_agree_with_scikit_learns_binary_fits():
    x, _, columns = data()
    for c, fit in zip(CS, torch_path(x, columns, CS, max_iter=2000, tol=1e-8), strict=True):
        scores = x @ fit.weight.T + fit.bias
        for column in range(columns.shape[1]):
            reference = LogisticRegression(C=c, tol=1e-9, max_iter=10000)
            reference.fit(x.numpy(), columns[:, column].numpy())
            expected = reference.predict_proba(x.numpy())[:, 1]
            np.testing.assert_allclose(scores[:, column].sigmoid().numpy(), expected, atol=1e-4)


@pytest.mark.parametrize("kind", ["softmax", "sigmoid"])
def test_the_solution_has_zero_gradient_of_the_stated_objective(kind):
    x, codes, columns = data(decay=2.0)
    values = codes if kind == "softmax" else columns
    for c, fit in zip(CS, torch_path(x, values, CS, max_iter=2000, tol=1e-9), strict=True):
        weight, bias = fit.weight.clone().requires_grad_(), fit.bias.clone().requires_grad_()
        scores = x @ weight.T + bias
        if kind == "softmax":
            loss = torch.nn.functional.cross_entropy(scores, codes, reduction="sum")
        else:
            loss = torch.nn.functional.binary_cross_entropy_with_logits(scores, columns, reduction="sum")
        gradients = torch.autograd.grad(loss + 0.5 / c * weight.square().sum(), [weight, bias])
        for gradient in gradients:
            assert gradient.abs().max() < 1e-4 * len(x)


@pytest.mark.parametrize("kind", ["softmax", "sigmoid"])
def test_float32_predicts_as_float64(kind):
    x, codes, columns = data(n=400, decay=2.0)
    values = codes if kind == "softmax" else columns
    fits = zip(
        torch_path(x, values, CS, max_iter=1000),
        torch_path(x.float(), values, CS, max_iter=1000),
        strict=True,
    )
    for double, single in fits:
        assert single.converged
        a, b = (x @ fit.weight.double().T + fit.bias.double() for fit in (double, single))
        same = (a.argmax(1) == b.argmax(1)) if kind == "softmax" else (a > 0) == (b > 0)
        assert same.double().mean() > 0.99


def test_the_order_of_c_does_not_matter():
    x, codes, _ = data()
    ascending, shuffled = (list(torch_path(x, codes, cs, max_iter=500)) for cs in (CS, CS[::-1]))
    assert all(torch.equal(a.weight, b.weight) for a, b in zip(ascending, shuffled, strict=True))
