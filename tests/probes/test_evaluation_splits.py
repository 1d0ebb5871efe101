import os

import numpy as np
import pytest
import torch

from sslcollapse.core.errors import DataError
from sslcollapse.core.types import Split
from sslcollapse.probes.splits import check_split, load_splits, random_splits, save_splits


def split(train, validation, test):
    return Split(np.array(train), np.array(validation), np.array(test))


def test_random_parts_are_disjoint_and_cover_every_row():
    splits = random_splits(101)
    assert len(splits) == 20
    for each in splits:
        check_split(each, 101)
        assert sorted(np.concatenate([each.train, each.validation, each.test])) == list(range(101))
        assert (len(each.train), len(each.validation)) == (10, 10)


def test_fractions_below_one_leave_rows_out():
    (each,) = random_splits(100, (0.1, 0.2, 0.3), repeats=1)
    assert [len(part) for part in (each.train, each.validation, each.test)] == [10, 20, 30]


def test_repeats_differ_and_more_repeats_keep_the_earlier_ones():
    few, many = random_splits(50, repeats=2), random_splits(50, repeats=5)
    for a, b in zip(few, many, strict=False):
        np.testing.assert_array_equal(a.test, b.test)
    assert not np.array_equal(many[0].train, many[1].train)


def test_splits_depend_on_their_own_seed_and_not_on_torch():
    torch.manual_seed(0)
    first = random_splits(torch.zeros(60), repeats=1, seed=3)[0]
    torch.manual_seed(1)
    np.random.seed(1)
    assert np.array_equal(first.train, random_splits(60, repeats=1, seed=3)[0].train)
    assert not np.array_equal(first.train, random_splits(60, repeats=1, seed=4)[0].train)


def test_random_splits_leave_the_global_generator_alone():
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    random_splits(60)
    assert torch.equal(torch.rand(1), expected)


@pytest.mark.parametrize(
    "fractions", [(0.5, 0.5), (0.5, 0.5, 0.5), (0.2, 0.0, 0.8), (0.2, -0.1, 0.8), (0.1, 0.1, float("nan"))]
)
def test_bad_fractions_are_quoted(fractions):
    with pytest.raises(ValueError, match=r"three positive numbers.*got \["):
        random_splits(100, fractions)


def test_an_empty_random_part_is_refused():
    with pytest.raises(ValueError, match=r"4 rows in fractions .* give parts of \[0, 1, 3\]"):
        random_splits(4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"repeats": 0}, "repeats must be >= 1, got 0"), ({"seed": -1}, "seed .* got -1")],
)
def test_bad_repeats_and_seeds_are_quoted(arguments, message):
    with pytest.raises(ValueError, match=message):
        random_splits(100, **arguments)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (([0, 1, 2], [2, 1, 3], [4]), "train and validation parts share 2 rows, the first is 1"),
        (([0, 1], [2], [5, 1]), "train and test parts share 1 rows, the first is 1"),
        (([0], [2, 3], [3]), "validation and test parts share 1 rows"),
        (([0], [1], [2, 6, 7]), r"test part has 2 rows outside 0\.\.5, the first is 6"),
        (([-1], [1], [2]), "train part has 1 rows outside"),
        (([0, 0], [1], [2]), "train part lists 1 rows more than once"),
        (([0], np.zeros(0, np.int64), [2]), "validation part is empty"),
        (([True, False], [1], [2]), r"train part must be a vector of row numbers, got bool.*nonzero"),
    ],
)
def test_a_bad_split_is_named_by_part_and_count(parts, message):
    with pytest.raises(DataError, match=message):
        check_split(split(*parts), 6)


def test_saved_splits_come_back_in_order(tmp_path):
    saved = {"random": random_splits(40, repeats=12), "a/b": (split([0], [1], [2]),)}
    save_splits(tmp_path / "splits.npz", saved)
    loaded = load_splits(tmp_path / "splits.npz")
    assert set(loaded) == set(saved)
    for probe, several in saved.items():
        assert len(loaded[probe]) == len(several)
        for a, b in zip(several, loaded[probe], strict=True):
            for part in ("train", "validation", "test"):
                np.testing.assert_array_equal(getattr(a, part), getattr(b, part))
                assert getattr(b, part).dtype == np.int64


def test_a_failed_save_keeps_the_old_file_and_leaves_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "splits.npz"
    save_splits(path, {"public": (split([0], [1], [2]),)})
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        save_splits(path, {"public": (split([3], [4], [5]),)})
    assert [file.name for file in tmp_path.iterdir()] == ["splits.npz"]
    assert load_splits(path)["public"][0].train.tolist() == [0]
