"""The house stands as it is drawn: who may import whom, one name for one class, files that can be read to their end."""

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "sslcollapse"
LONGEST = 350
COMPONENTS = {"encoders", "objectives", "regularizers", "optim", "probes", "domains"}
BELOW_COMPONENTS = {"core", "layers", "recipe", "nn"}
PARTS = COMPONENTS | BELOW_COMPONENTS | {"rank", "runs"}

ARROWS = {
    "core": set(),
    "layers": {"core"},
    "recipe": {"core"},
    "nn": {"core", "layers"},
    **dict.fromkeys(COMPONENTS, BELOW_COMPONENTS),
    "rank": {"core", "layers", "nn"},
    "runs": {"core", "recipe", "the version"},
    "training": PARTS | {"the version"},
    "ablation": PARTS | {"training"},
    "report": PARTS | {"ablation"},
    "integrations": {"core", "layers", "nn", "rank", "regularizers"},
    "testing": PARTS | {"training"},
    "cli": PARTS | {"training", "ablation", "report", "testing", "start"},
    "start": PARTS | {"training", "cli"},
    "the version": PARTS | {"training", "testing"},
}
"""Room → the rooms that it may import beside itself; "the version" is ``sslcollapse/__init__.py``, the public names."""

EXCEPTIONS = {
    (
        "rank.diagnose.targets",
        "runs.export",
    ): "a diagnosis reads run directories and exports, at the moment when it has one",
    ("rank.diagnose.targets", "runs.rebuild"): "the same",
    ("rank.diagnose.targets", "training.checkpoint"): "the same, of a run without an export",
    ("rank.diagnose.targets", "training.build"): "the domain of a recipe gives the inputs that the network is run on",
    ("rank.diagnose.targets", "recipe"): "the recipe that --data names",
    ("rank.diagnose.networks", "encoders.timm"): "a target timm:MODEL",
    ("rank.diagnose.document", "report.page"): "a diagnosis is also a page, which looks like every other",
    ("rank.diagnose.document", "report.plot"): "the same",
    ("rank.diagnose.document", "report.tables"): "the same",
}
"""(Room, folder or file that imports, module that is imported) → why no other way is better."""


def name_of(path: Path) -> str:
    """Dotted name of a file of the package, without the package: ``core.errors``; "" of its ``__init__``."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


SOURCES = {name_of(path): path.read_text(encoding="utf-8") for path in sorted(PACKAGE.rglob("*.py"))}


def room_of(module: str) -> str:
    """The room that a module is in."""
    return module.partition(".")[0] or "the version"


def imports(module: str, source: str) -> Iterator[str]:
    """Modules of the package that a source imports, those inside functions and for types alone too."""
    for node in ast.walk(ast.parse(source)):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{module}: write imports from the package's name on"
            inside = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if name.removeprefix("sslcollapse.") in SOURCES else node.module for name in inside]
        for name in names:
            if name.partition(".")[0] == "sslcollapse":
                yield name.removeprefix("sslcollapse").removeprefix(".")


def excused(module: str, imported: str) -> tuple[str, str] | None:
    """The exception that an import falls under."""
    for place, target in EXCEPTIONS:
        if f"{module}.".startswith(f"{place}.") and imported == target:
            return place, target
    return None


def broken(module: str, source: str) -> list[str]:
    """Imports of a module that no arrow allows."""
    room = room_of(module)
    return [
        f"{module or 'sslcollapse'} imports {imported or 'sslcollapse'}: {room} may import {sorted(ARROWS[room])}"
        for imported in imports(module, source)
        if room_of(imported) not in ARROWS[room] | {room} and excused(module, imported) is None
    ]


def trespasses(module: str, source: str) -> list[str]:
    """Imports from inside a domain that the domain's own files do not make."""
    folders = {".".join(name.split(".")[:2]) for name in SOURCES if name.count(".") == 2 and room_of(name) == "domains"}
    return [
        f"{module} imports {imported}"
        for imported in imports(module, source)
        for folder in folders
        if f"{imported}.".startswith(f"{folder}.") and not f"{module}.".startswith(f"{folder}.")
    ]


def test_every_room_has_its_arrows():
    assert {room_of(module) for module in SOURCES} <= ARROWS.keys()


def test_rooms_import_those_alone_that_the_arrows_allow():
    assert [line for module, source in SOURCES.items() for line in broken(module, source)] == []


def test_nothing_outside_a_domain_imports_from_its_inside():
    assert [line for module, source in SOURCES.items() for line in trespasses(module, source)] == []


def test_every_exception_is_still_needed():
    used = {excused(module, name) for module, source in SOURCES.items() for name in imports(module, source)}
    assert EXCEPTIONS.keys() - used == set()


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("core.errors", "from sslcollapse.recipe.check import quote"),
        ("recipe.check", "import sslcollapse.nn.init"),
        ("optim.adamw", "def build():\n    from sslcollapse.training.module import SSLModule"),
        ("regularizers.ldreg", "from sslcollapse.objectives import base"),
        ("rank.measure", "from sslcollapse.training.build import build_domain"),
        ("training.module", "if TYPE_CHECKING:\n    from sslcollapse.ablation.grid import Cell"),
        ("core.files", "from sslcollapse import __version__"),
    ],
)
def test_an_arrow_that_is_broken_is_seen_wherever_the_import_stands(module, line):
    (found,) = broken(module, line)
    assert found.startswith(f"{module} imports ")


def test_a_look_into_a_domain_is_seen():
    line = "from sslcollapse.domains.graph.view import GraphView"
    assert trespasses("encoders.gcn", line) == ["encoders.gcn imports domains.graph.view"]
    assert trespasses("domains.vision.domain", line) == ["domains.vision.domain imports domains.graph.view"]
    assert trespasses("domains.graph.domain", line) == []


def test_no_two_classes_have_one_name():
    places = defaultdict(list)
    for module, source in SOURCES.items():
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.ClassDef):
                places[node.name].append(module)
    assert {name: modules for name, modules in places.items() if len(modules) > 1} == {}


def test_no_file_is_too_long_to_be_read_to_its_end():
    lengths = {module: source.count("\n") for module, source in SOURCES.items()}
    assert {module: length for module, length in lengths.items() if length > LONGEST} == {}


def test_every_file_that_the_design_names_is_there():
    text = (PACKAGE.parent / "docs" / "design.md").read_text(encoding="utf-8")
    named = re.findall(r"`([\w/]+\.py)`", text)
    names = {path.name for folder in (PACKAGE, PACKAGE.parent / "tests") for path in folder.rglob("*.py")}
    there = [name in names or (PACKAGE / name).is_file() or (PACKAGE.parent / name).is_file() for name in named]
    assert len(named) > 50
    assert [name for name, known in zip(named, there, strict=True) if not known] == []
