"""The embedded dataset: docstrings of Python packages that are installed anyway. No download, nothing is imported."""

from __future__ import annotations

import ast
import platform
import re
import sysconfig
import warnings
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import numpy as np

from sslcollapse import AtLeast, DataError, Distinct, MissingDataError, RecipeError, Split
from sslcollapse_text.data import TextDataset, plain, stable_number, text_dataset

PACKAGES = (
    "python",
    "numpy",
    "scipy",
    "sklearn",
    "matplotlib",
    "sympy",
    "networkx",
    "torch",
    "torch_geometric",
    "huggingface_hub",
)
"""The standard library, direct dependencies of sslcollapse, and what torch itself depends on."""

SKIPPED = frozenset(
    ("site-packages", "dist-packages", "test", "tests", "testing", "idlelib", "lib2to3", "turtledemo", "_vendor")
)
"""Folders that are not read: tests, and copies of other packages."""

PER_MODULE = 20
"""At most so many docstrings of one module, so that no class is one large module."""

LARGEST_FILE = 100_000
"""Bytes; larger files take long to parse, and are often generated."""

FEWEST_WORDS, MOST_PARAGRAPHS = 6, 3

SHARES = (0.7, 0.1, 0.2)
"""Of the texts of each class: training, validation, test."""

_SECTION = re.compile(
    r"^\s*(?:>>>|\.\. |:\w+|@\w+|(?:args|arguments|parameters|params|inputs?|returns?|yields?|raises|attributes|"
    r"examples?|notes?|references|see also|shapes?|usage|options|keyword arguments|explanation)\s*:?\s*(?:\n|$))",
    re.IGNORECASE,
)
"""How a paragraph begins that is no prose any more."""


class Docstrings:
    """Docstrings of the standard library and of installed packages; the class is the package. No download.

    A text is the prose at the start of a docstring of a module, class or function: at most three paragraphs, up to the
    first section such as "Parameters", at least six words. Names of the classes are taken out of all texts. A text
    that was there before, maybe in another class, is left out.

    The split ``"public"`` goes by module, so that neighbours in one file are never on two sides. Modules are taken in
    the order of a hash of their names until a class is full; each goes, with all of its texts, to the part (training,
    validation or test: 70, 10 and 20 %) that is furthest below its share. What is read depends on the installed
    versions, which ``describe`` names; source files are parsed and never run.

    Args:
        data_root: not used; there are no files of its own.
        packages: the classes, as top-level packages; ``"python"`` is the standard library.
        per_class: at most so many texts of a class.

    Raises:
        RecipeError: fewer than two packages, or too few texts to divide.
    """

    def __init__(
        self,
        data_root: Path,
        *,
        packages: Annotated[Sequence[str], Distinct()] = PACKAGES,
        per_class: Annotated[int, AtLeast(20)] = 600,
    ) -> None:
        if len(packages) < 2:
            raise RecipeError(f"packages: needs at least two classes, got {list(packages)}")
        if per_class < 20:
            raise RecipeError(f"per_class must be >= 20, got {per_class}")
        self.packages, self.per_class = tuple(packages), per_class
        self.num_classes = len(self.packages)

    def files(self) -> list[Path]:
        """None: what is read is installed."""
        return []

    def describe(self) -> str:
        """The packages with their versions."""
        named = ", ".join(f"{name} {_version(name)}" for name in self.packages)
        return f"docstrings: at most {self.per_class} of each of {self.num_classes} installed packages ({named})"

    def load(self) -> TextDataset:
        """Parse the packages' source files.

        Raises:
            MissingDataError: a package is not installed.
            DataError: a package has too few docstrings to have some in every part.
        """
        names = re.compile(rf"(?i)\b(?:{'|'.join(map(re.escape, self.packages))})\b")
        texts: list[str] = []
        labels: list[int] = []
        parts: list[int] = []
        seen: set[str] = set()
        for label, package in enumerate(self.packages):
            counts = [0, 0, 0]
            for found in _modules(package):
                part = min(range(3), key=lambda k: counts[k] / SHARES[k])
                for text in found:
                    text = plain(names.sub(" ", text))
                    if text.lower() in seen or len(text.split()) < FEWEST_WORDS or sum(counts) == self.per_class:
                        continue
                    seen.add(text.lower())
                    texts.append(text)
                    labels.append(label)
                    parts.append(part)
                    counts[part] += 1
                if sum(counts) == self.per_class:
                    break
            if not sum(counts):
                raise DataError(f"docstrings: the installed package {package!r} has none in its source files")
        rows = np.asarray(parts)
        split = Split(*(np.flatnonzero(rows == part) for part in range(3)))
        return text_dataset("docstrings", texts, labels, self.packages, split)


def _modules(package: str) -> Iterator[list[str]]:
    """The prose of each module's docstrings, modules in an order that depends on their names alone."""
    root = _folder(package)
    modules = {}
    for path in root.rglob("*.py"):
        inside = path.relative_to(root)
        if not SKIPPED.intersection(inside.parts):
            modules[".".join([package, *inside.with_suffix("").parts])] = path
    for module in sorted(modules, key=lambda name: (stable_number(name), name)):
        try:
            if modules[module].stat().st_size > LARGEST_FILE:
                continue
            source = modules[module].read_text(encoding="utf-8")
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # about escapes in other people's strings
                tree = ast.parse(source)
        except (SyntaxError, ValueError, OSError):  # templates that only look like Python
            continue
        found = [prose for text in _docstrings(tree) if (prose := _prose(text))]
        # Evenly spaced over the module, since its first functions are often variants of one another.
        rows = np.unique(np.linspace(0, len(found) - 1, PER_MODULE).astype(int)).tolist() if found else []
        yield [found[row] for row in rows]


def _docstrings(node: ast.AST) -> Iterator[str]:
    """Docstrings of a module and of the classes and functions in it, not of functions inside functions."""
    if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
        text = ast.get_docstring(node)
        if text:
            yield text
        if isinstance(node, (ast.Module, ast.ClassDef)):
            for child in node.body:
                yield from _docstrings(child)


def _prose(docstring: str) -> str:
    """The paragraphs before the first section, at most three."""
    kept: list[str] = []
    for paragraph in re.split(r"\n\s*\n", docstring):
        if _SECTION.match(paragraph) or len(kept) == MOST_PARAGRAPHS:
            break
        kept.append(paragraph)
    text = plain(" ".join(kept))
    return text if len(text.split()) >= FEWEST_WORDS else ""


def _folder(package: str) -> Path:
    """Where the source files of a package are; it is not imported."""
    if package == "python":
        return Path(sysconfig.get_paths()["stdlib"])
    found = find_spec(package) if package.isidentifier() else None
    if found is None or not found.submodule_search_locations:
        raise MissingDataError(
            f"docstrings: the package {package!r} is not installed; install it, or leave it out of "
            "domain.dataset.packages"
        )
    return Path(next(iter(found.submodule_search_locations)))


def _version(package: str) -> str:
    if package == "python":
        return platform.python_version()
    for distribution in packages_distributions().get(package, ()):
        try:
            return version(distribution)
        except PackageNotFoundError:
            continue
    return "(not installed)"
