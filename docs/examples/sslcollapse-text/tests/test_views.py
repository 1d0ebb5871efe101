import pytest
import torch

from sslcollapse import RecipeError
from sslcollapse_text.views import PADDING, TextViews, delete_words, mask_spans

MASK = 999


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def texts(count: int, words: int, padding: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Texts of words of two tokens each: ids 0, 1, 2, ... and the number of each token's word."""
    ids = torch.arange(2 * words).expand(count, -1)
    numbers = torch.arange(words).repeat_interleave(2).expand(count, -1)
    end = torch.full((count, padding), PADDING)
    return torch.cat([ids, end], 1), torch.cat([numbers, end], 1)


def test_views_of_simcse_are_the_tokens_themselves_without_columns_of_padding():
    ids, words = texts(3, 4, padding=5)
    view = TextViews().view(ids, words, MASK, rng())
    assert torch.equal(view, ids[:, :8])


def test_deletion_takes_whole_words_and_leaves_the_rest_in_order():
    ids, words = texts(200, 10, padding=3)
    view = delete_words(ids, words, 0.4, rng())
    for row in view:
        kept = row[row != PADDING]
        assert torch.equal(row[: len(kept)], kept)  # padding stands behind the text
        assert (kept[1:] > kept[:-1]).all()
        assert torch.equal(kept[::2] + 1, kept[1::2])  # both tokens of a word
    share = (view == PADDING)[:, :20].float().mean()
    assert share == pytest.approx(0.4, abs=0.03)


def test_deletion_leaves_one_word_of_every_text_whatever_its_probability():
    ids, words = texts(50, 6, padding=2)
    view = delete_words(ids, words, 1.0, rng())
    assert ((view != PADDING).sum(1) == 2).all()


def test_every_word_is_masked_with_the_probability_asked_for_and_both_of_its_tokens_are():
    ids, words = texts(20_000, 8, padding=2)
    masked = mask_spans(ids, words, 0.3, 3, MASK, rng()) == MASK
    assert torch.equal(masked[:, 0:16:2], masked[:, 1:16:2])
    assert not masked[:, 16:].any()
    shares = masked[:, 0:16:2].float().mean(0)
    torch.testing.assert_close(shares, torch.full((8,), 0.3), atol=0.015, rtol=0)  # also the first and the last word


def test_masked_words_stand_together_in_spans():
    ids, words = texts(5_000, 20)
    masked = (mask_spans(ids, words, 0.3, 4, MASK, rng()) == MASK)[:, ::2]
    after_masked = masked[:, 1:][masked[:, :-1]].float().mean()
    assert after_masked > 0.7  # 0.3 if words were masked one by one


@pytest.mark.parametrize("change", ["word_deletion", "span_masking"])
def test_strength_multiplies_probabilities(change):
    ids, words = texts(100, 10)
    halved = TextViews(**{change: 0.6}, strength=0.5).view(ids, words, MASK, rng())
    assert torch.equal(halved, TextViews(**{change: 0.3}).view(ids, words, MASK, rng()))
    assert not torch.equal(halved, TextViews(**{change: 0.6}).view(ids, words, MASK, rng()))
    assert torch.equal(TextViews(**{change: 0.6}, strength=0.0).view(ids, words, MASK, rng()), ids)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("word_deletion", 1.5, r"word_deletion: must be in \[0, 1\], got 1.5"),
        ("span_masking", -0.1, r"span_masking: must be in \[0, 1\], got -0.1"),
        ("strength", 2.0, r"strength: must be in \[0, 1\], got 2.0"),
        ("span", 0, r"span: must be >= 1, got 0"),
        ("count", 0, r"count: must be >= 1, got 0"),
    ],
)
def test_values_out_of_range_are_quoted(name, value, message):
    with pytest.raises(RecipeError, match=message):
        TextViews(**{name: value})
