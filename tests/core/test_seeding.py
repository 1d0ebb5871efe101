"""Streams with different purposes or keys are independent; views draw what they always did."""

from itertools import product

import numpy as np
import pytest
import torch

from sslcollapse.core.seeding import derive_seed, generator

CPU = torch.device("cpu")
PURPOSES = ("order", "step", "probe order", "sheet", "sigreg directions", "neighbours")


def test_no_two_of_a_thousand_keys_draw_the_same_first_value():
    keys = [("view", *key) for key in product(range(3), range(5), range(3), range(4))]
    keys += [(purpose, *key) for purpose in PURPOSES for n in range(1, 5) for key in product((0, 1, 2**32), repeat=n)]
    keys += [("toy samples", seed, step, 1 << 30) for seed in range(3) for step in range(60)]
    firsts = {torch.rand((), generator=generator(CPU, *key), dtype=torch.float64).item() for key in keys}
    assert len(keys) > 1000
    assert len(firsts) == len(keys)


@pytest.mark.parametrize("purpose", ["order", "step"])
def test_trailing_zeros_and_large_numbers_are_part_of_a_key(purpose):
    seeds = [derive_seed(purpose, *key) for key in ((7,), (7, 0), (7, 0, 0), (2**32, 7), (0, 1 + 7 * 2**32), (0, 1, 7))]
    assert len(set(seeds)) == len(seeds)


def test_the_default_stream_of_a_step_is_not_the_stream_of_its_first_view():
    # Equal until keys had a purpose: dropout masks and edge masks were then the same numbers.
    assert derive_seed("step", 3, 5, 0) != derive_seed("view", 3, 5, 0, 0)


def test_views_draw_what_they_drew_in_the_first_version():
    words = np.random.SeedSequence([3, 5, 1, 2]).generate_state(2, np.uint32)
    assert derive_seed("view", 3, 5, 1, 2) == (int(words[0]) << 31) ^ int(words[1])


def test_a_key_of_another_length_than_its_purpose_has_is_refused():
    with pytest.raises(ValueError, match="'view' has 4 coordinates, got 3"):
        derive_seed("view", 0, 1, 2)
