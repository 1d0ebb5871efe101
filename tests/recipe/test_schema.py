import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest

from sslcollapse.core.errors import RecipeError
from sslcollapse.core.registry import REGISTRIES, Registry
from sslcollapse.recipe.check import check
from sslcollapse.recipe.schema import Above, AtLeast, Between, Coefficient, Component, Distinct, Named, Word
from sslcollapse.recipe.spec import TrainSpec


@dataclass(frozen=True)
class Blade:
    width: float
    teeth: Annotated[int, AtLeast(2)] | None = None
    material: Literal["steel", "wood"] = "steel"

    def __post_init__(self) -> None:
        if self.width > 9:
            raise ValueError(f"width must be at most 9, got {self.width}")


class Saw:
    """Cuts."""

    def __init__(
        self,
        *,
        blade: Blade = Blade(1.0),
        spare: Annotated[dict, Component("tool")] | None = None,
        strength: Coefficient = 1,
        angles: Sequence[float] = (1, 2),
    ) -> None:
        if len(angles) > 3:
            raise ValueError(f"at most 3 angles, got {len(angles)}")


class Drill:
    """Drills; its size is supplied."""

    def __init__(self, size: int, *, depth: int) -> None:
        raise ValueError("must not be constructed by a check")


class Unshown:
    def __repr__(self) -> str:
        raise KeyError(1)


class Fragile:
    """Checks its argument by failing."""

    def __init__(self, *, part: int = 0) -> None:
        self.half = [1, 2][part]


class Fade:
    """A coefficient."""

    def __init__(self, *, base: Coefficient) -> None:
        self.base = base


@pytest.fixture(autouse=True)
def registries(monkeypatch):
    tools = Registry("tool", {"broken": "no_such_package:Tool"})
    tools.register("saw")(Saw)
    tools.register("drill")(Drill)
    tools.register("fragile")(Fragile)
    coefficients = Registry("coefficient", {})
    coefficients.register("fade")(Fade)
    monkeypatch.setitem(REGISTRIES, "tool", tools)
    monkeypatch.setitem(REGISTRIES, "coefficient", coefficients)


TOOL = Annotated[dict, Component("tool")]
SAW = {
    "type": "saw",
    "blade": {"width": 1.0, "teeth": None, "material": "steel"},
    "spare": None,
    "strength": 1.0,
    "angles": [1.0, 2.0],
}


@pytest.mark.parametrize(
    ("value", "annotation", "resolved"),
    [
        (3, int, 3),
        (3, float, 3.0),
        (True, bool, True),
        ("a", str, "a"),
        (None, None, None),
        (None, int | None, None),
        (1, int | float, 1),
        (1, float | None, 1.0),
        ("auto", bool | Literal["auto"], "auto"),
        (False, bool | Literal["auto"], False),
        ((1, 2), Sequence[int], [1, 2]),
        ([1, 2], tuple[float, int], [1.0, 2]),
        ((1, 2, 3), tuple[int, ...], [1, 2, 3]),
        ({"a": 1}, Mapping[str, float], {"a": 1.0}),
        ({"a": (1, {"b": None})}, Any, {"a": [1, {"b": None}]}),
        ({"a": 1}, dict[str, Any], {"a": 1}),
        (2, Annotated[int, AtLeast(2)], 2),
        ("run-1.b", Annotated[str, Word()], "run-1.b"),
        (0, Coefficient, 0.0),
        ({"convs.*": 1}, Coefficient, {"convs.*": 1.0}),
        ({"type": "fade", "base": {"type": "fade", "base": 1}}, Coefficient, None),
    ],
)
def test_accepted_values_resolve_to_json_of_the_annotated_type(value, annotation, resolved):
    result = check(value, annotation, "x")
    if resolved is not None or value is None:
        assert result == resolved
        assert type(result) is type(resolved)
    assert json.loads(json.dumps(result)) == result
    assert check(result, annotation, "x") == result


@pytest.mark.parametrize(
    ("value", "annotation", "message"),
    [
        (True, int, "x: expected an int, got True"),
        (3.0, int, "x: expected an int, got 3.0"),
        (1, bool, "x: expected True or False, got 1"),
        ("true", bool, "x: expected True or False, got 'true'; write True"),
        ("1", float, "x: expected a number, got '1'"),
        (False, float, "x: expected a number, got False"),
        (math.nan, float, "x: must be finite, got nan"),
        (math.inf, float, "x: must be finite, got inf"),
        (math.inf, Any, "x: must be finite, got inf"),
        ({"a": [math.nan]}, Any, "x.a[0]: must be finite, got nan"),
        (7, str, "x: expected a string, got 7; as a string it is '\"7\"' on the command line"),
        (None, int, "x: expected an int, got None"),
        ("abc", Sequence[int], "x: expected a list of int, got 'abc'"),
        (4, list[float], "x: expected a list of numbers, got 4"),
        ([1, "a"], Sequence[int], "x[1]: expected an int, got 'a'"),
        ([1], tuple[int, int], "x: expected 2 values, got [1]"),
        ({"a": "b"}, Mapping[str, float], "x.a: expected a number, got 'b'"),
        ({1: 2}, Mapping[str, int], "x: keys must be strings, got 1"),
        ([1], Mapping[str, int], "x: expected a dict, got [1]"),
        ("bacth", Literal["batch", "none"], "'batch', 'none', got 'bacth'; did you mean 'batch'?"),
        (1, Literal[True], "x: expected True, got 1"),
        (
            "atuo",
            bool | Literal["auto"],
            "x: expected True or False or 'auto', got 'atuo'; did you mean 'auto'?",
        ),
        ("a", int | None, "x: expected an int or None, got 'a'"),
        (1, Annotated[int, AtLeast(2)], "x: must be >= 2, got 1"),
        (1, Annotated[int, AtLeast(2)] | None, "x: must be >= 2, got 1"),
        ("../a", Annotated[str, Word()], "x: must be made of letters, digits, '_', '-' and '.', got '../a'"),
        (".a", Annotated[str, Word()], "got '.a'"),
        (Path("a"), Any, "cannot be written as JSON"),
        ({1, 2}, Any, "x: {1, 2} cannot be written as JSON"),
        (-0.1, Coefficient, "x: a coefficient must be a finite number >= 0, got -0.1"),
        (math.nan, Coefficient, "x: a coefficient must be a finite number >= 0, got nan"),
        ({"convs.0": -1}, Coefficient, "x['convs.0']: a coefficient must be a finite number >= 0, got -1"),
        (True, Coefficient, "x: expected a finite number >= 0, a dict of layer names or globs"),
        ({"type": "fad"}, Coefficient, "x.type: unknown coefficient 'fad'; did you mean 'fade'?"),
        ({"type": "fade", "base": -1}, Coefficient, "x.base: a coefficient must be a finite number"),
        (object(), Path, "cannot come from a recipe"),
        (5, Annotated[float, Between(0, 1)], "x: must be in [0, 1], got 5"),
        (1.0, Annotated[float, Between(0, 1, open="right")], "x: must be in [0, 1), got 1.0"),
        (0, Annotated[float, Between(0, 1, open="left")], "x: must be in (0, 1], got 0"),
        (0.0, Annotated[float, Above(0)], "x: must be > 0, got 0.0"),
        ([1, 0], Sequence[Annotated[int, AtLeast(1)]], "x[1]: must be >= 1, got 0"),
        ("a", Sequence[Annotated[int, AtLeast(1)]], "x: expected a list of int >= 1, got 'a'"),
        (["a", "b", "a"], Annotated[Sequence[str], Distinct()], "x: 'a' is there twice, in ['a', 'b', 'a']"),
        (2**63, int, "x: must be <= 9223372036854775807, got 9223372036854775808"),
        (-(2**64), Any, "x: must be >= -9223372036854775807, got -18446744073709551616"),
        (10**400, float, "x: must be finite, got 1000"),
        (Unshown(), int, "x: expected an int, got a value of type Unshown"),
    ],
)
def test_refused_values_are_quoted_with_their_place(value, annotation, message):
    with pytest.raises(RecipeError) as error:
        check(value, annotation, "x")
    assert message in str(error.value)


def test_a_component_gets_all_its_defaults():
    assert check({"type": "saw"}, TOOL, "x") == SAW


def test_spelling_a_default_out_changes_nothing():
    spelled = {"angles": [1, 2.0], "blade": {"width": 1}, "type": "saw", "strength": 1.0}
    assert check(spelled, TOOL, "x") == SAW


def test_a_component_inside_a_component_is_resolved_too():
    assert check({"type": "saw", "spare": {"type": "saw"}}, TOOL, "x")["spare"] == SAW


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"type": "saw", "blad": 1}, "x.blad: unknown argument of 'saw'; did you mean 'blade'?"),
        (
            {"type": "saw", "qqq": 1},
            "x.qqq: unknown argument of 'saw' (known: blade, spare, strength, angles)",
        ),
        ({"type": "drill", "size": 1}, "x.size: unknown argument of 'drill'"),
        ({"type": "sav"}, "x.type: unknown tool 'sav'; did you mean 'saw'?"),
        ({"type": 3}, "x.type: expected a string, got 3"),
        ({"blade": {}}, "x: needs 'type' (known: broken, drill, fragile, saw)"),
        ("saw", "got 'saw'; did you mean {'type': 'saw'}?"),
        ({"type": "drill"}, "x.depth: missing argument of 'drill'; give it an int"),
        (
            {"type": "saw", "blade": {"width": 1, "teeht": 3}},
            "x.blade.teeht: unknown field of 'x.blade'; did you",
        ),
        ({"type": "saw", "blade": {}}, "x.blade.width: missing field of 'x.blade'; give it a number"),
        ({"type": "saw", "blade": 3}, "x.blade: expected a dict, got 3"),
        ({"type": "saw", "blade": {"width": 10}}, "x.blade: width must be at most 9, got 10.0"),
        ({"type": "saw", "blade": {"width": 1, "teeth": 1}}, "x.blade.teeth: must be >= 2, got 1"),
        ({"type": "saw", "spare": {"type": "sa"}}, "x.spare.type: unknown tool 'sa'; did you mean 'saw'?"),
        ({"type": "saw", "angles": [1, 2, 3, 4]}, "x: at most 3 angles, got 4"),
        ({"type": "fragile", "part": 3}, "x: IndexError: list index out of range"),
        (
            {"type": "broken"},
            "x.type: tool 'broken': the package no_such_package is not installed; "
            "install it with: pip install no_such_package",
        ),
    ],
)
def test_mistakes_in_a_component_name_the_dotted_path(value, message):
    with pytest.raises(RecipeError) as error:
        check(value, TOOL, "x")
    assert message in str(error.value)


def test_a_component_that_needs_supplied_arguments_is_not_constructed():
    assert check({"type": "drill", "depth": 2}, TOOL, "x") == {"type": "drill", "depth": 2}


def test_named_components_are_resolved_and_none_is_left_out():
    named = Annotated[dict, Named("tool")]
    assert check({"first": {"type": "saw"}, "second": None}, named, "x") == {"first": SAW}
    assert check(None, named, "x") == {}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"a.b": {"type": "saw"}}, "x: a name is made of letters, digits, '_' and '-', got 'a.b'"),
        ({"a": {"type": "sow"}}, "x.a.type: unknown tool 'sow'; did you mean 'saw'?"),
        ([], "x: expected a dict of named tools, each a dict with 'type', got []"),
    ],
)
def test_mistakes_in_named_components_name_the_dotted_path(value, message):
    with pytest.raises(RecipeError) as error:
        check(value, Annotated[dict, Named("tool")], "x")
    assert message in str(error.value)


def test_train_needs_steps():
    with pytest.raises(RecipeError, match=r"train.steps: missing field of 'train'; give it an int"):
        check({}, TrainSpec, "train")


def test_a_long_value_is_shortened_in_messages():
    with pytest.raises(RecipeError, match=r"got '0{76}\.\.\.$"):
        check("0" * 500, int, "x")
