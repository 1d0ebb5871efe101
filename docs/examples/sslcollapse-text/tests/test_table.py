import csv

import numpy as np
import pytest
from parts import TOPICS, write_tables

from sslcollapse import DataError, MissingDataError, RecipeError
from sslcollapse_text.table import TextTable


def write(path, header, rows):
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])


@pytest.fixture
def tables(tmp_path):
    spec = write_tables(tmp_path)
    return tmp_path, {name: spec[name] for name in ("train", "test")}


def test_parquet_and_csv_of_the_same_rows_are_the_same_dataset(tables):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import csv as arrow_csv
    from pyarrow import parquet

    folder, names = tables
    for name in ("train", "test"):
        parquet.write_table(arrow_csv.read_csv(folder / f"{name}.csv"), folder / f"{name}.parquet")
    first = TextTable(folder, **names).load()
    second = TextTable(folder, train="train.parquet", test="test.parquet").load()
    assert pyarrow
    assert first.texts == second.texts
    assert first.labels.tolist() == second.labels.tolist()
    assert first.classes == second.classes == sorted(TOPICS)


def test_the_test_table_is_for_testing_alone_and_validation_is_part_of_the_training_table(tables):
    folder, names = tables
    dataset = TextTable(folder, **names, validation=0.2).load()
    split = dataset.splits["public"][0]
    assert split.test.tolist() == list(range(180, 210))
    assert len(split.validation) == 36
    assert sorted([*split.train, *split.validation]) == list(range(180)) == dataset.pretrain.tolist()
    again = TextTable(folder, **names, validation=0.2).load().splits["public"][0]
    np.testing.assert_array_equal(again.validation, split.validation)


def test_several_columns_make_one_text_and_numbers_are_classes_in_their_order(tmp_path):
    rows = [(f"title {k}", f"line\n{k}", label) for k in range(40) for label in (10, 2)]
    for name in ("train", "test"):
        write(tmp_path / f"{name}.csv", ["title", "description", "class"], rows)
    table = TextTable(tmp_path, train="train.csv", test="test.csv", text=["title", "description"], label="class")
    dataset = table.load()
    assert dataset.texts[0] == "title 0 line 0"
    assert dataset.classes == ["2", "10"]
    assert dataset.labels[:2].tolist() == [1, 0]
    assert table.num_classes == 2
    assert "160 texts of 2 classes" in table.describe()


@pytest.mark.parametrize(
    ("header", "rows", "message"),
    [
        (["sentence", "label"], [("a", "x")], r"train.csv: no column 'text' \(columns: sentence, label\)"),
        (["text", "label"], [("a b", "x"), ("", "y")], r"train.csv, row 1: no text; leave such rows out"),
        (["text", "label"], [("a b", "")], r"train.csv, row 0: no label"),
        (["text", "label"], [("a", "x"), ("b", "x")], r"column 'label' has 1 different labels, where 2 to 1,000"),
        (["text", "label"], [("a", "x"), ("b", "y")] * 20, r"test.csv, row 0: label 'animals' is not one of"),
        (["text", "label"], [(b"\xff", "x")], None),
    ],
)
def test_tables_that_cannot_be_used_are_refused_with_their_place(tables, header, rows, message):
    folder, names = tables
    if message is None:
        (folder / "train.csv").write_bytes(b"text,label\n\xff\xfe,x\n")
        message = r"train.csv: cannot be read \(.*utf-8"
    else:
        write(folder / "train.csv", header, rows)
    with pytest.raises(DataError, match=message):
        TextTable(folder, **names).load()


def test_a_row_that_is_too_short_has_no_label(tables):
    folder, names = tables
    (folder / "train.csv").write_text("text,label\nonly words\n")
    with pytest.raises(DataError, match=r"train.csv, row 0: no label"):
        TextTable(folder, **names).load()


def test_a_parquet_file_that_is_cut_off_is_named(tmp_path):
    pytest.importorskip("pyarrow")
    (tmp_path / "train.parquet").write_bytes(b"PAR1 cut off")
    with pytest.raises(DataError, match=r"train.parquet: cannot be read"):
        TextTable(tmp_path, train="train.parquet", test="test.parquet").load()


def test_missing_tables_are_named_by_the_description_and_by_loading(tmp_path):
    table = TextTable(tmp_path, train="none.csv", test="test.csv")
    assert "not there: " in table.describe()
    with pytest.raises(MissingDataError, match=r"none.csv is not there; copy it there"):
        table.load()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(train="a.txt"), r"a.txt: a table of texts ends with .csv or .parquet"),
        (dict(test="train.csv"), r"test: 'train.csv' is the training table too"),
        (dict(text=[]), r"text: needs at least one column"),
        (dict(validation=1.0), r"validation: must be in \(0, 1\), got 1.0"),
    ],
)
def test_arguments_that_make_no_dataset_are_quoted(arguments, message, tmp_path):
    with pytest.raises(RecipeError, match=message):
        TextTable(tmp_path, **(dict(train="train.csv", test="test.csv") | arguments))
