"""The images below class folders, each once: links are told from what they lead to, hidden names are skipped."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from sslcollapse.core.errors import DataError
from sslcollapse.core.untrusted import check_regular

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
