"""Adapter to the transforms of torchvision, for views that the fast ones of this package do not have."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import torch
from torch import Tensor

from sslcollapse.core.errors import RecipeError, in_words, suggest
from sslcollapse.core.seeding import seed_default
from sslcollapse.domains.vision import operations as ops
from sslcollapse.domains.vision.augment import check_images
from sslcollapse.nn.init import check_arguments
from sslcollapse.recipe.check import quote
from sslcollapse.recipe.schema import Between, Probability, Width

_CROP = [dict(type="RandomResizedCrop"), dict(type="RandomHorizontalFlip")]
_COLOURS = dict(type="ColorJitter", brightness=0.8, contrast=0.8, saturation=0.8, hue=0.2)

NAMED: dict[str, list[dict[str, Any]]] = {
    "simclr": [
        *_CROP,
        dict(type="RandomApply", transforms=[_COLOURS], p=0.8),
        dict(type="RandomGrayscale", p=0.2),
        dict(type="RandomApply", transforms=[dict(type="GaussianBlur")], p=0.5),
    ],
    "randaugment": [*_CROP, dict(type="RandAugment")],
    "trivialaugment": [*_CROP, dict(type="TrivialAugmentWide")],
    "autoaugment": [*_CROP, dict(type="AutoAugment", policy="imagenet")],
    "augmix": [*_CROP, dict(type="AugMix")],
}
"""Name → pipeline."""

OTHERS = (
    *("CutMix", "MixUp", "FiveCrop", "TenCrop", "Lambda", "LinearTransformation", "Transform", "Normalize", "Compose"),
    *("ToPILImage", "PILToTensor", "ToTensor", "ToImage", "ToPureTensor", "ToDtype", "ConvertImageDtype"),
    *("RandomIoUCrop", "ClampBoundingBoxes", "ClampKeyPoints", "ConvertBoundingBoxFormat", "SetClampingMode"),
    *("SanitizeBoundingBoxes", "SanitizeKeyPoints", "UniformTemporalSubsample"),
)
"""Transforms that make no image of one image, or what is done anyway (conversion, normalisation)."""


class TorchvisionViews:
    """Views by a pipeline of torchvision's ``transforms.v2``: RandAugment, AugMix, multi-crop and others.

    A transform is ``dict(type="RandomResizedCrop", scale=[0.2, 1.0])``; ``RandomApply``, ``RandomChoice`` and
    ``RandomOrder`` have a list of them in ``transforms``. A ``size`` that is required and not given is the view's, and
    a ``kernel_size`` is a tenth of it. Images come in as uint8 tensors; conversion to float and normalisation by the
    dataset's mean and standard deviation follow. Images are transformed one by one: for SimCLR's views of CIFAR-10 the
    views of this package are 17 times as fast (``docs/benchmarks/views.json``).

    | named pipeline | random crop and mirror image, then |
    |---|---|
    | ``simclr`` | colour jitter .8 .8 .8 .2 (p .8), grey .2, blur (p .5) |
    | ``randaugment``, ``trivialaugment``, ``autoaugment``, ``augmix`` | torchvision's, with its defaults |

    Args:
        pipeline: a name, or a list of transforms; or a list of such, one for each number in ``count``.
        count: views of each image; a list for multi-crop: ``[2, 6]`` are two global and six local views.
        sizes: side of the views in pixels, one for each number in ``count``; None is the domain's for all. The encoder
            has to read all of them: convolutional networks do.
        scales: ``scale`` of every RandomResizedCrop, one for each number in ``count``; None leaves the pipeline's.

    Raises:
        RecipeError: an unknown pipeline, transform or argument, or lists of another length than ``count``.
    """

    def __init__(
        self,
        *,
        pipeline: Any = "simclr",
        count: Annotated[int, Between(1, 100)] | Sequence[Annotated[int, Between(1, 100)]] = 2,
        sizes: Sequence[Width] | None = None,
        scales: Sequence[Sequence[Probability]] | None = None,
    ) -> None:
        self.counts = [count] if isinstance(count, int) else list(count)
        several = isinstance(pipeline, list) and bool(pipeline) and all(isinstance(p, (str, list)) for p in pipeline)
        self.pipelines = list(pipeline) if several else [pipeline] * len(self.counts)
        self.sizes: list[int | None] = [None] * len(self.counts) if sizes is None else list(sizes)
        self.scales: list[Any] = [None] * len(self.counts) if scales is None else list(scales)
        for name, given in (("pipeline", self.pipelines), ("sizes", self.sizes), ("scales", self.scales)):
            if len(given) != len(self.counts):
                raise RecipeError(f"{name}: needs one for each number in count {self.counts}, got {len(given)}")
        for scale in self.scales:
            if scale is not None and not (len(scale) == 2 and 0.0 < scale[0] <= scale[1]):
                raise RecipeError(f"scales: needs a smallest and a largest area above 0, got {list(scale)}")
        self._made(64)  # refuses what torchvision refuses before data are read

    def augmentations(
        self, size: int, channels: int, mean: Sequence[float], std: Sequence[float]
    ) -> list[TransformedView]:
        """One a view, for square views of ``size`` pixels where ``sizes`` says nothing else."""
        made = self._made(size)
        return [
            TransformedView(transform, own or size, channels, mean, std)
            for count, own, transform in zip(self.counts, self.sizes, made, strict=True)
            for _ in range(count)
        ]

    def _made(self, size: int) -> list[Any]:
        from torchvision.transforms import v2

        return [
            v2.Compose(_transforms(_pipeline(pipeline), own or size, scale))
            for pipeline, own, scale in zip(self.pipelines, self.sizes, self.scales, strict=True)
        ]


class TransformedView:
    """One view of a batch of images, by a transform of one image.

    Args:
        transform: of a uint8 tensor [C, H, W].
        size: side of the square views in pixels.
        channels: of the images.
        mean: of each channel of the data in [0, 1].
        std: of each channel.
    """

    def __init__(self, transform: Any, size: int, channels: int, mean: Sequence[float], std: Sequence[float]) -> None:
        self.transform, self.size, self.channels = transform, size, channels
        self.mean, self.std = tuple(mean), tuple(std)

    def __call__(self, images: Tensor, rng: torch.Generator) -> Tensor:
        """A view of each image: uint8 [B, C, H, W] → normalised float32 [B, C, size, size].

        The transforms draw from torch's own streams, which start from ``rng`` here and are put back afterwards.

        Raises:
            RecipeError: the pipeline fails on an image, or does not make an image of this size and these channels.
        """
        check_images(images, self.channels)
        seed = int(torch.randint(1 << 62, (1,), generator=rng, device=rng.device))
        device = images.device
        with torch.random.fork_rng([] if device.type == "cpu" else [device]):
            seed_default(device, seed)
            views = [self._view(image) for image in images]
        return ops.normalise(torch.stack(views), self.mean, self.std)

    def _view(self, image: Tensor) -> Tensor:
        try:
            view = self.transform(image)
        except Exception as error:
            raise RecipeError(
                f"domain.views.pipeline: fails on an image {list(image.shape)}: {in_words(error)}"
            ) from error
        if not isinstance(view, Tensor) or view.shape != (self.channels, self.size, self.size):
            got = list(view.shape) if isinstance(view, Tensor) else type(view).__name__
            raise RecipeError(
                f"domain.views.pipeline: makes {got} of an image, where {[self.channels, self.size, self.size]} is "
                "needed; end it with a crop or dict(type='Resize', size=[H, W])"
            )
        return view.float().div(255) if view.dtype == torch.uint8 else view.float()


def _pipeline(given: Any) -> Sequence[Any]:
    if isinstance(given, str):
        if given not in NAMED:
            raise RecipeError(
                f"pipeline: unknown pipeline {given!r}{suggest(given, list(NAMED))} (known: {', '.join(NAMED)})"
            )
        return NAMED[given]
    if not isinstance(given, Sequence) or not given:
        raise RecipeError(f"pipeline: needs a name ({', '.join(NAMED)}) or a list of transforms, got {quote(given)}")
    return given


def _transforms(specs: Sequence[Any], size: int, scale: Any, place: str = "pipeline") -> list[Any]:
    """Transforms of v2 from their specs, with the view's size where they need one."""
    from torchvision.transforms import v2

    known = [n for n, c in vars(v2).items() if inspect.isclass(c) and issubclass(c, v2.Transform) and n not in OTHERS]
    made = []
    for index, spec in enumerate(specs):
        where = f"{place}[{index}]"
        if not isinstance(spec, Mapping) or not isinstance(spec.get("type"), str):
            raise RecipeError(
                f"{where}: expected a dict with the 'type' and the arguments of a transform, got {quote(spec)}"
            )
        name = spec["type"]
        if name not in known:
            what = "does not make an image of one image" if name in OTHERS else "is no transform of torchvision"
            raise RecipeError(f"{where}.type: {name!r} {what}{suggest(name, known)} (known: {', '.join(known)})")
        make = getattr(v2, name)
        arguments = {key: value for key, value in spec.items() if key != "type"}
        try:
            check_arguments(where, name, make, arguments, {})
        except ValueError as error:
            raise RecipeError(str(error)) from None
        required = [p.name for p in inspect.signature(make).parameters.values() if p.default is p.empty]
        for key, usual in (("size", size), ("kernel_size", 2 * max(1, size // 20) + 1)):
            if key in required and key not in arguments:
                arguments[key] = [size, size] if key == "size" else usual
        if name == "RandomResizedCrop" and scale is not None:
            arguments["scale"] = scale
        try:
            if "transforms" in arguments:
                arguments["transforms"] = _transforms(arguments["transforms"], size, scale, f"{where}.transforms")
            for key, kind in (("interpolation", v2.InterpolationMode), ("policy", v2.AutoAugmentPolicy)):
                if isinstance(arguments.get(key), str):
                    arguments[key] = kind(arguments[key])
            made.append(make(**arguments))
        except RecipeError:
            raise
        except Exception as error:  # they check their arguments in many ways, some by failing
            raise RecipeError(f"{where}: torchvision's {name} refuses {quote(spec)}: {in_words(error)}") from error
    return made
