"""Image tables in Parquet: decoding, sizes and modes, and errors that name file, row and column."""

import builtins
import io
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from sslcollapse.core.errors import DataError, MissingDataError, RecipeError, RunError
from sslcollapse.domains.vision import decode
from sslcollapse.domains.vision.table import ImageTable


def encoded(seed=0, size=(8, 8), mode="RGB", kind="PNG"):
    rng = np.random.default_rng(seed)
    channels = {"RGB": (3,), "RGBA": (4,), "CMYK": (4,), "L": ()}[mode]
    image = Image.fromarray(rng.integers(0, 256, (size[1], size[0], *channels), dtype=np.uint8), mode)
    file = io.BytesIO()
    image.save(file, kind)
    return file.getvalue()


def write(path, images, labels=None, *, struct=True, names=None, columns=("image", "label")):
    column = pa.array([{"bytes": data, "path": None} for data in images] if struct else images)
    table = pa.table(
        {columns[0]: column, columns[1]: [k % 2 for k in range(len(images))] if labels is None else labels}
    )
    if names is not None:
        features = {"info": {"features": {columns[1]: {"names": names}}}}
        table = table.replace_schema_metadata({"huggingface": json.dumps(features)})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, row_group_size=2)


def table(root, images, test=None, **arguments):
    """A source over ``vision/tiny/{train,test}.parquet`` with these images."""
    write(root / "vision/tiny/train.parquet", images)
    write(root / "vision/tiny/test.parquet", test or [encoded(9)])
    return source(root, **arguments)


def source(root, **arguments):
    return ImageTable(root, train="vision/tiny/train.parquet", test="vision/tiny/test.parquet", **arguments)


def read(dataset, threads=1):
    return dataset.images.read(torch.arange(len(dataset.images)), threads)


def test_rows_are_training_then_test_images_with_pillows_pixels(tmp_path):
    images = [encoded(0), encoded(1, kind="JPEG"), encoded(2), encoded(3, kind="JPEG")]
    dataset = table(tmp_path, images[:3], test=images[3:]).load()
    expected = [np.asarray(Image.open(io.BytesIO(data))).transpose(2, 0, 1) for data in images]
    assert np.array_equal(read(dataset).numpy(), np.stack(expected))
    assert torch.equal(read(dataset, threads=3), read(dataset))
    assert dataset.labels.tolist() == [0, 1, 0, 0]
    assert dataset.pretrain.tolist() == [0, 1, 2]
    assert dataset.splits["public"][0].test.tolist() == [3]


def test_both_jpeg_decoders_give_the_same_pixels(tmp_path, monkeypatch):
    images = [encoded(k, size=(9, 9), kind="JPEG") for k in range(3)]
    fast = read(table(tmp_path, images, test=images[:1]).load())
    monkeypatch.setattr(decode, "_jpeg_operator", lambda: None)
    assert torch.equal(fast, read(source(tmp_path).load()))


def test_shape_is_known_from_arguments_or_from_the_first_row(tmp_path):
    assert source(tmp_path, size=5, mode="L").size == 5  # no file there
    with pytest.raises(MissingDataError, match=r"the table .*train.parquet is not there.*recipes/simclr_digits.py"):
        _ = source(tmp_path).size
    assert table(tmp_path, [encoded(k, size=(7, 7)) for k in range(2)]).size == 7


def test_classes_are_counted_from_names_or_labels(tmp_path):
    images = [encoded(k) for k in range(3)]
    write(tmp_path / "vision/tiny/test.parquet", images[:1])
    write(tmp_path / "vision/tiny/train.parquet", images, [0, 4, 2])
    assert source(tmp_path).num_classes == 5
    write(tmp_path / "vision/tiny/train.parquet", images, [0, 4, 2], names=list("abcdefg"))
    assert source(tmp_path).num_classes == 7
    assert "3 training, 1 test images 3x8x8, 7 classes" in source(tmp_path).describe()


def test_plain_binary_and_other_column_names_are_read(tmp_path):
    images = [encoded(k) for k in range(3)]
    for part in ("train", "test"):
        path = tmp_path / f"vision/tiny/{part}.parquet"
        write(path, images, struct=False, columns=("img", "fine"))
    dataset = source(tmp_path, image="img", label="fine", name="mine").load()
    assert (dataset.name, len(dataset.images)) == ("mine", 6)


@pytest.mark.parametrize(("mode", "kind"), [("L", "PNG"), ("RGBA", "PNG"), ("L", "JPEG"), ("CMYK", "JPEG")])
@pytest.mark.parametrize("target", ["RGB", "L"])
def test_other_modes_are_converted(tmp_path, mode, kind, target):
    data = encoded(1, mode=mode, kind=kind)
    dataset = table(tmp_path, [data, encoded(2)], mode=target).load()
    expected = torch.from_numpy(np.array(Image.open(io.BytesIO(data)).convert(target)))
    assert torch.equal(dataset.images.read(torch.tensor([0]))[0].permute(1, 2, 0).squeeze(-1), expected)


def test_palette_images_are_converted(tmp_path):
    file = io.BytesIO()
    Image.open(io.BytesIO(encoded(1))).quantize(4).save(file, "PNG")
    dataset = table(tmp_path, [file.getvalue(), encoded(2)]).load()
    assert read(dataset).shape == (3, 3, 8, 8)


def test_images_of_mixed_sizes_are_refused_without_a_size(tmp_path):
    dataset = table(tmp_path, [encoded(0), encoded(1), encoded(2, size=(6, 9))]).load()
    message = r"train.parquet, row 2: the image is 6x9 where others are 8x8; give the dataset a size"
    with pytest.raises(DataError, match=message):
        read(dataset)


def test_images_of_mixed_sizes_are_resized_to_a_size(tmp_path):
    big = encoded(1, size=(40, 20), kind="JPEG")
    dataset = table(tmp_path, [encoded(0), big, encoded(2, size=(3, 9))], size=6).load()
    assert read(dataset).shape == (4, 3, 6, 6)


def test_resizing_keeps_proportions_and_takes_the_middle():
    left = Image.new("RGB", (12, 4), (255, 0, 0))
    left.paste((0, 255, 0), (4, 0, 8, 4))
    file = io.BytesIO()
    left.save(file, "PNG")
    assert decode.decode(file.getvalue(), "RGB", 4, "here")[:, 2, 2].tolist() == [0, 255, 0]
    assert decode.decode(file.getvalue(), "RGB", 4, "here")[0].max() == 0  # no red is left


def test_a_first_image_that_is_not_square_needs_a_size(tmp_path):
    with pytest.raises(DataError, match=r"row 0: the image is 6x9, not square; give the dataset a size"):
        _ = table(tmp_path, [encoded(0, size=(6, 9)), encoded(1)]).size


@pytest.mark.parametrize(
    "data", [b"no image", b"\xff\xd8\xff\xe0 nonsense", encoded(1)[:-40], encoded(1, kind="JPEG")[:-40]]
)
def test_corrupt_image_bytes_name_file_and_row(tmp_path, data):
    dataset = table(tmp_path, [encoded(0), encoded(1)], test=[encoded(2), data]).load()
    with pytest.raises(DataError, match=r"test.parquet, row 1: not a readable image"):
        read(dataset, threads=2)


def test_a_row_without_bytes_is_refused(tmp_path):
    dataset = table(tmp_path, [encoded(0), None]).load()
    with pytest.raises(DataError, match=r"train.parquet, row 1: no image bytes"):
        read(dataset)


def test_sixteen_bit_images_are_refused(tmp_path):
    file = io.BytesIO()
    Image.fromarray(np.full((8, 8), 40000, dtype=np.uint16)).save(file, "PNG")
    dataset = table(tmp_path, [encoded(0), file.getvalue()], mode="L").load()
    with pytest.raises(DataError, match=r"row 1: the image has more than 8 bits a channel"):
        read(dataset)


@pytest.mark.parametrize("cut", [10, -10])
def test_a_truncated_table_is_an_error_that_names_it(tmp_path, cut):
    ready = table(tmp_path, [encoded(k) for k in range(4)])
    path = tmp_path / "vision/tiny/train.parquet"
    path.write_bytes(path.read_bytes()[:cut])
    for use in (ready.load, ready.describe, lambda: ready.size, lambda: ready.num_classes):
        with pytest.raises(DataError, match=r"train.parquet: cannot be read as Parquet"):
            use()


def test_damaged_data_pages_are_an_error_that_names_the_table(tmp_path):
    ready = table(tmp_path, [encoded(k) for k in range(4)])
    path = tmp_path / "vision/tiny/train.parquet"
    data = bytearray(path.read_bytes())
    data[4:400] = b"\xff" * 396
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"train.parquet: cannot be read as Parquet"):
        ready.load()


def test_a_missing_column_and_wrong_types_name_the_column(tmp_path):
    images = [encoded(k) for k in range(3)]
    ready = table(tmp_path, images, label="fine")
    with pytest.raises(DataError, match=r"no column 'fine' \(columns: image, label\); .* image and label name"):
        ready.load()
    with pytest.raises(DataError, match=r"column 'label' has type int64; images are structs"):
        source(tmp_path, image="label", label="image").load()
    write(tmp_path / "vision/tiny/train.parquet", images, ["a", "b", "c"])
    with pytest.raises(DataError, match=r"column 'label' has type string; labels are integers"):
        source(tmp_path).load()
    write(tmp_path / "vision/tiny/train.parquet", images, [0, None, 1])
    with pytest.raises(DataError, match=r"train.parquet, row 1: no label"):
        source(tmp_path).load()


def test_a_test_label_beyond_the_classes_is_refused(tmp_path):
    table(tmp_path, [encoded(k) for k in range(3)])
    write(tmp_path / "vision/tiny/test.parquet", [encoded(0)], [6])
    with pytest.raises(DataError, match=r"test.parquet, row 0: label 6 is not one of the 2 classes of training"):
        source(tmp_path).load()


def test_a_negative_label_is_refused_by_table_and_row(tmp_path):
    ready = table(tmp_path, [encoded(k) for k in range(3)])
    write(tmp_path / "vision/tiny/train.parquet", [encoded(k) for k in range(3)], [0, 1, -1])
    with pytest.raises(DataError, match=r"train.parquet, row 2: label -1 is not one of"):
        ready.load()


def test_one_table_cannot_be_for_training_and_testing(tmp_path):
    with pytest.raises(RecipeError, match=r"train and test are both .*/a.parquet, .*trained on"):
        ImageTable(tmp_path, train="a.parquet", test="a.parquet")


def test_a_folder_in_place_of_a_table_is_refused(tmp_path):
    (tmp_path / "shards").mkdir()
    with pytest.raises(DataError, match=r"shards: a folder; name one Parquet file"):
        ImageTable(tmp_path, train="shards", test="a.parquet").load()


def test_an_empty_table_is_refused(tmp_path):
    table(tmp_path, [encoded(0), encoded(1)])
    empty = pq.read_table(tmp_path / "vision/tiny/train.parquet").slice(0, 0)
    pq.write_table(empty, tmp_path / "vision/tiny/train.parquet")
    with pytest.raises(DataError, match=r"train.parquet: the table has no rows"):
        source(tmp_path).load()
    with pytest.raises(DataError, match=r"train.parquet: the table has no rows"):
        _ = source(tmp_path).size


def test_without_pyarrow_the_error_says_how_to_install_it(tmp_path, monkeypatch):
    ready = table(tmp_path, [encoded(0), encoded(1)])
    real = builtins.__import__

    def fail(name, *args, **kwargs):
        if name.startswith("pyarrow"):
            raise ImportError("No module named 'pyarrow'")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", fail)
    with pytest.raises(RunError, match=r'pip install "sslcollapse\[images\]"'):
        ready.load()


def test_a_size_below_one_is_refused(tmp_path):
    with pytest.raises(RecipeError, match="size must be >= 1, got 0"):
        source(tmp_path, size=0)


def test_the_jpeg_copy_of_cifar10_has_its_sizes(data_root):
    if not (data_root / "vision/cifar10/train.parquet").is_file():
        pytest.skip("no vision/cifar10 in SSLCOLLAPSE_DATA")
    ready = ImageTable(data_root, train="vision/cifar10/train.parquet", test="vision/cifar10/test.parquet")
    assert (ready.size, ready.num_classes, ready.title) == (32, 10, "cifar10")
    dataset = ready.load()
    assert dataset.labels.bincount().tolist() == [6000] * 10
    split = dataset.splits["public"][0]
    assert (len(split.train), len(split.validation), len(split.test)) == (45000, 5000, 10000)
    assert dataset.images.read(torch.tensor([0, 50000])).shape == (2, 3, 32, 32)
