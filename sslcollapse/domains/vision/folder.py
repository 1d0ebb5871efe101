"""Images in one folder a class, each once: links are told from what they lead to, hidden names are skipped."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import torch

from sslcollapse.core.errors import DataError, MissingDataError, RecipeError
from sslcollapse.core.untrusted import check_regular, read_regular
from sslcollapse.domains.download import missing_text
from sslcollapse.domains.vision.data import (
    EMBEDDED_RECIPE,
    ImageDataset,
    check_apart,
    check_dataset,
    check_fraction,
    official_split,
    statistics_of,
)
from sslcollapse.domains.vision.decode import CHANNELS, EncodedImages, Mode
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


Class = tuple[Path, str]
"""Folder of training or test images, and the name of a class in it."""


def class_names(folder: Path) -> list[str]:
    """Names of the subfolders that are classes, sorted; those that begin with a dot are none."""
    return sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not _hidden(entry.name))


def list_images(
    folders: Mapping[Path, Sequence[str]], endings: Sequence[str], *, follow_links: bool
) -> dict[Class, list[str]]:
    """Paths of the images of every class of every folder, in the order of ``torchvision.datasets.ImageFolder``.

    A link that stays in its class folder adds nothing, as what it leads to is listed there.

    Args:
        folders: folder → its classes.
        endings: of image files, in small letters.
        follow_links: whether links that lead out of a class folder are followed.

    Raises:
        DataError: a link out of a class folder that is not to be followed, one to nothing, an image or folder that is
            in two classes or in both folders, or a pipe or device among the images.
    """
    listing = _Listing(tuple(endings), follow_links)
    for folder, names in folders.items():
        for name in names:
            listing.add(folder, name)
    while listing.links:
        listing.follow(*listing.links.pop())
    found = {}
    for kind, folders_of_class in listing.found.items():
        ordered = sorted(folders_of_class.items())
        found[kind] = [os.path.join(place, name) for place, names in ordered for name in sorted(names)]
    return found


class _Listing:
    """Folders are walked without their links first, so that a link to what is listed anyway is known as one."""

    def __init__(self, endings: tuple[str, ...], follow_links: bool) -> None:
        self.endings, self.follow_links = endings, follow_links
        self.found: dict[Class, dict[str, list[str]]] = {}
        self.links: list[tuple[str, Class]] = []
        self._owners: dict[str, Class] = {}

    def add(self, folder: Path, name: str) -> None:
        """List a class folder, and note the links in it."""
        kind, path = (folder, name), os.path.join(folder, name)
        self.found[kind] = {}
        if not os.path.islink(path):
            self._walk(path, os.path.realpath(path), kind)
        elif self.follow_links:
            self.links.append((path, kind))
        else:
            raise self._untold(path, os.path.realpath(path), kind)

    def follow(self, link: str, kind: Class) -> None:
        """List what a link leads to, if that is new."""
        real = os.path.realpath(link)
        if not os.path.exists(real):
            raise DataError(f"{link}: a link to {real}, which is not there; remove it")
        if os.path.isdir(real):
            self._walk(link, real, kind)
            return
        check_regular(Path(real))
        folder, name = os.path.split(real)
        if folder in self._owners:
            self._own(folder, kind, link)
            if not _hidden(name):
                return  # listed in its folder
        if self._own(real, kind, link):
            self.found[kind].setdefault(os.path.dirname(link), []).append(os.path.basename(link))

    def _walk(self, top: str, real_top: str, kind: Class) -> None:
        stack = [(top, real_top)]
        while stack:
            place, real = stack.pop()
            if not self._own(real, kind, place):
                continue
            with os.scandir(place) as entries:
                for entry in entries:
                    if _hidden(entry.name):
                        continue
                    image = entry.name.lower().endswith(self.endings)
                    if entry.is_symlink():
                        if image or entry.is_dir():
                            self._note(entry.path, kind)
                    elif entry.is_dir(follow_symlinks=False):
                        stack.append((entry.path, os.path.join(real, entry.name)))
                    elif image:
                        if not entry.is_file(follow_symlinks=False):
                            check_regular(Path(entry.path))
                        self.found[kind].setdefault(place, []).append(entry.name)

    def _note(self, link: str, kind: Class) -> None:
        """Keep a link for later: most likely, what it leads to is listed without it."""
        own, real = os.path.realpath(os.path.join(*kind)), os.path.realpath(link)
        if not self.follow_links and os.path.commonpath([own, real]) != own:
            raise self._untold(link, real, kind)
        self.links.append((link, kind))

    def _own(self, real: str, kind: Class, place: str) -> bool:
        """Whether a file or folder is new; raises DataError where it is another class's."""
        new = real not in self._owners
        owner = self._owners.setdefault(real, kind)
        if owner != kind:
            raise DataError(
                f"{place}: leads to {real}, which also belongs to {os.path.join(*owner)}; an image has one class, and "
                "no test image is trained on: remove the link"
            )
        return new

    @staticmethod
    def _untold(link: str, real: str, kind: Class) -> DataError:
        return DataError(
            f"{link}: a link out of its class folder, to {real}; remove it, or give the dataset follow_links=True if "
            f"what it leads to belongs to the class {kind[1]!r}"
        )


def _hidden(name: str) -> bool:
    return name.startswith(".")
