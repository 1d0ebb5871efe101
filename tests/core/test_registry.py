import hashlib
import subprocess
import sys
from types import SimpleNamespace

import pytest

from sslcollapse.core import kind as kind_module
from sslcollapse.core import registry as registry_module
from sslcollapse.core.errors import SSLCollapseError, suggest
from sslcollapse.core.registry import KINDS, REGISTRIES, Registries, Registry, RegistryError


class Ruler:
    """Measures.

    And more.
    """

    def __init__(self, in_dim: int, *, length: int = 3, unit: str = "cm") -> None:
        if length < 1:
            raise ValueError(f"length must be at least 1, got {length}")
        self.in_dim, self.length, self.unit = in_dim, length, unit


def tools() -> Registry:
    registry = Registry("tool", {"counter": "collections:Counter"})
    registry.register("ruler")(Ruler)
    return registry


def test_build_passes_supplied_values_by_position_and_recipe_arguments_by_name():
    ruler = tools().build({"type": "ruler", "length": 5}, 7)
    assert (ruler.in_dim, ruler.length, ruler.unit) == (7, 5, "cm")


def test_only_keyword_only_parameters_are_recipe_arguments():
    assert list(tools().parameters("ruler")) == ["length", "unit"]


def test_an_unknown_name_is_suggested_and_all_are_listed():
    with pytest.raises(RegistryError, match=r"unknown tool 'rular'; did you mean 'ruler'\? \(known: counter, ruler\)"):
        tools().get("rular")


def test_a_spec_without_type_lists_the_known_names():
    with pytest.raises(RegistryError, match=r"a tool needs 'type'; known: counter, ruler"):
        tools().build({"length": 3})


def test_what_a_constructor_refuses_is_named_by_its_component():
    with pytest.raises(RegistryError, match=r"tool 'ruler': length must be at least 1, got 0"):
        tools().build({"type": "ruler", "length": 0}, 7)


def test_registry_errors_are_shown_without_a_traceback():
    assert issubclass(RegistryError, SSLCollapseError)


def test_a_component_of_this_package_has_no_other_origin():
    assert REGISTRIES["encoder"].origin("gcn") is None


def test_the_origin_of_a_plug_in_is_its_distribution_with_the_version(tmp_path, monkeypatch):
    metadata = tmp_path / "my_package-1.2.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: my-package\nVersion: 1.2\n")
    (metadata / "entry_points.txt").write_text("[sslcollapse.tool]\nlevel = my_module:Level\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert Registry("tool", {}).origin("level") == "my-package 1.2"


@pytest.mark.parametrize("name", ["mine", "numpy"])
def test_the_origin_of_a_recipes_own_component_is_its_file_and_the_hash_of_its_source(tmp_path, monkeypatch, name):
    from sslcollapse.recipe import load

    for known in ("_targets", "_factories", "_places"):
        monkeypatch.setattr(REGISTRIES["probe"], known, dict(getattr(REGISTRIES["probe"], known)))
    recipe = tmp_path / f"{name}.py"
    source = """
from sslcollapse.core.registry import PROBES

@PROBES.register("origin_test")
class Mine: ...

recipe = dict(name="x")
"""
    recipe.write_text(source)
    load(recipe)
    expected = hashlib.sha256(source.encode()).hexdigest()[:12]
    assert REGISTRIES["probe"].origin("origin_test") == f"{name}.py sha256:{expected}"


def test_a_name_cannot_be_registered_twice():
    with pytest.raises(RegistryError, match=r"'counter' is already registered by collections:Counter; choose"):
        tools().register("counter")(Ruler)


def test_registering_the_same_class_again_is_harmless():
    registry = tools()
    registry.register("ruler")(Ruler)
    assert registry.get("ruler") is Ruler


def test_names_are_sorted_and_selected_by_glob():
    assert tools().names() == ["counter", "ruler"]
    assert tools().names("r*") == ["ruler"]


def test_describe_is_the_first_docstring_line():
    assert tools().describe("ruler") == "Measures."


def test_a_component_of_another_package_is_found_by_its_entry_point(monkeypatch):
    points = {"sslcollapse.tool": [SimpleNamespace(name="fraction", value="fractions:Fraction")]}
    monkeypatch.setattr(kind_module, "entry_points", lambda group: points.get(group, []))
    registry = tools()
    assert registry.names() == ["counter", "fraction", "ruler"]
    assert registry.describe("fraction").startswith("This class implements rational numbers")


def test_an_entry_point_cannot_take_a_name_that_is_in_use(monkeypatch):
    point = SimpleNamespace(name="counter", value="elsewhere:Counter")
    monkeypatch.setattr(kind_module, "entry_points", lambda group: [point])
    with pytest.raises(RegistryError, match=r"elsewhere:Counter takes the same name"):
        Registry("tool", {"counter": "collections:Counter"}).names()


def test_a_far_word_gets_no_suggestion():
    assert suggest("zzz", ["encoder"]) == ""


@pytest.mark.parametrize("kind", list(REGISTRIES))
def test_every_component_has_a_one_line_description(kind):
    for name in REGISTRIES[kind].names():
        assert REGISTRIES[kind].describe(name), f"{kind} {name} has no docstring"


def test_describing_every_component_imports_none():
    code = (
        "import sys; from sslcollapse.core.registry import REGISTRIES\n"
        "for r in REGISTRIES.values():\n"
        "    for name in r.names(): r.describe(name)\n"
        "print(sorted(m for m in sys.modules if m.startswith(('torch', 'sklearn', 'sslcollapse.'))))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    rooms = ["encoders", "objectives", "regularizers", "optim", "domains", "domains.graph", "domains.vision", "probes"]
    core = ["core", "core.texts", "core.errors", "core.kind", "core.registry"]
    assert run.stdout.strip() == str(sorted(f"sslcollapse.{name}" for name in [*core, *rooms]))


def with_points(monkeypatch, *points):
    monkeypatch.setattr(registry_module, "entry_points", lambda group: points if group == KINDS else [])


def test_another_package_adds_a_kind_of_its_own_which_is_used_as_the_others_are():
    known = Registries(tools())
    added = known.add(Registry("word_dataset", {"pets": "collections:Counter"}))
    assert known["word_dataset"] is added
    assert list(known) == ["tool", "word_dataset"]
    assert "word_dataset" in known
    assert len(known) == 2


def test_a_kind_of_this_package_or_of_another_file_cannot_be_taken():
    known = Registries(tools())
    with pytest.raises(RegistryError, match=r"there is a kind 'tool' already, from this package; choose another name"):
        known.add(Registry("tool"))
    exec("known.add(Registry('word_dataset'))", {"known": known, "Registry": Registry, "__file__": "/a/first.py"})
    with pytest.raises(RegistryError, match=r"'word_dataset' already, from /a/first.py"):
        known.add(Registry("word_dataset"))


def test_a_recipe_file_that_is_read_again_adds_its_kind_again():
    known = Registries()
    for _ in range(2):
        mine = known.add(Registry("word_dataset"))
    assert known["word_dataset"] is mine


def test_a_kind_that_an_installed_package_declares_is_known_without_importing_the_package_first(monkeypatch):
    declared = Registry("word_dataset")
    with_points(monkeypatch, SimpleNamespace(name="word_dataset", value="words:KIND", load=lambda: declared))
    known = Registries(tools())
    assert known["word_dataset"] is declared
    assert list(Registries(tools())) == ["tool", "word_dataset"]


def test_a_package_whose_kind_cannot_be_imported_is_named_and_no_other_kind_suffers(monkeypatch):
    def fail():
        raise ImportError("no pandas here")

    with_points(monkeypatch, SimpleNamespace(name="word_dataset", value="words:KIND", load=fail))
    known = Registries(tools())
    assert known["tool"].names() == ["counter", "ruler"]
    with pytest.raises(RegistryError, match=r"the entry point words:KIND declares cannot be .*pandas"):
        list(known)


@pytest.mark.parametrize("loaded", [Registry("sentences"), dict])
def test_an_entry_point_of_a_kind_that_is_none_is_refused(monkeypatch, loaded):
    with_points(monkeypatch, SimpleNamespace(name="word_dataset", value="words:KIND", load=lambda: loaded))
    with pytest.raises(RegistryError, match=r"words:KIND is no Registry\('word_dataset'\)"):
        list(Registries(tools()))


def test_what_every_component_of_a_kind_must_have_is_asked_when_it_is_built_without_calling_properties():
    class Half:
        @property
        def size(self):
            raise OSError("reads a file")

    registry = Registry("tool", requires=("size", "cut"), base="mine.Tool")
    registry.register("half")(Half)
    with pytest.raises(RegistryError, match=r"tool 'half': Half has no 'cut'; derive from mine.Tool, which has what"):
        registry.build({"type": "half"})
    Half.cut = None
    assert isinstance(registry.build({"type": "half"}), Half)


def test_a_recipe_that_asks_for_a_kind_that_nobody_adds_says_how_one_is_added():
    from typing import Annotated

    from sslcollapse.core.errors import RecipeError
    from sslcollapse.recipe.check import check
    from sslcollapse.recipe.schema import Component

    with pytest.raises(RecipeError, match=r"no kind of component 'graph_datasets'; did you mean 'graph_d"):
        check({"type": "x"}, Annotated[dict, Component("graph_datasets")], "dataset")
