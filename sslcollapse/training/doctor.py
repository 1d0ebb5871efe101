"""What of this package works on this machine: packages, devices, data; no network is asked."""

from __future__ import annotations

import os
import platform
import re
import tempfile
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from sslcollapse import __version__
from sslcollapse.core.errors import SSLCollapseError
from sslcollapse.core.registry import REGISTRIES
from sslcollapse.recipe.files import examples
from sslcollapse.training.build import DATA_ROOT_VARIABLE

REQUIREMENT = re.compile(r"([\w.-]+)(?:\[[\w,-]+\])?\s*([<>=!~][^;]*)?(?:;.*extra\s*==\s*[\"'](\w+)[\"'])?")


def examine() -> dict[str, Any]:
    """What is installed, which devices and data there are, and what does not work; could be JSON."""
    packages = _packages()
    problems = [
        f"{package['name']} {package['version'] or 'is not installed'}; {package['needs']} is needed: pip install "
        f"'{package['name']}{package['needs']}'"
        for package in packages
        if package["extra"] is None and not package["fits"]
    ]
    devices = _devices() if not any(problem.startswith("torch ") for problem in problems) else {}
    kinds, broken = _kinds()
    return {
        "sslcollapse": __version__,
        "place": str(Path(__file__).parents[1]),
        "python": platform.python_version(),
        "system": platform.platform(),
        "packages": packages,
        "devices": devices,
        "components": kinds,
        "data_root": str(_root().resolve()),
        "data_root_from": DATA_ROOT_VARIABLE if os.environ.get(DATA_ROOT_VARIABLE) else "the default, ./data",
        "data": list(_data()),
        "examples": sorted(path.stem for path in examples().glob("*.py")),
        "examples_in": str(examples()),
        "problems": [*problems, *broken, *_unwritable()],
    }


def shown(found: dict[str, Any]) -> str:
    """The same for people."""
    lines = [
        f"sslcollapse {found['sslcollapse']} in {found['place']}",
        f"Python {found['python']}, {found['system']}",
        "",
    ]
    lines.append("packages")
    for package in found["packages"]:
        if package["extra"] is None:
            lines.append(
                f"  {package['name']:<18} {package['version'] or 'missing':<10} needs {package['needs'] or 'any'}"
            )
    extras: dict[str, list[str]] = {}
    for package in found["packages"]:
        if package["extra"] is not None:
            extras.setdefault(package["extra"], []).extend([] if package["fits"] else [package["name"]])
    lines += ["", "extras (pip install 'sslcollapse[NAME]')"]
    lines += [f"  {name:<18} {'lacks ' + ', '.join(lacks) if lacks else 'there'}" for name, lacks in extras.items()]
    lines += ["", "devices", *(f"  {name:<18} {words}" for name, words in found["devices"].items())]
    lines += ["", f"data in {found['data_root']} (from {found['data_root_from']})"]
    lines += [f"  {each['name']:<28} {each['state']}" for each in found["data"]]
    counted = ", ".join(f"{count} of {kind}" for kind, count in found["components"].items())
    lines += ["", f"components: {counted}"]
    lines += [f"examples: {len(found['examples'])} recipes in {found['examples_in']}, found by name (quickstart)", ""]
    if not found["problems"]:
        return "\n".join([*lines, "Everything that is required is there."])
    return "\n".join([*lines, "What does not work:", *(f"  {problem}" for problem in found["problems"])])


def _packages() -> list[dict[str, Any]]:
    """Every requirement of this package: its name, what is installed, what is needed, and the extra it belongs to."""
    try:
        stated = requires("sslcollapse") or []
    except PackageNotFoundError:  # run from a clone without installation
        stated = []
    found = []
    for line in stated:
        matched = REQUIREMENT.match(line)
        if matched is None or matched[1] == "sslcollapse":
            continue
        name, needs, extra = matched[1], (matched[2] or "").strip(), matched[3]
        try:
            there: str | None = version(name)
        except PackageNotFoundError:
            there = None
        found.append({"name": name, "version": there, "needs": needs, "extra": extra, "fits": _fits(there, needs)})
    return found


def _fits(there: str | None, needs: str) -> bool:
    if there is None:
        return False
    from packaging.specifiers import SpecifierSet

    return SpecifierSet(needs).contains(there, prereleases=True)


def _devices() -> dict[str, str]:
    import torch

    found = {"processor": f"{os.cpu_count()} cores, {torch.get_num_threads()} threads of torch"}
    for index in range(torch.cuda.device_count()):
        about = torch.cuda.get_device_properties(index)
        found[f"cuda:{index}"] = (
            f"{about.name}, {about.total_memory / 2**30:.0f} GiB, capability {about.major}.{about.minor}"
        )
    if torch.backends.mps.is_available():
        found["mps"] = "there; not tried with this package"
    if len(found) == 1:
        found["GPU"] = "none that torch sees"
    return found


def _kinds() -> tuple[dict[str, int], list[str]]:
    """Kind → how many components; and plug-ins that cannot be read."""
    counts, broken = {}, []
    try:
        kinds = list(REGISTRIES)
    except SSLCollapseError as error:
        return {}, [str(error)]
    for kind in kinds:
        try:
            counts[kind] = len(REGISTRIES[kind].names())
        except SSLCollapseError as error:
            broken.append(str(error))
    return counts, broken


def _root() -> Path:
    return Path(os.environ.get(DATA_ROOT_VARIABLE) or "data")


def _data() -> Iterator[dict[str, str]]:
    """Every data set of a recipe's that needs no more than its name, and whether its files are there."""
    for kind in ("graph_dataset", "vision_dataset"):
        registry = REGISTRIES[kind]
        for name in registry.names():
            try:
                for spec in _specs(kind, name):
                    files = registry.build(spec, _root()).files()
                    missing = sum(not file.exists() for file in files)
                    title = " ".join(str(value) for value in spec.values())
                    state = f"{missing} of {len(files)} files missing" if missing else "there" if files else "embedded"
                    yield {"name": f"{kind.partition('_')[0]} {title}", "state": state}
            except (SSLCollapseError, ImportError, OSError) as error:
                yield {"name": f"{kind.partition('_')[0]} {name}", "state": f"cannot be read: {error}"}


def _specs(kind: str, name: str) -> Iterator[dict[str, Any]]:
    """The recipes of a data set: one for each of its names; none where it has other arguments that must be given."""
    needed = {key: p for key, p in REGISTRIES[kind].parameters(name).items() if p.default is p.empty}
    if not needed:
        yield {"type": name}
    elif needed.keys() == {"name"} and get_origin(needed["name"].annotation) is Literal:
        for choice in get_args(needed["name"].annotation):
            yield {"type": name, "name": choice}


def _unwritable() -> list[str]:
    """What a run could not write here."""
    try:
        with tempfile.TemporaryFile(dir=Path.cwd()):
            return []
    except OSError as error:
        return [f"{Path.cwd()}: nothing can be written here ({error.strerror}); runs need --out DIR"]
