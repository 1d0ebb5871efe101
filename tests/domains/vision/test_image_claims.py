"""Headers of images and tables that claim more than they hold."""

import io
import json
import os
import struct
import time
import tracemalloc
import zlib

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from test_image_table import encoded, source, table, write

from sslcollapse.core.errors import DataError
from sslcollapse.domains.vision import decode
from sslcollapse.domains.vision.decode import decode as decoded

HUGE = (65500, 65500)


def jpeg(size):
    """A small JPEG whose header has another size."""
    data = encoded(0, kind="JPEG")
    at = data.index(b"\xff\xc0")
    return data[: at + 5] + struct.pack(">HH", size[1], size[0]) + data[at + 9 :]


def png(size):
    data = encoded(0)
    header = b"IHDR" + struct.pack(">II", *size) + data[24:29]
    return data[:12] + header + struct.pack(">I", zlib.crc32(header)) + data[33:]


@pytest.mark.parametrize("make", [jpeg, png])
@pytest.mark.parametrize("size", [HUGE, (13000, 13000)])
@pytest.mark.parametrize("row", [0, 3])
@pytest.mark.parametrize("given", [None, 8])
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_an_image_that_claims_a_billion_pixels_is_refused_in_any_row_before_it_is_decoded(
    tmp_path, make, size, row, given
):
    images = [encoded(k, kind="JPEG") for k in range(4)]
    images[row] = make(size)
    began = time.monotonic()
    tracemalloc.start()
    with pytest.raises(DataError, match=rf"train\.parquet, row {row}: .*({size[0]}|exceeds limit)"):
        table(tmp_path, images, size=given).load().images.read(torch.arange(4))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 50e6  # Python's and NumPy's; 65,500 × 65,500 would be 12.9 GB
    assert time.monotonic() - began < 80


def test_an_image_of_another_size_is_refused_by_its_header(tmp_path):
    images = [encoded(0, kind="JPEG"), jpeg((9000, 9000))]
    with pytest.raises(DataError, match="row 1: the image is 9000x9000 where others are 8x8"):
        table(tmp_path, images).load().images.read(torch.tensor([1]))


def test_a_thin_image_that_would_grow_when_it_is_scaled_is_refused():
    file = io.BytesIO()
    Image.new("L", (1, 60000)).save(file, "PNG")
    with pytest.raises(DataError, match="here, scaled to a shorter side of 224: the image says that it is 224x134"):
        decoded(file.getvalue(), "L", 224, "here")


@pytest.mark.parametrize("size", [(8, 8), (9, 7), (300, 200)])
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"exif": b"Exif\0\0" + bytes(100)}, {"comment": b"c"}])
def test_the_size_in_a_jpeg_header_is_pillows(size, options):
    file = io.BytesIO()
    Image.new("RGB", size).save(file, "JPEG", **options)
    assert decode._jpeg_size(file.getvalue()) == size
    assert decode._jpeg_size(file.getvalue()[:20]) is None


def test_formats_that_other_programs_draw_are_no_images():
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "EPS")
    with pytest.raises(DataError, match="here: not a readable image"):
        decoded(file.getvalue(), "RGB", 8, "here")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM"])
def test_usual_formats_are_images(kind):
    file = io.BytesIO()
    Image.new("RGB", (8, 8), (200, 0, 0)).save(file, kind)
    assert decoded(file.getvalue(), "RGB", 8, "here").shape == (3, 8, 8)


@pytest.mark.parametrize("label", [10**9, 2**62, 1000])
def test_a_label_that_would_make_more_classes_than_images_is_refused(tmp_path, label):
    images = [encoded(k) for k in range(3)]
    table(tmp_path, images)
    write(tmp_path / "vision/tiny/train.parquet", images, [0, label, 1])
    with pytest.raises(DataError, match=rf"train\.parquet, row 1: label {label} would make {label + 1:,} classes of 3"):
        source(tmp_path).load()


def test_a_table_that_claims_a_row_for_less_than_a_byte_is_refused(tmp_path):
    table(tmp_path, [encoded(0), encoded(1)])
    rows = 20_000_000
    same = pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int8)), pa.array([b"x"]))
    path = tmp_path / "vision/tiny/train.parquet"
    pq.write_table(pa.table({"image": same, "label": pa.array(np.zeros(rows, np.int8))}), path)
    assert path.stat().st_size < 1e6
    with pytest.raises(DataError, match=r"train\.parquet: 20,000,000 rows in .* too few to hold images"):
        source(tmp_path).load()


def test_a_value_that_many_rows_share_cannot_fill_the_memory(tmp_path):
    table(tmp_path, [encoded(0), encoded(1)])
    path, rows = tmp_path / "vision/tiny/train.parquet", 3000
    value = encoded(0) + bytes(1_000_000)
    same = pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int16)), pa.array([value]))
    pq.write_table(pa.table({"image": same, "label": pa.array(np.zeros(rows, np.int8))}), path, store_schema=False)
    assert path.stat().st_size < 100_000
    before = pa.total_allocated_bytes()
    with pytest.raises(DataError, match=r"train\.parquet: .* bytes that unpack to"):
        source(tmp_path).load()
    assert pa.default_memory_pool().max_memory() - before < 300e6  # 3 GB, if it were read at once


def test_a_table_of_one_packed_value_is_refused_before_it_is_unpacked(tmp_path):
    table(tmp_path, [encoded(0), encoded(1)])
    path = tmp_path / "vision/tiny/train.parquet"
    images = pa.array([encoded(0) + bytes(80_000_000)])
    pq.write_table(pa.table({"image": images, "label": [0]}), path, compression="zstd", use_dictionary=False)
    with pytest.raises(DataError, match=r"train\.parquet: .* bytes that unpack to 80,"):
        source(tmp_path).load()


def test_nested_metadata_of_a_table_are_no_names(tmp_path):
    table(tmp_path, [encoded(0), encoded(1)])
    path = tmp_path / "vision/tiny/train.parquet"
    for text in ("[" * 100_000, json.dumps({"info": {"features": {"label": {"names": "abc"}}}})):
        read = pq.read_table(path).replace_schema_metadata({"huggingface": text})
        pq.write_table(read, path)
        assert source(tmp_path).num_classes == 2


def test_a_pipe_in_place_of_a_table_is_refused_and_not_waited_for(tmp_path):
    ready = table(tmp_path, [encoded(0), encoded(1)])
    (tmp_path / "vision/tiny/train.parquet").unlink()
    os.mkfifo(tmp_path / "vision/tiny/train.parquet")
    with pytest.raises(DataError, match="a named pipe, not a regular file"):
        ready.load()
