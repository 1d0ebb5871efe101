"""Encoded images → uint8 tensors of one shape and mode."""

from __future__ import annotations

import io
import os
from abc import ABC, abstractmethod
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from sslcollapse.core.errors import DataError

Mode = Literal["RGB", "L"]
CHANNELS = {"RGB": 3, "L": 1}
FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "BMP", "GIF", "JPEG2000", "MPO", "PPM", "TIFF")
"""Pillow's names of what is read. It knows more, some of which it hands to other programs (EPS to Ghostscript)."""

DEEP_MODES = ("I", "F")
"""Pillow's modes of more than 8 bits (also "I;16" and the like), which converting to 8 bits would clip."""


class EncodedImages(ABC):
    """Images that stay encoded and are decoded when rows are read.

    Args:
        count: number of images N.
        size: height and width of the decoded images.
        mode: "RGB" or "L" (grey); images of other modes are converted.
        resize: whether images of another size are resized, or refused.
    """

    def __init__(self, count: int, size: int, mode: Mode, resize: bool) -> None:
        self.count, self.size, self.mode, self.resize = count, size, mode, resize

    @abstractmethod
    def encoded(self, row: int) -> bytes:
        """The encoded image; DataError where it is missing."""

    @abstractmethod
    def place(self, row: int) -> str:
        """Where the image is, for messages."""

    def __len__(self) -> int:
        return self.count

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of every decoded image."""
        return CHANNELS[self.mode], self.size, self.size

    def read(self, rows: Tensor, threads: int = 1) -> Tensor:
        """Images at rows [B], uint8 [B, C, size, size].

        Raises:
            DataError: an image is corrupt, or of another size where images are not resized; names its place.
        """
        result = torch.empty((len(rows), *self.shape), dtype=torch.uint8)
        slots = list(enumerate(rows.tolist()))
        if threads <= 1:
            self._fill(result, slots)
            return result
        blocks = [slots[start : start + 64] for start in range(0, len(slots), 64)]
        with ThreadPoolExecutor(threads) as pool:
            for _ in pool.map(lambda block: self._fill(result, block), blocks):
                pass
        return result

    def _fill(self, result: Tensor, slots: list[tuple[int, int]]) -> None:
        target = result.numpy()  # of small images, copying costs less through NumPy
        for slot, row in slots:
            pixels = decode(self.encoded(row), self.mode, self.size, self.place(row), resize=self.resize)
            target[slot] = pixels.numpy()


def decode(data: bytes, mode: Mode, size: int, place: str, *, resize: bool = True) -> Tensor:
    """One image as uint8 [C, size, size].

    An image of another size is scaled (bilinear, antialiased) until its shorter side is ``size`` and the middle is cut
    out, or refused without ``resize``. The size is that of the image's header, compared before anything is decoded.

    Raises:
        DataError: the bytes are no readable image, one of another or too large a size, or of more than 8 bits a
            channel; starts with ``place``.
    """
    if _jpeg_size(data) == (size, size):
        pixels = _decode_jpeg(data)
        if pixels is not None and pixels.shape[0] == CHANNELS[mode]:
            return pixels
    return _decode_with_pillow(data, mode, size, place, resize)


def probe_size(data: bytes, place: str) -> tuple[int, int]:
    """Width and height of an encoded image, from its header.

    Raises:
        DataError: the bytes are no readable image, or one of too large a size; starts with ``place``.
    """
    try:
        with _opened(data) as image:
            width, height = image.size
            _check_pixels(width, height, place)
            return width, height
    except DataError:
        raise
    except Exception as error:
        raise DataError(_unreadable(place, error)) from error


def decoding_threads() -> int:
    """Threads to decode a whole dataset with: as many as cores, at most 16."""
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(16, available)


@cache
def _jpeg_operator() -> Any:
    """torchvision's JPEG operator, or None where this torchvision has none.

    It gives Pillow's pixels in a third of the time. Its Python wrapper is deprecated and warns at every image.
    """
    try:
        import torchvision.io  # noqa: F401  (registers the operator)

        return torch.ops.image.decode_jpeg
    except (ImportError, AttributeError):
        return None


def _decode_jpeg(data: bytes) -> Tensor | None:
    operator = _jpeg_operator()
    try:
        return operator and operator(torch.frombuffer(bytearray(data), dtype=torch.uint8), 0, False)
    except RuntimeError:  # damaged, perhaps: Pillow has the last word
        return None


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    """Width and height in the header of a JPEG; None where the header is not plain, so that Pillow has to tell."""
    if data[:2] != b"\xff\xd8":
        return None
    place = 2
    while place + 9 <= len(data) and data[place] == 0xFF:
        marker = data[place + 1]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # start of a frame, but three are tables
            height, width = (int.from_bytes(data[start : start + 2], "big") for start in (place + 5, place + 7))
            return width, height
        if marker in (0x01, 0xDA, 0xFF) or 0xD0 <= marker <= 0xD9:  # no segment with a length
            return None
        place += 2 + int.from_bytes(data[place + 2 : place + 4], "big")
    return None


def _opened(data: bytes) -> Any:
    """The image, of which Pillow has read the header."""
    from PIL import Image

    return Image.open(io.BytesIO(data), formats=_formats())


@cache
def _formats() -> list[str]:
    """Those of ``FORMATS`` that this Pillow has."""
    from PIL import Image

    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]


def _check_pixels(width: int, height: int, place: str) -> None:
    from PIL import Image

    most = Image.MAX_IMAGE_PIXELS
    if most is not None and width * height > most:
        raise DataError(
            f"{place}: the image says that it is {width}x{height}, more than {most:,} pixels; replace or remove it (if "
            "it is yours, raise PIL.Image.MAX_IMAGE_PIXELS in the recipe)"
        )


def _decode_with_pillow(data: bytes, mode: Mode, size: int, place: str, resize: bool) -> Tensor:
    from PIL import Image

    try:
        with _opened(data) as opened:
            width, height = opened.size
            _check_pixels(width, height, place)
            if not resize and (width, height) != (size, size):
                raise DataError(
                    f"{place}: the image is {width}x{height} where others are {size}x{size}; give the dataset a size "
                    "to resize all images to"
                )
            if opened.mode.split(";")[0] in DEEP_MODES:
                raise DataError(
                    f"{place}: the image has more than 8 bits a channel (mode {opened.mode}); save it with 8 bits"
                )
            if resize:
                opened.draft(mode, (2 * size, 2 * size))  # a JPEG far larger is scaled while it is decoded
            image = opened.convert(mode)
    except DataError:
        raise
    except Exception as error:  # Pillow's plugins raise anything from OSError to struct.error
        raise DataError(_unreadable(place, error)) from error
    if image.size != (size, size):
        width, height = image.size
        scale = size / min(width, height)
        scaled = max(size, round(width * scale)), max(size, round(height * scale))
        _check_pixels(scaled[0], scaled[1], f"{place}, scaled to a shorter side of {size}")  # a thin one grows
        image = image.resize(scaled, Image.Resampling.BILINEAR)
        left, top = (scaled[0] - size) // 2, (scaled[1] - size) // 2
        image = image.crop((left, top, left + size, top + size))
    array = np.array(image)
    return torch.from_numpy(array).permute(2, 0, 1) if array.ndim == 3 else torch.from_numpy(array)[None]


def _unreadable(place: str, error: Exception) -> str:
    text = str(error).partition("\n")[0].replace("<_io.BytesIO object at ", "").partition(" 0x")[0]
    return f"{place}: not a readable image ({type(error).__name__}: {text}); replace or remove it"
