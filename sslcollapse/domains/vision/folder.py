"""Images in one folder a class."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import torch

from sslcollapse.core.errors import DataError, MissingDataError, RecipeError
from sslcollapse.core.untrusted import read_regular
from sslcollapse.domains.download import missing_text
from sslcollapse.domains.vision.data import (
    ImageDataset,
    check_apart,
    check_dataset,
    check_fraction,
    official_split,
    statistics_of,
)
from sslcollapse.domains.vision.decode import CHANNELS, EncodedImages, Mode
from sslcollapse.domains.vision.listing import class_names, list_images
from sslcollapse.domains.vision.stored import EMBEDDED_RECIPE
from sslcollapse.recipe.schema import Above, Between, Share


class ImageFolder:
    """Image files in one folder a class, in the order of torchvision's ImageFolder.

    Classes are the subfolders of ``train`` in alphabetical order; those of ``test`` must be among them. An image is
    scaled until its shorter side is ``size`` and its middle is cut out; views are made from that. Rows and the
    split ``"public"`` are as with the other datasets: the test folder for testing, a fixed random part of the
    training images for validation. Pre-training sees all training images.

    Files and folders whose names begin with a dot are skipped. A link that stays in its class folder adds nothing; one
    that leads out of it is an error, or is followed where ``follow_links`` says so. No image may be reached twice with
    two classes, or for training and for testing.

    Args:
        data_root: the data root.
        train: folder of training images, absolute or relative to the data root.
        test: folder of test images.
        size: height and width to which images are decoded; at least the size of a view.
        mode: "RGB", or "L" for grey; images of other modes are converted.
        mean: mean of each channel, of values in [0, 1]; None is ImageNet's, or 0.5 for grey.
        std: standard deviation of each channel; None as for ``mean``.
        validation: share of the training images that is for validation.
        name: as shown to people; None is the name of the folder that ``train`` is in.
        follow_links: whether links out of a class folder are followed.
    """

    def __init__(
        self,
        data_root: Path,
        *,
        train: str,
        test: str,
        size: Annotated[int, Between(1, 65_535)],
        mode: Mode = "RGB",
        mean: Sequence[float] | None = None,
        std: Sequence[Annotated[float, Above(0)]] | None = None,
        validation: Share = 0.1,
        name: str | None = None,
        follow_links: bool = False,
    ) -> None:
        if size < 1:
            raise RecipeError(f"size must be >= 1, got {size}")
        self.data_root = Path(data_root).expanduser()
        self.folders = check_apart(*(self.data_root / Path(folder).expanduser() for folder in (train, test)))
        _check_not_nested(*self.folders)
        self.size, self.mode, self.channels = size, mode, CHANNELS[mode]
        self.mean, self.std = statistics_of(mode, mean, std)
        self.validation, self.follow_links = check_fraction(validation), follow_links
        self.title = name or self.folders[0].parent.name or self.folders[0].name

    @property
    def num_classes(self) -> int:
        """Number of class folders; MissingDataError where there is no folder."""
        return len(self._classes(self.folders[0]))

    def files(self) -> list[Path]:
        """The two folders."""
        return list(self.folders)

    def describe(self) -> str:
        """One line for a dry run."""
        missing = [str(folder) for folder in self.folders if not folder.is_dir()]
        state = f"not there: {' and '.join(missing)}" if missing else f"{self.num_classes} class folders"
        shape = f"{self.channels}x{self.size}x{self.size}"
        return f"{self.title}: images decoded to {shape}; in {' and '.join(map(str, self.folders))} ({state})"

    def load(self) -> ImageDataset:
        """List the files; images are decoded when they are read.

        Raises:
            MissingDataError: a folder is not there.
            DataError: no class folders, one without images, test classes that are not training classes, or a link that
                is not to be followed.
        """
        classes = self._classes(self.folders[0])
        strange = sorted(set(self._classes(self.folders[1])) - set(classes))
        if strange:
            raise DataError(
                f"{self.folders[1]}: the class folder {strange[0]!r} is not among those of {self.folders[0]} "
                f"({', '.join(classes[:10])}{', ...' if len(classes) > 10 else ''})"
            )
        from torchvision.datasets.folder import IMG_EXTENSIONS

        present = {folder: self._classes(folder) for folder in self.folders}
        found = list_images(present, IMG_EXTENSIONS, follow_links=self.follow_links)
        empty = next((os.path.join(*kind) for kind, paths in found.items() if not paths), None)
        if empty is not None:
            raise DataError(
                f"{empty}: an empty class folder; put images into it ({', '.join(IMG_EXTENSIONS)}) or remove it"
            )
        numbers = {name: number for number, name in enumerate(classes)}
        parts = [
            [(path, numbers[name]) for name in names for path in found[folder, name]]
            for folder, names in present.items()
        ]
        train, test = map(len, parts)
        samples = [sample for part in parts for sample in part]
        dataset = ImageDataset(
            self.title,
            FileImages([path for path, _ in samples], self.size, self.mode),
            torch.tensor([label for _, label in samples]),
            len(classes),
            {"public": (official_split(train, test, self.validation),)},
            torch.arange(train),
        )
        return check_dataset(dataset)

    def _classes(self, folder: Path) -> list[str]:
        if not folder.is_dir():
            raise MissingDataError(
                f"{self.title}: the folder {folder} is not there. "
                f"{missing_text([folder], self.data_root, EMBEDDED_RECIPE)}"
            )
        classes = class_names(folder)
        if not classes:
            raise DataError(f"{folder}: no class folders; it should have one subfolder a class, with images in it")
        return classes


def _check_not_nested(train: Path, test: Path) -> None:
    """Refuse one folder inside the other; RecipeError."""
    outer, inner = (Path(os.path.realpath(folder)) for folder in (train, test))
    for above, below in ((outer, inner), (inner, outer)):
        if above in below.parents:
            raise RecipeError(
                f"{train} and {test}: {below} lies inside {above}, so that test images would be trained on; give each "
                "a folder of its own"
            )


class FileImages(EncodedImages):
    """Images in a file each."""

    def __init__(self, paths: Sequence[str], size: int, mode: Mode) -> None:
        super().__init__(len(paths), size, mode, resize=True)
        self.paths = paths

    def encoded(self, row: int) -> bytes:
        """The file's bytes."""
        try:
            return read_regular(Path(self.paths[row]))
        except OSError as error:
            raise DataError(f"{self.paths[row]}: cannot be read ({error.strerror}); replace or remove it") from error

    def place(self, row: int) -> str:
        """The file."""
        return self.paths[row]
