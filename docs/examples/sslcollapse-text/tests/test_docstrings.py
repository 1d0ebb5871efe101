import re
import sys

import numpy as np
import pytest
from parts import write_package

from sslcollapse import DataError, MissingDataError, RecipeError
from sslcollapse_text.docstrings import Docstrings


@pytest.fixture
def packages(tmp_path, monkeypatch):
    for name in ("alphapack", "betapack"):
        write_package(tmp_path, name)
    monkeypatch.syspath_prepend(tmp_path)
    return ("alphapack", "betapack")


def test_source_is_parsed_and_never_run_and_tests_and_sections_are_left_out(packages, tmp_path):
    dataset = Docstrings(tmp_path, packages=packages, per_class=200).load()
    assert not set(packages) & set(sys.modules)
    assert "Function 0 of module 3 in returns something for kcapahpla." in dataset.texts
    assert not any("nobody shall read" in text or "secret" in text for text in dataset.texts)


def test_names_of_the_classes_are_in_no_text(packages, tmp_path):
    dataset = Docstrings(tmp_path, packages=packages, per_class=200).load()
    assert not re.search("alphapack|betapack", " ".join(dataset.texts), re.IGNORECASE)


def test_no_text_comes_twice_not_even_in_two_classes(packages, tmp_path):
    dataset = Docstrings(tmp_path, packages=packages, per_class=200).load()
    assert len({text.lower() for text in dataset.texts}) == len(dataset.texts)
    # Without the packages' names their modules' texts are equal.
    shared = [k for k, text in enumerate(dataset.texts) if "has functions for all" in text]
    assert len(shared) == 30
    assert set(dataset.labels[shared].tolist()) == {0}


def test_all_texts_of_a_module_are_in_one_part(packages, tmp_path):
    dataset = Docstrings(tmp_path, packages=packages, per_class=200).load()
    split = dataset.splits["public"][0]
    parts = {row: part for part in ("train", "validation", "test") for row in getattr(split, part)}
    places: dict = {}
    for row, text in enumerate(dataset.texts):
        if found := re.search(r"of module (\d+) in returns something for (\w+)", text):
            places.setdefault(found.groups(), []).append(parts[row])
    assert len(places) > 40
    assert all(len(several) == 3 for several in places.values())
    assert all(len(set(several)) == 1 for several in places.values())


def test_parts_have_their_shares_and_pretraining_sees_no_test_text(packages, tmp_path):
    dataset = Docstrings(tmp_path, packages=packages, per_class=80).load()
    split = dataset.splits["public"][0]
    sizes = np.array([len(split.train), len(split.validation), len(split.test)])
    np.testing.assert_allclose(sizes / sizes.sum(), [0.7, 0.1, 0.2], atol=0.06)
    assert not set(dataset.pretrain.tolist()) & set(split.test.tolist())
    assert sizes.sum() == len(dataset.texts) <= 160
    assert dataset.sizes().startswith(f"{len(dataset.texts)} texts of 2 classes: {sizes[0]} for training")


def test_loading_again_gives_the_same_texts_in_the_same_order(packages, tmp_path):
    first, second = (Docstrings(tmp_path, packages=packages, per_class=40).load() for _ in range(2))
    assert first.texts == second.texts
    assert first.labels.tolist() == second.labels.tolist()


def test_the_standard_library_and_an_installed_package_are_read(tmp_path):
    source = Docstrings(tmp_path, packages=("python", "rich"), per_class=30)
    dataset = source.load()
    assert dataset.labels.bincount().tolist() == [30, 30]
    assert all(len(text.split()) >= 6 for text in dataset.texts)
    version = ".".join(map(str, sys.version_info[:3]))
    assert f"python {version}, rich " in source.describe()


def test_what_cannot_be_read_is_named(packages, tmp_path):
    with pytest.raises(MissingDataError, match=r"package 'nowhere_to_be_found' is not installed; install it, or"):
        Docstrings(tmp_path, packages=("python", "nowhere_to_be_found"), per_class=20).load()
    write_package(tmp_path, "emptypack", modules=0)
    (tmp_path / "emptypack" / "__init__.py").write_text("")
    with pytest.raises(DataError, match=r"'emptypack' has none in its source files"):
        Docstrings(tmp_path, packages=("alphapack", "emptypack"), per_class=20).load()
    write_package(tmp_path, "onepack", modules=1)
    with pytest.raises(DataError, match=r"the (test|validation) part has no text of the class 'onepack'"):
        Docstrings(tmp_path, packages=("alphapack", "onepack"), per_class=20).load()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(packages=["python"]), r"packages: needs at least two classes, got \['python'\]"),
        (dict(per_class=3), r"per_class must be >= 20, got 3"),
    ],
)
def test_arguments_out_of_range_are_quoted(arguments, message, tmp_path):
    with pytest.raises(RecipeError, match=message):
        Docstrings(tmp_path, **arguments)
