"""Recipe of the views of images: presets, strength, overrides of operations; and a picture of the views."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Protocol

import torch
from torch import Tensor
from torch.nn.functional import pad

from sslcollapse.core.errors import RecipeError, suggest
from sslcollapse.core.seeding import generator
from sslcollapse.domains.vision.augment import Augmentation, ViewSettings, plain
from sslcollapse.recipe.schema import Above, Between, Probability

SMALL = 32
"""Side in pixels up to which presets leave out blur, as published settings for CIFAR do."""

_SIMCLR = ViewSettings(jitter=(0.8, 0.8, 0.8, 0.2), jitter_p=0.8, grey=0.2, blur=0.5)
_BYOL = ViewSettings(jitter=(0.4, 0.4, 0.2, 0.1), jitter_p=0.8, grey=0.2)

PRESETS: dict[str, tuple[ViewSettings, ...]] = {
    "simclr": (_SIMCLR,),
    "byol": (replace(_BYOL, blur=1.0), replace(_BYOL, blur=0.1, solarise=0.2)),
    "vicreg": (replace(_BYOL, blur=0.5, solarise=0.1),),
    "weak": (ViewSettings(crop_scale=(0.6, 1.0)),),
}
"""Name → settings of the first view, the second, ...; taken in turns where there are more views."""

RANGES = ("crop_scale", "jitter", "sigma")
PROBABILITIES = ("flip", "jitter_p", "grey", "blur", "solarise")


@dataclass(frozen=True, kw_only=True)
class ImageViews:
    """How the views of an image are made: a preset, scaled by one strength.

    | preset | crop area | jitter (brightness, contrast, saturation, hue; p 0.8) | grey | blur | solarise |
    |---|---|---|---|---|---|
    | ``simclr`` | .08 to 1 | .8 .8 .8 .2 | .2 | .5 | 0 |
    | ``byol`` | .08 to 1 | .4 .4 .2 .1 | .2 | 1 / .1 | 0 / .2 |
    | ``vicreg`` | .08 to 1 | .4 .4 .2 .1 | .2 | .5 | .1 |
    | ``weak`` | .6 to 1 | none | 0 | 0 | 0 |

    Width / height of a crop is 3/4 to 4/3, a mirror image has probability .5. Up to 32 pixels, presets leave out the
    blur, as published settings for CIFAR do; ``blur=`` brings it back. Its kernel is a tenth of the image (23 pixels
    at 224, at least 3). Digits and letters do not stay themselves in a mirror: set ``flip=0`` for them.

    Args:
        preset: ``"simclr"``, ``"byol"``, ``"vicreg"`` or ``"weak"``, one for all views or a list of one a view.
        strength: in [0, 1], scales from the un-augmented image (0) to the full preset (1): probabilities and largest
            changes linearly, crops from the whole image.
        count: views of each image.
        crop_scale: smallest and largest area of a crop, as fractions of the image. This and the following replace
            the preset's; None keeps it.
        flip: probability of a mirror image. A probability is a number for all views or a list of one a view.
        jitter: largest change of brightness, contrast, saturation (factors in 1 ± change) and hue (at most 0.5).
        jitter_p: probability of a jitter.
        grey: probability of no colour.
        blur: probability of a blur.
        sigma: smallest and largest standard deviation of the blur in pixels.
        solarise: probability that values from ½ on are inverted.

    Raises:
        RecipeError: an unknown preset, or a value out of range.

    Source: Chen et al. 2020 (SimCLR), appendix A and B.9; Grill et al. 2020 (BYOL), appendix B; Bardes et al. 2022
    (VICReg), appendix C.
    """

    preset: str | Sequence[str] = "simclr"
    strength: Probability = 1.0
    count: Annotated[int, Between(1, 100)] = 2
    crop_scale: Sequence[Annotated[float, Between(0, 1, open="left")]] | None = None
    flip: Probability | Sequence[Probability] | None = None
    jitter: Sequence[Probability] | None = None
    jitter_p: Probability | Sequence[Probability] | None = None
    grey: Probability | Sequence[Probability] | None = None
    blur: Probability | Sequence[Probability] | None = None
    sigma: Sequence[Annotated[float, Above(0)]] | None = None
    solarise: Probability | Sequence[Probability] | None = None

    def __post_init__(self) -> None:
        if self.count < 1:
            raise RecipeError(f"count: must be >= 1, got {self.count}")
        if not 0.0 <= self.strength <= 1.0:
            raise RecipeError(f"strength: must be in [0, 1], got {self.strength}")
        for name in self._each("preset"):
            if name not in PRESETS:
                near = suggest(name, list(PRESETS))
                raise RecipeError(f"preset: unknown preset {name!r}{near} (known: {', '.join(PRESETS)})")
        for field in PROBABILITIES:
            for p in self._each(field):
                if p is not None and not 0.0 <= p <= 1.0:
                    raise RecipeError(f"{field}: must be a probability in [0, 1], got {p}")
        if self.crop_scale is not None:
            _check_range("crop_scale", self.crop_scale)
            if self.crop_scale[1] > 1.0:
                raise RecipeError(
                    f"crop_scale: a crop cannot be larger than the image, got {list(self.crop_scale)}; "
                    "use two fractions of its area, at most 1"
                )
        if self.sigma is not None:
            _check_range("sigma", self.sigma)
        if self.jitter is not None and not (
            len(self.jitter) == 4 and all(0.0 <= change <= 1.0 for change in self.jitter) and self.jitter[3] <= 0.5
        ):
            raise RecipeError(
                "jitter: needs the largest change of brightness, contrast, saturation, each in [0, 1], and of hue in "
                f"[0, 0.5], got {list(self.jitter)}"
            )

    def augmentations(
        self, size: int, channels: int, mean: Sequence[float], std: Sequence[float]
    ) -> list[Augmentation]:
        """One a view, for square views of ``size`` pixels.

        Raises:
            DataError: see ``Augmentation``.
        """
        return [Augmentation(settings, size, channels, mean, std) for settings in self.settings(size)]

    def settings(self, size: int) -> list[ViewSettings]:
        """What each view does at ``size`` pixels."""
        made = []
        for view, preset in enumerate(self._each("preset")):
            turns = PRESETS[preset]
            changes: dict[str, Any] = {}
            for field in RANGES:
                changes[field] = None if getattr(self, field) is None else tuple(getattr(self, field))
            for field in PROBABILITIES:
                changes[field] = self._each(field)[view]
            if size <= SMALL and self.blur is None:
                changes["blur"] = 0.0
            given = {field: value for field, value in changes.items() if value is not None}
            made.append(replace(turns[view % len(turns)], **given).scaled(self.strength))
        return made

    def _each(self, field: str) -> list[Any]:
        """The value of a field for each view."""
        value = getattr(self, field)
        if value is None or isinstance(value, (str, int, float)):
            return [value] * self.count
        if len(value) != self.count:
            raise RecipeError(f"{field}: needs one value, or one for each of {self.count} views, got {list(value)}")
        return list(value)


def _check_range(name: str, values: Sequence[float]) -> None:
    if len(values) != 2 or not 0.0 < values[0] <= values[1]:
        raise RecipeError(f"{name}: needs a smallest and a largest value above 0, got {list(values)}")


PADDING = 2
"""Pixels between pictures."""

LEGIBLE = 64
"""Smaller pictures are magnified by a whole number to about this many pixels."""


class MakesViews(Protocol):
    """What makes one view: ``Augmentation``, or that of another library."""

    size: int

    def __call__(self, images: Tensor, rng: torch.Generator) -> Tensor:
        """uint8 [B, C, H, W] → normalised float32 [B, C, size, size]."""
        ...


def contact_sheet(
    images: Tensor,
    augmentations: Sequence[MakesViews],
    mean: Sequence[float],
    std: Sequence[float],
    path: Path,
    seed: int,
    draws: int = 4,
) -> None:
    """Write a PNG with one row a sample: the un-augmented image, then ``draws`` of the first view, of the second, ...

    Args:
        images: uint8 [B, C, H, W], a few.
        augmentations: of the views; smaller ones get a frame.
        mean: with which they normalise.
        std: likewise.
        path: of the picture; its folder is made.
        seed: of the draws.
        draws: pictures of each view.
    """
    from torchvision.utils import save_image

    size = max(augmentation.size for augmentation in augmentations)
    columns = [plain(images, size, mean, std)]
    for view, augmentation in enumerate(augmentations):
        columns += [
            _framed(augmentation(images, generator(torch.device("cpu"), "sheet", seed, draw, view)), size)
            for draw in range(draws)
        ]
    rows = torch.stack(columns, 1).flatten(0, 1)  # [B × columns, C, size, size]
    zoom = max(1, LEGIBLE // rows.shape[-1])
    rows = rows.repeat_interleave(zoom, 2).repeat_interleave(zoom, 3)
    shift, scale = (torch.tensor(values, device=rows.device)[:, None, None] for values in (mean, std))
    path.parent.mkdir(parents=True, exist_ok=True)
    save_image(
        (rows * scale + shift).clamp(0, 1), path, format="png", nrow=len(columns), padding=PADDING, pad_value=1.0
    )


def _framed(views: Tensor, size: int) -> Tensor:
    """[B, C, s, s] in the middle of [B, C, size, size]."""
    left, right = (size - views.shape[-1]) // 2, (size - views.shape[-1] + 1) // 2
    return pad(views, (left, right, left, right)) if right else views
