"""One view of a batch of images: parameters drawn for every sample, then whole-batch operations.

The parameters, a few numbers a sample, are drawn on the host. So the same generator gives the same views on every
device, the host knows which samples an operation concerns without waiting for the device, and samples that it does not
concern cost nothing. What the device needs of them is a list of tensors, which a domain sends there for all views of a
batch at once.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from itertools import accumulate

import torch
from torch import Tensor

from sslcollapse.core.errors import DataError
from sslcollapse.core.memory import onto_together
from sslcollapse.domains.vision import operations as ops

ATTEMPTS = 10
"""Boxes drawn for a sample before the largest central one is taken, as in torchvision."""

CHUNK = 1 << 20
"""Values that the operations work on at a time on a CPU: what its caches hold."""

LARGE = 128
"""Side of images or views in pixels from which on a CPU crops them one by one; below, matrices are faster."""


@dataclass(frozen=True, kw_only=True)
class ViewSettings:
    """What one view does to an image, in this order: crop, flip, jitter, grey, blur, solarise.

    Args:
        crop_scale: range of the area of the crop, as a fraction of the image's.
        crop_ratio: range of width / height of the crop.
        crop_relative: weight in [0, 1] of the image's own width / height in place of a crop's; with 1 and a
            scale of 1 the crop is the whole image.
        flip: probability of a mirror image.
        jitter: largest change of brightness, contrast, saturation and hue.
        jitter_p: probability of a jitter.
        grey: probability of no colour.
        blur: probability of a blur.
        sigma: range of the blur's standard deviation in pixels.
        solarise: probability that values from ½ on are inverted.
    """

    crop_scale: tuple[float, float] = (0.08, 1.0)
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    crop_relative: float = 0.0
    flip: float = 0.5
    jitter: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    jitter_p: float = 0.0
    grey: float = 0.0
    blur: float = 0.0
    sigma: tuple[float, float] = (0.1, 2.0)
    solarise: float = 0.0

    def scaled(self, strength: float) -> ViewSettings:
        """From nothing but the whole image at 0 to these settings at 1, each part monotone in between.

        The smallest area, probabilities and largest changes go linearly, width / height geometrically from the
        image's own.
        """
        brightness, contrast, saturation, hue = self.jitter
        return replace(
            self,
            crop_scale=(
                strength * self.crop_scale[0] + (1 - strength),
                strength * self.crop_scale[1] + (1 - strength),
            ),
            crop_relative=strength * self.crop_relative + (1 - strength),
            flip=strength * self.flip,
            jitter=(strength * brightness, strength * contrast, strength * saturation, strength * hue),
            jitter_p=strength * self.jitter_p,
            grey=strength * self.grey,
            blur=strength * self.blur,
            solarise=strength * self.solarise,
        )


@dataclass(frozen=True, kw_only=True)
class ViewParameters:
    """What happens to each of B samples; tensors on the host.

    Shapes:
        box: [4, B] int64, top, left, height and width of the crop.
        flip, jitter, grey, blur, solarise: [B] bool.
        order: [3, B] which of brightness, contrast, saturation comes first, second, third.
        hue_position: [B] how many of them come before the hue.
        factors: [3, B] of brightness, contrast, saturation.
        hue: [B] shift of the hue.
        sigma: [B] of the blur.
    """

    box: Tensor
    flip: Tensor
    jitter: Tensor
    order: Tensor
    hue_position: Tensor
    factors: Tensor
    hue: Tensor
    grey: Tensor
    blur: Tensor
    sigma: Tensor
    solarise: Tensor

    def of(self, samples: Tensor) -> ViewParameters:
        """Those of some samples, whose positions are [B'] integers."""
        return ViewParameters(
            **{field.name: getattr(self, field.name).index_select(-1, samples) for field in fields(self)}
        )


@dataclass(frozen=True)
class Prepared:
    """A view that is drawn, and only has to be made.

    Attributes:
        counts: numbers of samples in order: how many turn their hue before the first, second and third blend, after
            it, never.
        tensors: what the operations read, see ``Augmentation.prepare``; on the host, or where the images are.
    """

    counts: tuple[int, ...]
    tensors: tuple[Tensor, ...]

    def of(self, tensors: Iterable[Tensor]) -> Prepared:
        """The same view, from these copies of its tensors on another device."""
        return Prepared(self.counts, tuple(tensors))


class Augmentation:
    """Makes one view of a batch of images, with parameters of its own for each sample.

    Brightness, contrast, saturation and hue follow one another in an order drawn for each sample. One channel has no
    hue, saturation or grey: they are left out.

    Args:
        settings: what the view does.
        size: side of the square views in pixels.
        channels: 1 or 3.
        mean: of each channel of the data in [0, 1].
        std: of each channel.

    Raises:
        DataError: a number of channels that mean and std do not have, or colour operations for neither 1 nor 3.
    """

    def __init__(
        self, settings: ViewSettings, size: int, channels: int, mean: Sequence[float], std: Sequence[float]
    ) -> None:
        if not len(mean) == len(std) == channels:
            raise DataError(f"mean and std need a number for each of {channels} channels, got {len(mean)}, {len(std)}")
        coloured = settings.jitter_p > 0 or settings.grey > 0
        if coloured and channels not in (1, 3):
            raise DataError(
                f"colour jitter and greyscale need images of 1 or 3 channels, got {channels}; "
                "set jitter_p=0 and grey=0 in domain.views"
            )
        self.settings, self.size, self.channels = settings, size, channels
        self.mean, self.std = tuple(mean), tuple(std)
        # Published for 224 pixels: 23, a tenth of the image; 1 would blur nothing.
        self.kernel = 2 * max(1, size // 20) + 1

    def __call__(self, images: Tensor, rng: torch.Generator) -> Tensor:
        """A view of each image.

        Args:
            images: uint8 [B, C, H, W].
            rng: best on the CPU wherever the images are; from another device, its draws are waited for.

        Returns:
            Normalised float32 [B, C, size, size] on the images' device.
        """
        check_images(images, self.channels)
        samples, _, height, width = images.shape
        return self.apply(images, self.draw(samples, height, width, rng))

    def draw(self, samples: int, height: int, width: int, rng: torch.Generator) -> ViewParameters:
        """Parameters of ``samples`` views of images of this size."""
        s = self.settings
        drawn = torch.rand(2 * ATTEMPTS + 16, samples, generator=rng, device=rng.device).cpu()
        shapes, places, turns, changes, sigma, chosen = drawn.split((2 * ATTEMPTS, 2, 4, 4, 1, 5))
        changes = (2 * changes - 1) * torch.tensor(s.jitter)[:, None]
        return ViewParameters(
            box=random_box(shapes.view(2, ATTEMPTS, samples), places, height, width, s),
            flip=chosen[0] < s.flip,
            jitter=chosen[1] < s.jitter_p,
            order=turns[:3].argsort(0),
            hue_position=(turns[:3] < turns[3]).sum(0),
            factors=1 + changes[:3],
            hue=changes[3],
            grey=chosen[2] < s.grey,
            blur=chosen[3] < s.blur,
            sigma=s.sigma[0] + (s.sigma[1] - s.sigma[0]) * sigma[0],
            solarise=chosen[4] < s.solarise,
        )

    def apply(self, images: Tensor, parameters: ViewParameters) -> Tensor:
        """The views with these parameters; what becomes of a sample does not depend on the others."""
        height, width = images.shape[-2:]
        if images.device.type != "cpu":
            prepared = self.prepare(parameters, height, width)
            return self.make(images, prepared.of(onto_together(images.device, prepared.tensors)))
        # Chunks stay in a processor's cache from the crop to the normalised view.
        chunk = max(1, CHUNK // (self.channels * max(self.size**2, height * width)))
        if chunk >= len(images):
            return self.make(images, self.prepare(parameters, height, width))
        out = torch.empty(len(images), self.channels, self.size, self.size)
        for some in torch.arange(len(images)).split(chunk):
            part = slice(int(some[0]), int(some[-1]) + 1)
            self.make(images[part], self.prepare(parameters.of(some), height, width), out[part])
        return out

    def prepare(self, p: ViewParameters, height: int, width: int) -> Prepared:
        """What views with these parameters of images of this size are made from, on the host.

        Samples are sorted by how many blends come before their hue, those without jitter last, so that every step of
        the jitter works on one slice.

        Raises:
            DataError: a box that is empty or reaches beyond the image.
        """
        sections = torch.where(p.jitter, p.hue_position, 4)
        order = sections.argsort(stable=True)
        counts = torch.bincount(sections, minlength=5).tolist()
        ops.check_box(p.box, height, width)
        p = p.of(order)
        blurred = p.blur.nonzero().flatten()
        tensors = (
            torch.stack([order, order.argsort()]),
            p.box.float(),
            p.flip,
            p.order,
            p.factors.gather(0, p.order),
            p.hue,
            p.grey.nonzero().flatten(),
            blurred,
            p.sigma[blurred],
            p.solarise.nonzero().flatten(),
            ops.shift_and_scale(self.mean, self.std),
        )
        return Prepared(tuple(counts), tensors)

    def make(self, images: Tensor, prepared: Prepared, out: Tensor | None = None) -> Tensor:
        """The views that were prepared, of uint8 images [B, C, H, W] that are where the prepared tensors are."""
        (there, back), box, flip, kinds, factors, hue, grey, blur, sigma, solarise, statistics = prepared.tensors
        mirrored = flip if self.settings.flip > 0 else None
        # Torch has an assertion that fails where the result is a single pixel.
        if images.device.type == "cpu" and max(self.size, *images.shape[-2:]) >= LARGE and self.size > 1:
            x = ops.crop_by_sample(images, there, box, self.size, mirrored)
        else:
            x = ops.crop_of(images.index_select(0, there), box, self.size, mirrored)
        self._jitter(x, kinds, factors, hue, prepared.counts)
        if self.channels == 3 and len(grey):
            x.index_copy_(0, grey, ops.greyscale(x.index_select(0, grey)))
        if len(blur):
            x.index_copy_(0, blur, ops.gaussian_blur(x.index_select(0, blur), sigma, self.kernel))
        if len(solarise):
            x.index_copy_(0, solarise, ops.solarise(x.index_select(0, solarise)))
        return torch.index_select(ops.scaled(x, statistics), 0, back, out=out)

    def _jitter(self, x: Tensor, kinds: Tensor, factors: Tensor, hue: Tensor, counts: Sequence[int]) -> None:
        """Jitter in place; ``counts`` samples turn their hue before the first, second, third blend, after it, never."""
        first, second, third, end = accumulate(counts[:4])
        if end == 0:
            return

        def blend(place: int, samples: slice) -> None:
            some = x[samples]
            if len(some) and any(self.settings.jitter[:3]):
                ops.blend(some, kinds[place, samples], factors[place, samples], out=some)

        for place, start in enumerate((first, second, third)):
            blend(place, slice(start, end))
        if self.channels == 3 and self.settings.jitter[3] > 0:
            ops.shift_hue(x[:end], hue[:end], out=x[:end])
        for place, stop in enumerate((first, second, third)):
            blend(place, slice(0, stop))


def random_box(shapes: Tensor, places: Tensor, height: int, width: int, settings: ViewSettings) -> Tensor:
    """Boxes of random area, width / height and place, from numbers drawn in [0, 1).

    Area uniform, width / height log-uniform, sides rounded; the first attempt that fits into the image counts, else
    the largest central box whose width / height is in range (Szegedy et al. 2015, as torchvision has it).

    Shapes: [2, attempts, B], [2, B] → [4, B] int64: top, left, height, width.
    """
    low, high = settings.crop_scale
    own, weight = math.log(width / height), settings.crop_relative
    narrow, wide = (weight * own + (1 - weight) * math.log(ratio) for ratio in settings.crop_ratio)
    area = height * width * (low + (high - low) * shapes[0])
    ratio = torch.exp(narrow + (wide - narrow) * shapes[1])
    w, h = (area * ratio).sqrt_().round_(), (area / ratio).sqrt_().round_()  # [attempts, B]
    fits = (w > 0) & (w <= width) & (h > 0) & (h <= height)
    first = fits.to(torch.int8).argmax(0, keepdim=True)
    largest_h, largest_w = float(height), float(width)
    if own < narrow:
        largest_h = max(1.0, round(width / math.exp(narrow)))
    elif own > wide:
        largest_w = max(1.0, round(height * math.exp(wide)))
    found = fits.any(0)
    h = torch.where(found, h.gather(0, first)[0], largest_h)
    w = torch.where(found, w.gather(0, first)[0], largest_w)
    top = torch.where(found, (places[0] * (height - h + 1)).floor_(), (height - h).div_(2).floor_())
    left = torch.where(found, (places[1] * (width - w + 1)).floor_(), (width - w).div_(2).floor_())
    return torch.stack([top.minimum(height - h), left.minimum(width - w), h, w]).long()


def plain(images: Tensor, size: int, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """The images un-augmented: resized to size × size where they are not, normalised.

    Shapes: uint8 [B, C, H, W] → float32 [B, C, size, size].
    """
    check_images(images, len(mean))
    B, _, H, W = images.shape
    if H == W == size:
        return ops.normalise(images.float().div_(255), mean, std)
    box = torch.tensor([0, 0, H, W])[:, None].expand(4, B)
    return ops.normalise(ops.resized_crop(images, box, size), mean, std)


def check_images(images: Tensor, channels: int) -> None:
    """Raise DataError unless these are uint8 [B, channels, H, W]."""
    if images.dtype != torch.uint8 or images.dim() != 4 or images.shape[1] != channels or 0 in images.shape:
        raise DataError(
            f"views are made of uint8 images [B, {channels}, H, W], got {images.dtype} {list(images.shape)}; "
            "convert the images when they are read"
        )
