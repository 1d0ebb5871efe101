"""The reference: every public name and every component has an entry, and every example in it is run."""

import doctest
import importlib.util
import re
from pathlib import Path

import pytest

import sslcollapse
from sslcollapse import REGISTRIES

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs/reference").glob("*.md"))
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
ENTRY = re.compile(r"^```\{(?:entry|component)\}\n(.*)\n```\n\n```pycon\n((?:.+\n)+?)```$", re.MULTILINE)


def examples(text: str) -> dict[str, str]:
    """Public name, or kind and name of a component → the example that follows its entry."""
    return dict(ENTRY.findall(text))


def asserting(code: str) -> bool:
    """Whether an example says what comes out of it."""
    return any(example.want for example in doctest.DocTestParser().get_examples(code))


WRITTEN = {name: code for page in PAGES for name, code in examples(page.read_text(encoding="utf-8")).items()}


def test_every_public_name_has_an_entry_with_an_example_that_shows_what_comes_out():
    without = sorted(name for name in sslcollapse.__all__ if not asserting(WRITTEN.get(name, "")))
    assert without == [], "write an entry and an example on a page of docs/reference/"


def test_every_component_of_this_package_has_an_entry_with_an_example_that_shows_what_comes_out():
    ours = {
        f"{kind} {name}"
        for kind, registry in REGISTRIES.items()
        for name in registry.names()
        if registry._targets[name].startswith("sslcollapse.")
    }
    assert len(ours) > 60
    assert sorted(name for name in ours if not asserting(WRITTEN.get(name, ""))) == [], (
        "write a block {component} with the kind and the name, and an example, on a page of docs/reference/"
    )


def test_every_entry_is_of_something_that_there_is():
    for name in WRITTEN:
        kind, _, component = name.partition(" ")
        assert component in REGISTRIES[kind].names() if component else name in sslcollapse.__all__


def test_an_entry_without_an_example_and_an_example_that_shows_nothing_are_seen():
    assert "train" not in examples("```{entry}\ntrain\n```\n\nwords\n")
    assert not asserting(examples("```{entry}\ntrain\n```\n\n```pycon\n>>> x = 1\n```\n")["train"])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_example_of_a_page_gives_what_it_shows(page, own_components):
    code = "\n".join(re.findall(r"^```pycon\n(.*?)```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL))
    test = doctest.DocTestParser().get_doctest(code, {"__name__": "__main__"}, page.stem, str(page), 0)
    told: list[str] = []
    doctest.DocTestRunner(optionflags=FLAGS).run(test, out=told.append)
    assert not told, "".join(told)


def from_site(module: str):
    """A file of tools/site."""
    spec = importlib.util.spec_from_file_location(f"site_{module}", ROOT / f"tools/site/{module}.py")
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def test_the_page_of_all_methods_is_what_its_command_writes():
    expected = from_site("methods").page()
    assert expected.count("\n| `") > 30
    assert (ROOT / "docs/methods.md").read_text(encoding="utf-8") == expected, "run python tools/docs.py methods"


def test_every_objective_and_regularizer_is_held_by_a_test_that_there_is():
    held = from_site("methods").EQUALITY
    for kind in ("objective", "regularizer"):
        assert {
            f"{kind} {name}" for name, at in REGISTRIES[kind]._targets.items() if at.startswith("sslcollapse.")
        } <= {*held}
    for place in held.values():
        file, _, name = place.partition("::")
        assert f"def {name}(" in (ROOT / file).read_text(encoding="utf-8")
