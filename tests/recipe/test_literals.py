"""Values on the command line are written as in a recipe."""

import pytest

from sslcollapse.cli import main
from sslcollapse.recipe import load, override
from sslcollapse.recipe.literals import literal


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3),
        (" [64, 32] ", [64, 32]),
        ("dict()", {}),
        ("dict(type='band', value=-1e-2)", {"type": "band", "value": -0.01}),
        ("[dict(a=1), {'b': dict(c=(1, 2))}]", [{"a": 1}, {"b": {"c": (1, 2)}}]),
    ],
)
def test_a_literal_may_hold_dicts_written_as_calls(text, value):
    assert literal(text) == value


@pytest.mark.parametrize("text", ["dict(1)", "dict(**{})", "list()", "dict(a=open('x'))", "dict(a=b)", "x.dict(a=1)"])
def test_nothing_else_is_called(text):
    with pytest.raises(ValueError, match="malformed node"):
        literal(text)


def test_a_component_is_written_on_the_command_line_as_in_a_recipe(capsys):
    changed = override(
        load("recipes/quickstart.py"), ["regularizers.werank=dict(type='werank', coefficient=dict(type='rank_floor'))"]
    )
    assert changed["regularizers"]["werank"]["coefficient"] == {"type": "rank_floor"}
    assert main(["ablate", "recipes/quickstart.py", "--grid", "regularizers.werank=None,dict(type=", "--seeds=1"]) == 2
    assert "'dict(type=' is no Python literal; close brackets" in capsys.readouterr().err
