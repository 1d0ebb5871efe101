import pytest
import torch
from torch import nn

from sslcollapse.core.errors import RecipeError
from sslcollapse.probes.linear import OnlineProbe


def setting():
    torch.manual_seed(0)
    encoder = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 5))
    return encoder, torch.randn(40, 6), torch.arange(40) % 3


def encoder_gradients(with_probe):
    encoder, x, labels = setting()
    h = encoder(x)
    loss = h.square().mean()
    if with_probe:
        probe = OnlineProbe(5, 3)
        nn.init.normal_(probe.linear.weight)
        loss = loss + probe(h, labels)["loss"]
    loss.backward()
    return [parameter.grad for parameter in encoder.parameters()]


def test_encoder_gradients_are_the_same_bits_with_and_without_it():
    for without, with_it in zip(encoder_gradients(False), encoder_gradients(True), strict=True):
        assert torch.equal(without, with_it)


def test_its_own_parameters_learn_and_fit_the_classes():
    _, x, labels = setting()
    x[torch.arange(40), labels] += 8.0
    probe = OnlineProbe(6, 3)
    optimizer = torch.optim.SGD(probe.parameters(), lr=0.5)
    first = probe(x, labels)
    for _ in range(50):
        optimizer.zero_grad()
        result = probe(x, labels)
        result["loss"].backward()
        optimizer.step()
    assert float(first["loss"].detach()) == pytest.approx(torch.tensor(3.0).log().item())
    assert result["loss"] < 0.1
    assert float(result["accuracy"]) == 1.0
    assert not result["accuracy"].requires_grad


def test_making_one_draws_no_random_numbers():
    state = torch.get_rng_state()
    OnlineProbe(5, 3).reset_parameters()
    assert torch.equal(torch.get_rng_state(), state)


def test_it_starts_again_at_zero():
    probe = OnlineProbe(5, 3)
    nn.init.ones_(probe.linear.weight)
    probe.reset_parameters()
    assert all(not parameter.any() for parameter in probe.parameters())


def test_it_computes_in_float32_under_autocast():
    _, x, labels = setting()
    probe = OnlineProbe(6, 3)
    nn.init.normal_(probe.linear.weight, generator=torch.Generator().manual_seed(0))
    expected = probe(x.bfloat16().float(), labels)["loss"]
    with torch.autocast("cpu", torch.bfloat16):
        loss = probe(x.bfloat16(), labels)["loss"]
    assert loss.dtype == torch.float32
    assert torch.equal(loss, expected)


def test_unlabelled_rows_are_left_out():
    _, x, labels = setting()
    probe = OnlineProbe(6, 3)
    nn.init.normal_(probe.linear.weight, generator=torch.Generator().manual_seed(0))
    some = labels.clone()
    some[10:] = -1
    for key, value in probe(x[:10], labels[:10]).items():
        torch.testing.assert_close(probe(x, some)[key], value)
    none = probe(x, torch.full_like(labels, -1))
    none["loss"].backward()
    assert (float(none["loss"].detach()), float(none["accuracy"])) == (0.0, 0.0)
    assert not probe.linear.weight.grad.any()


def test_multilabel_rows_are_refused():
    with pytest.raises(RecipeError, match=r"one class a row, got labels of shape \(40, 3\)"):
        OnlineProbe(6, 3)(torch.zeros(40, 6), torch.zeros(40, 3))


@pytest.mark.parametrize(("sizes", "message"), [((0, 3), "in_dim must be >= 1, got 0"), ((5, 0), "num_classes .* 0")])
def test_bad_sizes_are_quoted(sizes, message):
    with pytest.raises(ValueError, match=message):
        OnlineProbe(*sizes)
