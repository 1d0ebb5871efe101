"""Streams with different purposes or keys are independent; views draw what they always did."""

from itertools import product

import numpy as np
import pytest
import torch

from sslcollapse.core.seeding import derive_seed, generator, hashed, permuted

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


def splitmix64(state):
    mask = (1 << 64) - 1
    z = state & mask
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
    return z ^ (z >> 31)


def test_the_hash_is_splitmix64_of_each_coordinate_in_turn():
    step, mask = 0x9E3779B97F4A7C15, (1 << 64) - 1
    for key, node, slot in [(0, 1, 0), (2**63 - 1, 12345678901, 9), (77, 0, 3)]:
        expected = splitmix64(splitmix64(key + node * step) + slot * step) & (mask >> 1)
        assert hashed(key, torch.tensor([node]), slot).item() == expected
        assert hashed(key, torch.tensor([node]), torch.tensor([slot])).item() == expected
    assert hashed(0, torch.tensor([1])).item() == 0xE220A8397B1DCDAF & (mask >> 1)  # first output of the published code


@pytest.mark.parametrize("count", [1, 2, 3, 5, 16, 17, 97, 1000, 4096])
def test_a_keyed_permutation_has_every_number_once_and_differs_by_its_key(count):
    first, second = (permuted(torch.arange(count), count, derive_seed("order", 0, epoch)) for epoch in (0, 1))
    assert first.sort().values.tolist() == second.sort().values.tolist() == list(range(count))
    assert count < 16 or not torch.equal(first, second)


def test_any_part_of_a_keyed_permutation_is_that_part_of_the_whole():
    whole = permuted(torch.arange(1000), 1000, 7)
    assert torch.equal(permuted(torch.tensor([999, 3, 500]), 1000, 7), whole[[999, 3, 500]])


def test_keyed_permutations_are_those_that_recorded_runs_had():
    assert permuted(torch.arange(10), 10, 7).tolist() == [1, 6, 3, 9, 0, 4, 2, 8, 7, 5]
    assert permuted(torch.arange(3), 10**9, 2**62 + 5).tolist() == [764081011, 814130917, 308387791]


def test_keyed_permutations_put_every_number_in_every_place_equally_often_whatever_its_neighbours_do():
    count, draws = 8, 4000
    made = torch.stack([permuted(torch.arange(count), count, derive_seed("order", 0, k)) for k in range(draws)])
    counts = torch.stack([torch.bincount(made[:, place], minlength=count) for place in range(count)]).double()
    assert ((counts - draws / count) ** 2 / (draws / count)).sum() < 90  # chi squared of 49 degrees: 1 in 3,000 above
    steps = torch.bincount((made[:, 1:] - made[:, :-1] + count).flatten(), minlength=2 * count).double()
    expected = (count - (torch.arange(2 * count) - count).abs()).double()
    expected[count] = 0
    expected *= draws * (count - 1) / expected.sum()
    there = expected > 0
    assert steps[~there].sum() == 0
    assert (steps[there] / expected[there] - 1).abs().max() < 0.2
