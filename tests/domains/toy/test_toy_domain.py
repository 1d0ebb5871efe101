import pytest
import torch
from torch.testing import assert_close

from sslcollapse.core.errors import RecipeError
from sslcollapse.core.types import Context
from sslcollapse.domains.toy.domain import PROBE_SAMPLES, ToyDomain


def first_batch(step=0, seed=0, rank=0, world_size=1, **arguments):
    domain = ToyDomain(None, **arguments)
    return next(domain.batches(step, Context(seed=seed, rank=rank, world_size=world_size)))


def test_noise_is_in_the_last_dimensions_only_independent_of_sample_and_of_the_other_view():
    batch = first_batch(batch_size=20_000, dim=4, views=dict(noise=1.5, dims=1))
    first, second = (view.flatten(1) for view in batch.views)
    assert torch.equal(first[:, :3], second[:, :3])
    joint = torch.cov(torch.cat([first, second], dim=1).t())
    expected = torch.eye(4).repeat(2, 2)
    expected[3, 3] = expected[7, 7] = 1 + 1.5**2
    assert_close(joint, expected, atol=0.1, rtol=0)


def test_strength_scales_the_noise_and_zero_leaves_samples_as_they_are():
    plain, half, full = (first_batch(views=dict(noise=0.8, strength=s)).views[0] for s in (0.0, 0.5, 1.0))
    assert_close(half - plain, 0.5 * (full - plain))
    assert (full - plain).std() == pytest.approx(0.8, rel=0.05)
    assert torch.equal(plain, first_batch(views=dict(noise=0.8, strength=0.0)).views[1])


def test_a_batch_depends_on_seed_and_step_only_and_no_sample_comes_twice():
    domain = ToyDomain(None)
    stream = domain.batches(0, Context(seed=3))
    _, second = next(stream), next(stream)
    again = first_batch(step=1, seed=3)
    assert all(torch.equal(a, b) for a, b in zip(second.views, again.views, strict=True))
    assert torch.equal(second.index, torch.arange(128, 256))
    for other in (first_batch(step=0, seed=3), first_batch(step=1, seed=4)):
        assert not torch.isin(again.views[0], other.views[0]).any()


def test_two_ranks_share_the_batch_of_one():
    whole = first_batch(batch_size=6)
    shares = [first_batch(batch_size=6, rank=rank, world_size=2) for rank in range(2)]
    for view in range(2):
        assert torch.equal(torch.cat([share.views[view] for share in shares]), whole.views[view])
    assert torch.equal(torch.cat([share.index for share in shares]), whole.index)
    assert not whole.replicated
    assert all(share.equal for share in shares)


def test_the_probe_set_has_no_noise_and_is_the_same_whatever_the_views():
    (x,) = ToyDomain(None).probe_set().views
    assert x.shape == (PROBE_SAMPLES, 1, 16)
    assert_close(torch.cov(x.flatten(1).t()), torch.eye(16), atol=0.1, rtol=0)
    assert torch.equal(x, ToyDomain(None, views=dict(noise=3.0)).probe_set().views[0])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"views": {"noise": -1.0}}, "noise: must be a finite number >= 0, got -1.0"),
        ({"views": {"dims": 0}}, "dims: must be >= 1, or None for all, got 0"),
        ({"views": {"strength": 1.5}}, r"strength: must be in \[0, 1\], got 1.5"),
        ({"dim": 4, "views": {"dims": 5}}, "domain.views.dims: 5 dimensions .* samples have 4"),
    ],
)
def test_impossible_views_are_refused_with_their_value(arguments, message):
    with pytest.raises(RecipeError, match=message):
        ToyDomain(None, **arguments)


def test_a_batch_that_ranks_cannot_share_is_refused():
    with pytest.raises(RecipeError, match=r"domain\.batch_size: 7 samples cannot be shared equally by 2 ranks"):
        ToyDomain(None, batch_size=7).check(2)


def test_its_views_are_drawn_as_curves(tmp_path):
    ToyDomain(None, dim=8).draw(tmp_path / "sheet.png", 2, seed=0)
    assert (tmp_path / "sheet.png").read_bytes().startswith(b"\x89PNG")
