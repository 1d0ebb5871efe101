import hashlib
import subprocess
import sys
from types import SimpleNamespace

import pytest

from sslcollapse.core import registry as registry_module
from sslcollapse.core.errors import SSLCollapseError, suggest
from sslcollapse.core.registry import REGISTRIES, Registry, RegistryError


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
    monkeypatch.setattr(registry_module, "entry_points", lambda group: points.get(group, []))
    registry = tools()
    assert registry.names() == ["counter", "fraction", "ruler"]
    assert registry.describe("fraction").startswith("This class implements rational numbers")


def test_an_entry_point_cannot_take_a_name_that_is_in_use(monkeypatch):
    point = SimpleNamespace(name="counter", value="elsewhere:Counter")
    monkeypatch.setattr(registry_module, "entry_points", lambda group: [point])
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
    core = ["core", "core.texts", "core.errors", "core.registry"]
    assert run.stdout.strip() == str(sorted(f"sslcollapse.{name}" for name in [*core, *rooms]))
