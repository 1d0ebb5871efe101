"""Whatever a recipe, an override, a grid or a file of records says: planning takes it, or refuses it in a sentence."""

import traceback

import fuzz_attempts
import fuzz_inputs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

EXAMPLES = {kind: 100 if kind in ("recipe", "override") else 40 for kind in fuzz_inputs.INPUTS}


@pytest.mark.parametrize("kind", fuzz_inputs.INPUTS)
def test_no_input_ends_in_an_error_that_was_not_raised_for_people(kind):
    attempt, strategy = fuzz_inputs.INPUTS[kind]

    @settings(
        max_examples=EXAMPLES[kind],
        derandomize=True,
        **fuzz_inputs.SETTINGS,
    )
    @given(strategy)
    def every(arguments):
        found = fuzz_attempts.outcome(attempt, *arguments)
        if found.error is not None:
            trace = "".join(traceback.format_exception(found.error)[-6:])
            pytest.fail(f"{fuzz_attempts.shown(kind, arguments)}\n{trace}", pytrace=False)

    every()


def test_the_fuzz_sees_what_it_looks_for():
    def broken(value):
        return value.missing

    found = [
        fuzz_attempts.outcome(broken, 3),
        *(fuzz_attempts.outcome(fuzz_attempts.plan_recipe, recipe) for recipe in ({}, fuzz_attempts.BASES[0])),
    ]
    assert [each.kind for each in found] == ["traceback", "RecipeError", "accepted"]


@pytest.mark.parametrize("base", range(len(fuzz_attempts.BASES)))
def test_every_base_that_is_changed_is_itself_accepted(base):
    fuzz_attempts.plan_recipe(fuzz_attempts.BASES[base])


@given(st.sampled_from(fuzz_attempts.BASES))
@settings(max_examples=5, derandomize=True, database=None, deadline=None)
def test_no_base_is_changed_by_planning(base):
    before = repr(base)
    fuzz_attempts.plan_recipe(base)
    assert repr(base) == before
