import pytest
import torch
from lightly.loss import NTXentLoss
from torch.nn.functional import normalize

from sslcollapse.core.distributed import Gather
from sslcollapse.core.errors import RecipeError
from sslcollapse.core.types import Branch
from sslcollapse.objectives import simclr
from sslcollapse.objectives.simclr import SimCLR, nt_xent

ALONE = Gather(enabled=False)


def embeddings(rows=7, dim=5, dtype=torch.float64):
    torch.manual_seed(0)
    return [torch.randn(rows, dim, dtype=dtype).requires_grad_() for _ in range(2)]


def value_and_gradients(loss, views):
    views = [view.detach().clone().requires_grad_() for view in views]
    value = loss(*views)
    value.backward()
    return value.detach(), [view.grad for view in views]


def grace(z1, z2, temperature):
    """GRACE as its paper has it: negatives between and within views, both directions averaged."""
    z1, z2 = normalize(z1, dim=1), normalize(z2, dim=1)

    def one_direction(a, b):
        between, within = torch.exp(a @ b.T / temperature), torch.exp(a @ a.T / temperature)
        return -torch.log(between.diag() / (between.sum(1) + within.sum(1) - within.diag()))

    return (0.5 * (one_direction(z1, z2) + one_direction(z2, z1))).mean()


@pytest.mark.parametrize("temperature", [0.1, 0.5])
def test_values_and_gradients_are_those_of_lightly(temperature):
    ours = value_and_gradients(lambda a, b: nt_xent(a, b, temperature, ALONE), embeddings())
    theirs = value_and_gradients(NTXentLoss(temperature), embeddings())
    torch.testing.assert_close(ours, theirs)


def test_negatives_between_and_within_views_averaged_over_both_directions_are_those_of_grace():
    ours = value_and_gradients(lambda a, b: nt_xent(a, b, 0.4, ALONE), embeddings())
    theirs = value_and_gradients(lambda a, b: grace(a, b, 0.4), embeddings())
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("logits", [1, 3 * 14, 5 * 14])
def test_the_size_of_a_chunk_changes_nothing(monkeypatch, logits):
    whole = value_and_gradients(lambda a, b: nt_xent(a, b, 0.2, ALONE), embeddings())
    monkeypatch.setattr(simclr, "CHUNK_LOGITS", logits)
    chunked = value_and_gradients(lambda a, b: nt_xent(a, b, 0.2, ALONE), embeddings())
    torch.testing.assert_close(chunked, whole)


def test_logits_of_many_samples_are_never_in_memory_at_once(monkeypatch):
    monkeypatch.setattr(simclr, "CHUNK_LOGITS", 64 * 1024)
    views = embeddings(rows=512, dim=4, dtype=torch.float32)
    with torch.profiler.profile(profile_memory=True) as profile:
        nt_xent(*views, 0.5, ALONE).backward()
    largest = max(event.self_cpu_memory_usage for event in profile.events())
    assert largest <= 4 * 64 * 1024  # a chunk in float32; all logits are 4 MiB


def test_a_temperature_far_below_the_range_of_exponentials_stays_finite():
    value, gradients = value_and_gradients(lambda a, b: nt_xent(a, b, 1e-3, ALONE), embeddings(dtype=torch.float32))
    assert torch.isfinite(value)
    assert all(torch.isfinite(gradient).all() for gradient in gradients)


def test_the_loss_is_in_float32_under_autocast_and_without_gradient_too():
    z1, z2 = embeddings(dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = nt_xent(z1.bfloat16(), z2.bfloat16(), 0.5, ALONE)
    with torch.no_grad():
        plain = nt_xent(z1.bfloat16().float(), z2.bfloat16().float(), 0.5, ALONE)
    assert mixed.dtype == torch.float32
    torch.testing.assert_close(mixed.detach(), plain)


def naive(similarity, z1, z2, temperature):
    """The formula, with every similarity of two embeddings by itself."""
    z = torch.cat([z1, z2])
    pairs = {"dot": z @ z.T, "squared_distance": -0.5 * (z[:, None] - z[None]).square().sum(2)}
    logits = (pairs[similarity] / temperature).masked_fill(torch.eye(len(z), dtype=torch.bool), -torch.inf)
    return torch.nn.functional.cross_entropy(logits, torch.arange(len(z)).roll(len(z1)))


@pytest.mark.parametrize("similarity", ["dot", "squared_distance"])
def test_embeddings_of_any_length_can_be_compared_without_normalising_them(similarity):
    ours = value_and_gradients(lambda a, b: nt_xent(a, b, 0.1, ALONE, similarity), embeddings())
    theirs = value_and_gradients(lambda a, b: naive(similarity, a, b, 0.1), embeddings())
    torch.testing.assert_close(ours, theirs)
    assert set(SimCLR(similarity=similarity)(branches(*embeddings()), None, ALONE)) == {"simclr"}


@pytest.mark.parametrize("similarity", ["dot", "squared_distance"])
def test_logits_of_a_hundred_thousand_cost_no_precision(similarity):
    views = [100 * view for view in embeddings(rows=40, dtype=torch.float32)]
    ours = value_and_gradients(lambda a, b: nt_xent(a, b, 0.1, ALONE, similarity), views)
    exact = value_and_gradients(lambda a, b: naive(similarity, a, b, 0.1), [view.double() for view in views])
    assert float(exact[0]) > 1e4
    torch.testing.assert_close(ours[0].double(), exact[0], rtol=1e-6, atol=0)
    torch.testing.assert_close([g.double() for g in ours[1]], exact[1], rtol=1e-3, atol=1e-3)


def branches(*embeddings):
    return [Branch(z, z, None) for z in embeddings]


def test_the_projector_of_grace_is_linear_elu_linear_and_an_empty_one_is_none():
    head = SimCLR(projector=[6, 4], norm="none", activation="elu").projector(5)
    x = torch.randn(3, 5)
    torch.testing.assert_close(head(x), head.layers[1](torch.nn.functional.elu(head.layers[0](x))))
    assert SimCLR(projector=[]).projector(5) is None


def test_a_single_sample_has_no_negatives_and_is_refused():
    z1, z2 = embeddings(rows=1)
    with pytest.raises(RecipeError, match=r"simclr .* needs at least 2 in a batch, got 1"):
        SimCLR()([Branch(z1, z1, None), Branch(z2, z2, None)], None, ALONE)


def test_three_views_are_refused():
    z, _ = embeddings()
    with pytest.raises(RecipeError, match="simclr compares exactly two views of a sample, got 3"):
        SimCLR()([Branch(z, z, None)] * 3, None, ALONE)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"temperature": 0.0}, "temperature must be positive, got 0.0"),
        ({"similarity": "euclid"}, "similarity must be one of cosine, dot, squared_distance, got 'euclid'"),
        ({"projector": [8, 0]}, r"projector must be a non-empty list of positive widths, got \[8, 0\]"),
    ],
)
def test_impossible_arguments_are_refused_with_their_value(arguments, message):
    with pytest.raises(ValueError, match=message):
        SimCLR(**arguments)
