"""Operations on batches of images, each sample with parameters of its own.

Pure functions: images [B, C, H, W] and parameters [B] in, new images out, on the images' device and without a
copy to the host. Every one agrees with ``torchvision.transforms.functional`` on float tensors for equal
parameters: the crop to 2e-6, hue to 1e-5, the others to 1e-6, for values in [0, 1].
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from sslcollapse.core.errors import DataError
from sslcollapse.core.memory import onto

LUMA = (0.2989, 0.587, 0.114)
"""Weights of red, green and blue in grey (ITU-R BT.601), as torchvision rounds them."""

BRIGHTNESS, CONTRAST, SATURATION = 0, 1, 2
"""What ``blend`` can do to a sample."""

_TINY = 1e-12

_NOTHING = 1e-30
"""Weights of a blur below this are left out: they change no value that is not as small."""


def resized_crop(images: Tensor, box: Tensor, size: int, flip: Tensor | None = None) -> Tensor:
    """Cut a box out of each image and resize it, bilinear with antialiasing; float32 in [0, 1] from uint8.

    Resizing is separable, so a crop, its resizing and its flip are two small matrices a sample:
    ``out = Y @ image @ X.T``. Values outside the box do not enter, as if it had been cut out first.

    Args:
        images: uint8, or floating point, whose values are kept.
        box: [4, B] integers on the host: top, left, height, width.
        size: side of the square result.
        flip: [B] bool, which samples are mirrored left to right.

    Shapes: [B, C, H, W] → [B, C, size, size].

    Raises:
        DataError: a box that is empty or reaches beyond the image.
    """
    check_box(box, *images.shape[-2:])
    return crop_of(images, onto(images.device, box.float()), size, flip)


def crop_of(images: Tensor, box: Tensor, size: int, flip: Tensor | None = None) -> Tensor:
    """``resized_crop`` with boxes that have been checked and are, as floats, where the images are.

    Shapes: [B, C, H, W], [4, B] → [B, C, size, size].
    """
    H, W = images.shape[-2:]
    scale = 1.0 if images.is_floating_point() else 1 / 255
    top, left, height, width = box
    rows = resizing_matrix(top, height, size, H, antialias=size < H, scale=scale)
    columns = resizing_matrix(left, width, size, W, antialias=size < W, mirror=flip)
    return separable(images.float(), rows, columns)


def crop_by_sample(images: Tensor, samples: Tensor, box: Tensor, size: int, flip: Tensor | None = None) -> Tensor:
    """``crop_of`` of some uint8 images on the host, resized one by one and rounded to bytes, as Pillow does.

    The work of a matrix of a whole axis grows with the cube of the side, this with its square.

    Args:
        images: uint8.
        samples: which of them.
        box: [4, B] of these samples.
        size: side of the square result, at least 2.
        flip: [B] bool, which samples are mirrored left to right.

    Shapes: [N, C, H, W], [B], [4, B] → [B, C, size, size] float32 in [0, 1].
    """
    made = torch.empty(len(samples), images.shape[1], size, size, dtype=torch.uint8)
    mirrored = [False] * len(samples) if flip is None else flip.tolist()
    boxes = box.long().T.tolist()
    for place, (row, (top, left, h, w), mirror) in enumerate(zip(samples.tolist(), boxes, mirrored, strict=True)):
        part = images[row : row + 1, :, top : top + h, left : left + w]
        resized = interpolate(part, (size, size), mode="bilinear", antialias=True)[0]
        made[place] = resized.flip(2) if mirror else resized
    return made.float().mul_(1 / 255)


def check_box(box: Tensor, height: int, width: int) -> None:
    """Raise DataError unless every box [4, B] (top, left, height, width) lies within the image."""
    start, length = box[:2], box[2:]
    room = torch.tensor([[height], [width]]) - start - length
    if min(int(start.min()), int(length.min()) - 1, int(room.min())) >= 0:
        return
    for top, left, h, w in box.T.tolist():
        if min(top, left, h - 1, w - 1, height - top - h, width - left - w) < 0:
            raise DataError(
                f"a crop of {h}×{w} pixels from row {top}, column {left} on is empty or larger than the image of "
                f"{height}×{width}; use boxes within the image"
            )


def resizing_matrix(
    start: Tensor,
    length: Tensor,
    size: int,
    extent: int,
    *,
    antialias: bool,
    mirror: Tensor | None = None,
    scale: float = 1.0,
) -> Tensor:
    """Matrices that resize ``length`` pixels from ``start`` of an axis of ``extent`` pixels to ``size``.

    Row i holds the triangle ``max(0, 1 − |j + ½ − c_i| / s)`` around ``c_i = start + (i + ½) length / size``, of
    half-width ``s = max(1, length / size)``, cut off at the ends of the box and divided by its sum.

    Args:
        start: [B], float.
        length: [B], float.
        size: pixels of the result.
        extent: pixels of the axis.
        antialias: False where no length exceeds ``size``; the same matrices, made with less work.
        mirror: [B] bool, whose rows come in reverse order.
        scale: factor on all of them.

    Shapes: [B] → [B, size, extent].
    """
    start, length = start[:, None], length[:, None]
    i = torch.arange(size, device=start.device) + 0.5
    j = torch.arange(extent, device=start.device) + 0.5
    centre = torch.addcmul(start, length / size, i)  # [B, size]
    if mirror is not None:
        centre = torch.where(onto(centre.device, mirror)[:, None], centre.flip(1), centre)
    if not antialias:
        # With half-width 1, cutting off and dividing is the same as moving the centre to the nearest pixel's.
        centre = torch.minimum(torch.maximum(centre, start + 0.5), start + length - 0.5)
        return (centre[:, :, None] - j).abs_().mul_(-scale).add_(scale).clamp_min_(0.0)
    inverse = (size / length).clamp_max(1.0)
    weight = (centre[:, :, None] - j).abs_().mul_(-inverse[:, :, None]).add_(1.0).clamp_min_(0.0)
    inside = ((j > start) & (j < start + length)).to(weight.dtype)  # [B, extent]
    weight.mul_(inside[:, None])
    return weight.mul_(scale / weight.sum(2, keepdim=True))


def separable(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """``rows @ image @ columns.T`` for every sample and channel.

    Shapes: [B, C, H, W], [B, S, H], [B, S', W] → [B, C, S, S'].
    """
    B, C, H, W = images.shape
    wide = torch.bmm(images.reshape(B, C * H, W), columns.transpose(1, 2)).view(B, C, H, -1)
    return torch.matmul(rows[:, None], wide)


def grey(images: Tensor) -> Tensor:
    """Brightness of each pixel: 0.2989 R + 0.587 G + 0.114 B, or the only channel.

    Shapes: [B, C, H, W] → [B, H, W].
    """
    if images.shape[1] == 1:
        return images[:, 0].clone()
    red, green, blue = images.unbind(1)
    return (red * LUMA[0]).add_(green, alpha=LUMA[1]).add_(blue, alpha=LUMA[2])


def greyscale(images: Tensor) -> Tensor:
    """Every channel replaced by the brightness of the pixel.

    Shapes: [B, C, H, W] → the same (expanded, without a copy).
    """
    return grey(images)[:, None].expand_as(images)


def blend(images: Tensor, kind: Tensor, factor: Tensor, out: Tensor | None = None) -> Tensor:
    """Brightness, contrast or saturation, each sample its own: ``clamp(f x + (1 − f) t, 0, 1)``.

    The three differ in what they blend with only: t is black (brightness), the mean of the grey image
    (contrast) or the grey image (saturation), so that a batch takes one step whatever each sample's order is.

    Args:
        images: values in [0, 1].
        kind: [B], ``BRIGHTNESS``, ``CONTRAST`` or ``SATURATION``.
        factor: [B], 1 leaves the image as it is.
        out: where the result goes; may be ``images``.

    Shapes: [B, C, H, W] → the same.
    """
    rest = 1.0 - factor
    target = grey(images)
    mean = target.mean((1, 2)) * (rest * (kind == CONTRAST))
    target = target.mul_((rest * (kind == SATURATION))[:, None, None]).add_(mean[:, None, None])
    return torch.addcmul(target[:, None], images, factor[:, None, None, None], out=out).clamp_(0.0, 1.0)


def shift_hue(images: Tensor, shift: Tensor, out: Tensor | None = None) -> Tensor:
    """Turn the hue by ``shift`` of the colour circle, as in HSV, without leaving RGB.

    With V the largest and m the smallest channel, C = V − m, the hue in sixths of the circle from red is
    ``w = ± (C + G + B − R − m) / C``, negative where B > G. After the shift, with w in [-3, 3]:
    ``R = m + C clamp(2 − |w|)``, ``G = m + C clamp(|w + 1| − 1)``, ``B = m + C clamp(|w − 1| − 1)``, clamped to
    [0, 1]. There is nothing to select by comparison, which on a CPU costs many times an addition.

    Args:
        images: three channels in [0, 1].
        shift: [B], in [-0.5, 0.5].
        out: where the result goes; may be ``images``.

    Shapes: [B, 3, H, W] → the same.
    """
    red, green, blue = images.unbind(1)
    smallest = torch.minimum(red, green)
    torch.minimum(smallest, blue, out=smallest)
    chroma = torch.maximum(red, green)
    torch.maximum(chroma, blue, out=chroma).sub_(smallest)
    side = green - blue
    hue = torch.add(green, blue).sub_(red).sub_(smallest).add_(chroma).div_(chroma.clamp_min(_TINY))
    hue.copysign_(side).add_(6.0 * shift[:, None, None])
    turns = torch.mul(hue, 1 / 6, out=side).round_()
    hue.sub_(turns, alpha=6.0)
    out = torch.empty_like(images) if out is None else out
    share = torch.abs(hue, out=turns).neg_().add_(2.0).clamp_(0.0, 1.0)
    torch.addcmul(smallest, chroma, share, out=out[:, 0])
    for channel, centre in ((1, -1.0), (2, 1.0)):
        torch.sub(hue, centre, out=share).abs_().sub_(1.0).clamp_(0.0, 1.0)
        torch.addcmul(smallest, chroma, share, out=out[:, channel])
    return out


def gaussian_blur(images: Tensor, sigma: Tensor, kernel: int) -> Tensor:
    """Convolution with a normal density cut off at ``kernel`` pixels, the image reflected at its borders.

    Args:
        images: floating point.
        sigma: [B], standard deviation in pixels.
        kernel: odd number of pixels.

    Shapes: [B, C, H, W] → the same.

    Raises:
        ValueError: a kernel that is even, or whose half is not smaller than the image.
    """
    H, W = images.shape[-2:]
    half = kernel // 2
    if kernel % 2 == 0 or half >= min(H, W):
        raise ValueError(f"kernel must be odd and less than twice the image of {H}×{W}, got {kernel}")
    x = torch.arange(-half, half + 1, device=images.device)
    density = torch.exp(-0.5 * (x / sigma[:, None]).square())  # [B, kernel]
    # Far from the middle a narrow density has numbers so small that processors take many times as long for each.
    density = torch.where(density < _NOTHING, 0.0, density)
    density = density / density.sum(1, keepdim=True)
    rows = _blur_matrix(density, H)
    return separable(images, rows, rows if H == W else _blur_matrix(density, W))


def _blur_matrix(density: Tensor, extent: int) -> Tensor:
    """Rows of a convolution with reflected borders: [B, kernel] → [B, extent, extent]."""
    half = density.shape[1] // 2
    i = torch.arange(extent, device=density.device)[:, None]
    source = (i + torch.arange(-half, half + 1, device=density.device)).abs()  # [extent, kernel]
    source = (extent - 1) - ((extent - 1) - source).abs()
    matrix = density.new_zeros(density.shape[0], extent, extent)
    return matrix.scatter_add_(2, source.expand(density.shape[0], -1, -1), density[:, None].expand(-1, extent, -1))


def solarise(images: Tensor, threshold: float = 0.5) -> Tensor:
    """Invert the values from the threshold on.

    Shapes: [B, C, H, W] in [0, 1] → the same.
    """
    return torch.where(images >= threshold, 1.0 - images, images)


def normalise(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """``(x − mean) / std`` of each channel.

    Shapes: [B, C, H, W] → the same.
    """
    return scaled(images, onto(images.device, shift_and_scale(mean, std, images.dtype)))


def shift_and_scale(mean: Sequence[float], std: Sequence[float], dtype: torch.dtype = torch.float32) -> Tensor:
    """What ``scaled`` needs to normalise.

    Shapes: [2, C].
    """
    return torch.tensor([mean, [1 / value for value in std]], dtype=dtype)


def scaled(images: Tensor, by: Tensor) -> Tensor:
    """``(x − shift) · scale`` of each channel, with numbers that are where the images are.

    Shapes: [B, C, H, W], [2, C] → [B, C, H, W].
    """
    shift, scale = by
    return (images - shift[:, None, None]).mul_(scale[:, None, None])
