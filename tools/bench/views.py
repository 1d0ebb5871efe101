"""``bench views``: views a second on one thread, and how far each library's operations are from torchvision's.

All contenders make the SimCLR preset on 32×32 images as published for CIFAR (no blur): lightly on PIL images one by one
as its users run it, torchvision v2 on tensors one by one and on a batch (which then shares its parameters), Kornia on a
batch, and ours. They run in turns; ratios are taken within a round and their median over rounds is reported.
Seconds are of processor time: on one thread, what a core spends whoever shares it. Decoding, collating and the data
loader are left out for all.
"""

from __future__ import annotations

import importlib
import importlib.util
import math
import os
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from importlib.metadata import version
from statistics import median
from typing import Any

import torch
from torch import Tensor

BATCH, SIZE = 256, 32
ROUNDS, SECONDS = 9, 0.25
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
TITLES = {
    "lightly": "lightly, PIL images one by one",
    "torchvision": "torchvision v2, tensors one by one",
    "torchvision_batch": "torchvision v2, one set of parameters a batch",
    "kornia": "Kornia, crop by slices (default)",
    "kornia_resample": "Kornia, crop by resampling",
    "ours": "sslcollapse",
}


def main() -> dict[str, Any]:
    """Measure, print two tables, return the record."""
    from sslcollapse.core.console import Console, Table
    from sslcollapse.core.memory import keep_freed_memory
    from sslcollapse.runs.directory import environment
    from tools.bench.graph_step import device

    torch.set_num_threads(1)
    keep_freed_memory()
    warnings.filterwarnings("ignore")
    console, photos = Console(), photographs(BATCH)
    made = {name: make(photos) for name, make in CONTENDERS.items() if available(name)}
    missing = [name for name in CONTENDERS if name not in made]
    rounds = [{name: rate(step) for name, step in made.items()} for _ in range(1 + ROUNDS)][1:]
    speed = {name: median(turn[name] for turn in rounds) for name in made}
    ratio = {name: median(turn[name] / turn["lightly"] for turn in rounds) for name in made}
    table = Table(title=f"SimCLR views, {SIZE}×{SIZE}, one thread, median of {ROUNDS} rounds")
    for title in ("", "views/s", "× lightly"):
        table.add_column(title, justify="left" if not title else "right")
    for name in made:
        table.add_row(TITLES[name], f"{speed[name]:,.0f}", f"{ratio[name]:.2f}")
    console.print(table)
    differences = fidelity(photos[:32])
    table = Table(title="largest (mean) difference from torchvision on floats, equal parameters, values in [0, 1]")
    columns = ["ours", "pil", *(["kornia"] if "kornia" in made else [])]
    for title in ("", *columns):
        table.add_column(title, justify="left" if not title else "right")
    for operation, found in differences.items():
        cells = [f"{found[c]['max']:.1e} ({found[c]['mean']:.1e})" if c in found else "" for c in columns]
        table.add_row(operation, *cells)
    console.print(table)
    larger = by_size()
    table = Table(title="SimCLR views by size, one thread: this way of cropping beside matrices for a batch")
    for title in ("", "views/s", "by matrices", "ratio"):
        table.add_column(title, justify="right" if title else "left")
    for size, speeds in larger.items():
        table.add_row(f"{size} pixels", *(f"{speeds[key]:,.2f}" for key in ("views_a_second", "by_matrices", "ratio")))
    console.print(table)
    if missing:
        console.print(f"left out, since their package is not installed: {', '.join(missing)}")
    packages = ("torchvision", "lightly", "kornia", "pillow")
    return {
        "benchmark": "views",
        "environment": environment(1, device(), sys.argv),
        "versions": {
            name: version(name) for name in packages if importlib.util.find_spec(name.replace("pillow", "PIL"))
        },
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "preset": "simclr",
        "size": SIZE,
        "batch": BATCH,
        "rounds": ROUNDS,
        "clock": "processor time",
        "views_a_second": speed,
        "quartiles": {name: _quartiles([turn[name] for turn in rounds]) for name in made},
        "times_lightly": ratio,
        "difference_from_torchvision": differences,
        "by_size": larger,
        "left_out": missing,
    }


def by_size(sizes: Sequence[int] = (32, 96, 224), rounds: int = 5, batch: int = 16) -> dict[int, dict[str, float]]:
    """Size → views a second of processor time as they are made, by matrices alone, and the median ratio of a round."""
    from sslcollapse.domains.vision import augment
    from sslcollapse.domains.vision.views import ImageViews

    found, usual = {}, augment.LARGE
    for size in sizes:
        images = torch.nn.functional.interpolate(photographs(batch).float(), size, mode="bilinear").to(torch.uint8)
        views, rng = ImageViews().augmentations(size, 3, MEAN, STD), torch.Generator().manual_seed(0)
        rates: dict[int, list[float]] = {usual: [], size + 1: []}  # from which side on crops are made one by one
        try:
            for turn in range(1 + rounds):
                for least, speeds in rates.items():
                    augment.LARGE = least
                    speed = rate(lambda v=views, i=images, r=rng: sum(len(view(i, r)) for view in v))
                    speeds.extend([speed] if turn else [])  # the first round is for caches
        finally:
            augment.LARGE = usual
        now, before = rates.values()
        ratio = median(a / b for a, b in zip(now, before, strict=True))
        found[size] = {"views_a_second": median(now), "by_matrices": median(before), "ratio": ratio}
    return found


def available(name: str) -> bool:
    """Whether the package that a contender needs is installed."""
    package = name.partition("_")[0]
    return package == "ours" or importlib.util.find_spec(package) is not None


def photographs(count: int) -> Tensor:
    """uint8 [count, 3, 32, 32] cut from scikit-learn's two photographs."""
    from sklearn.datasets import load_sample_images

    photos = [torch.from_numpy(photo).permute(2, 0, 1) for photo in load_sample_images().images]
    patches = [p.unfold(1, SIZE, SIZE).unfold(2, SIZE, SIZE).permute(1, 2, 0, 3, 4).flatten(0, 1) for p in photos]
    every = torch.cat(patches)
    chosen = torch.randperm(len(every), generator=torch.Generator().manual_seed(0))[:count]
    return every[chosen].contiguous()


def rate(make_views: Callable[[], int]) -> float:
    """Views a second of processor time, over a quarter of a second or one batch."""
    began, views = time.process_time(), 0
    while views == 0 or time.process_time() - began < SECONDS:
        views += make_views()
    return views / (time.process_time() - began)


def _lightly(photos: Tensor) -> Callable[[], int]:
    from torchvision.transforms.functional import to_pil_image

    transforms = importlib.import_module("lightly.transforms")
    normalize = {"mean": list(MEAN), "std": list(STD)}
    transform = transforms.SimCLRTransform(input_size=SIZE, gaussian_blur=0.0, normalize=normalize)
    images = [to_pil_image(photo) for photo in photos]
    return lambda: sum(len(transform(image)) for image in images)


def _torchvision_transform() -> Any:
    from torchvision.transforms import v2

    return v2.Compose(
        [
            v2.RandomResizedCrop(SIZE, scale=(0.08, 1.0), antialias=True),
            v2.RandomHorizontalFlip(0.5),
            v2.RandomApply([v2.ColorJitter(0.8, 0.8, 0.8, 0.2)], p=0.8),
            v2.RandomGrayscale(0.2),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(MEAN, STD),
        ]
    )


def _torchvision(photos: Tensor) -> Callable[[], int]:
    transform = _torchvision_transform()
    return lambda: len(torch.stack([transform(photo) for photo in photos]))


def _torchvision_batch(photos: Tensor) -> Callable[[], int]:
    transform = _torchvision_transform()
    return lambda: len(transform(photos))


def _kornia(photos: Tensor, mode: str = "slice") -> Callable[[], int]:
    augmentation = importlib.import_module("kornia.augmentation")
    transform = torch.nn.Sequential(
        augmentation.RandomResizedCrop((SIZE, SIZE), scale=(0.08, 1.0), align_corners=False, cropping_mode=mode),
        augmentation.RandomHorizontalFlip(p=0.5),
        augmentation.ColorJitter(0.8, 0.8, 0.8, 0.2, p=0.8),
        augmentation.RandomGrayscale(p=0.2),
        augmentation.Normalize(torch.tensor(MEAN), torch.tensor(STD)),
    )

    @torch.no_grad()
    def step() -> int:
        return len(transform(photos.float() / 255))

    return step


def _ours(photos: Tensor) -> Callable[[], int]:
    from sslcollapse.domains.vision.views import ImageViews

    augmentation = ImageViews(preset="simclr").augmentations(SIZE, 3, MEAN, STD)[0]
    rng = torch.Generator().manual_seed(0)
    return lambda: len(augmentation(photos, rng))


def rates_on(
    device: torch.device, batch: int = 512, rounds: int = 5, sizes: Sequence[int] = (32, 224)
) -> dict[str, Any]:
    """Views a second of ours on a device, from uint8 images that are there, by preset and size; none is decoded."""
    from sslcollapse.domains.vision.views import ImageViews

    rng, found = torch.Generator().manual_seed(0), {}  # parameters are drawn on the host, as in training
    for preset in ("simclr", "byol"):
        for size in sizes:
            count = max(1, batch * 32 // size)
            pixels = torch.randint(256, (count, 3, size, size), dtype=torch.uint8, generator=rng).to(device)
            make = ImageViews(preset=preset).augmentations(size, 3, MEAN, STD)[0]

            def turn(make: Any = make, pixels: Tensor = pixels) -> float:
                _wait(device)
                began, repeats = time.perf_counter(), 20 if device.type == "cuda" else 1
                for _ in range(repeats):
                    make(pixels, rng)
                _wait(device)
                return len(pixels) * repeats / (time.perf_counter() - began)

            turn()
            found[f"{preset}, {size}×{size}, batch {count}"] = median(turn() for _ in range(rounds))
    return {"views_a_second": found}


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


CONTENDERS: dict[str, Callable[[Tensor], Callable[[], int]]] = {
    "lightly": _lightly,
    "torchvision": _torchvision,
    "torchvision_batch": _torchvision_batch,
    "kornia": _kornia,
    "kornia_resample": lambda photos: _kornia(photos, "resample"),
    "ours": _ours,
}


def fidelity(photos: Tensor) -> dict[str, dict[str, dict[str, float]]]:
    """Operation → contender → largest and mean difference from torchvision's functions on float tensors.

    ``pil`` is torchvision's on PIL images, which is what lightly's transforms call: it rounds to bytes in between.
    """
    from torchvision.transforms import functional as reference
    from torchvision.transforms.functional import pil_to_tensor, to_pil_image

    from sslcollapse.domains.vision import operations as ops

    n, x = len(photos), photos / 255
    rng = torch.Generator().manual_seed(0)
    length = torch.randint(9, SIZE + 1, (2, n), generator=rng)
    box = torch.cat([(torch.rand(2, n, generator=rng) * (SIZE + 1 - length)).long(), length])
    factor, sigma = 0.2 + 1.6 * torch.rand(n, generator=rng), 0.1 + 1.9 * torch.rand(n, generator=rng)
    shift = 0.4 * torch.rand(n, generator=rng) - 0.2

    def kind(k: int) -> Tensor:
        return torch.full((n,), k)

    # Name → torchvision's function, each sample's parameters, ours on the batch.
    cases: dict[str, tuple[Callable[..., Any], list[Any], Callable[[], Tensor]]] = {
        "resized crop": (
            lambda image, *values: reference.resized_crop(image, *values, [SIZE, SIZE], antialias=True),
            box.T.tolist(),
            lambda: ops.resized_crop(x, box, SIZE),
        ),
        "brightness": (reference.adjust_brightness, factor.tolist(), lambda: ops.blend(x, kind(0), factor)),
        "contrast": (reference.adjust_contrast, factor.tolist(), lambda: ops.blend(x, kind(1), factor)),
        "saturation": (reference.adjust_saturation, factor.tolist(), lambda: ops.blend(x, kind(2), factor)),
        "hue": (reference.adjust_hue, shift.tolist(), lambda: ops.shift_hue(x, shift)),
        "greyscale": (lambda image, _: reference.rgb_to_grayscale(image, 3), [None] * n, lambda: ops.greyscale(x)),
        "blur": (
            lambda image, value: reference.gaussian_blur(image, [3, 3], [value, value]),
            sigma.tolist(),
            lambda: ops.gaussian_blur(x, sigma, 3),
        ),
        "solarise": (
            lambda image, _: reference.solarize(image, 0.5 if isinstance(image, Tensor) else 128),
            [None] * n,
            lambda: ops.solarise(x),
        ),
    }
    kornia = _kornia_operations(x, box, factor, shift, sigma) if available("kornia") else {}
    found: dict[str, dict[str, dict[str, float]]] = {}
    for name, (function, parameters, ours) in cases.items():
        each = [values if isinstance(values, list) else [values] for values in parameters]
        wanted = torch.stack([function(sample, *values) for sample, values in zip(x, each, strict=True)])
        images = [function(to_pil_image(photo), *values) for photo, values in zip(photos, each, strict=True)]
        results = {"ours": ours(), "pil": torch.stack([pil_to_tensor(image) for image in images]) / 255}
        results |= {"kornia": kornia[name]()} if name in kornia else {}
        found[name] = {who: _difference(result, wanted) for who, result in results.items()}
    return found


def _kornia_operations(
    x: Tensor, box: Tensor, factor: Tensor, shift: Tensor, sigma: Tensor
) -> dict[str, Callable[[], Tensor]]:
    """The functions that Kornia's random resized crop (with its corners not aligned), jitter, ... call."""
    color, enhance, filters = (importlib.import_module(f"kornia.{part}") for part in ("color", "enhance", "filters"))
    crop = importlib.import_module("kornia.geometry.transform").crop_by_indices
    top, left, height, width = box.float()
    right, bottom = left + width - 1, top + height - 1
    corners = torch.stack([left, top, right, top, right, bottom, left, bottom], 1).view(-1, 4, 2)
    return {
        "resized crop": lambda: crop(x, corners, (SIZE, SIZE), interpolation="bilinear", align_corners=False),
        "brightness": lambda: enhance.adjust_brightness_accumulative(x, factor),
        "contrast": lambda: enhance.adjust_contrast_with_mean_subtraction(x, factor),
        "saturation": lambda: enhance.adjust_saturation_with_gray_subtraction(x, factor),
        "hue": lambda: enhance.adjust_hue(x, shift * 2 * math.pi),
        "greyscale": lambda: color.rgb_to_grayscale(x).expand_as(x),
        "blur": lambda: filters.gaussian_blur2d(x, (3, 3), torch.stack([sigma, sigma], 1)),
        "solarise": lambda: enhance.solarize(x, 0.5),
    }


def _difference(result: Tensor, wanted: Tensor) -> dict[str, float]:
    difference = (result - wanted).abs()
    return {"max": float(difference.max()), "mean": float(difference.mean())}


def _quartiles(values: list[float]) -> list[float]:
    ordered = sorted(values)
    return [ordered[len(ordered) // 4], ordered[(3 * len(ordered)) // 4]]
