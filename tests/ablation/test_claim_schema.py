import re
from pathlib import Path

import pytest

from sslcollapse.ablation.grid import plan
from sslcollapse.ablation.values import short
from sslcollapse.core.errors import RecipeError

GRID = (
    'name="a", base={"one": "tiny.py", "two": "other.py"}, baseline={"optim.lr": 0.1}, seeds=2, '
    'axes={"optim.lr": [0.1, 0.2, 0.3], ("encoder.hidden", "optim.warmup_steps"): [([4], 0), ([8, 8], 1)]}'
)
METRIC = 'metric="evaluation.public.test_accuracy", '


def planned_tests(workspace, *checks, grid=GRID):
    (workspace.folder / "other.py").write_text(workspace.recipe.read_text().replace("hidden=4", "hidden=5"))
    claim = f'claim=dict(number=1, statement="It helps", checks=[{", ".join(f"dict({check})" for check in checks)}])'
    return plan(workspace.ablation(f"{grid}, {claim}"), [], None, []).tests


def described(test):
    return test.group, [
        (point.position, [test.label(c) for c in point.cells], [test.label(c) for c in point.against])
        for point in test.points
    ]


def test_a_difference_has_one_test_for_every_value_base_and_combination_of_the_other_axes(workspace):
    tests = planned_tests(workspace, METRIC + 'name="x", expect="positive"')
    groups = [f"{base}, {other}" for base in ("one", "two") for other in ("1 layer of 4, warmup_steps=0",)]
    assert [described(test) for test in tests[:2]] == [
        (groups[0], [(None, [f"lr={lr}"], ["lr=0.1"])]) for lr in ("0.2", "0.3")
    ]
    assert len(tests) == 8


def test_where_restricts_and_validation_makes_one_test_of_several_cells(workspace):
    (test,) = planned_tests(
        workspace,
        METRIC + 'name="x", expect="positive", where={"base": "two", "encoder.hidden": [4]}, select="validation"',
    )
    assert described(test)[1] == [(None, ["lr=0.2", "lr=0.3"], ["lr=0.1"])]
    assert (test.check.probe, test.points[0].cells[0].base) == ("public", "two")


def test_against_may_be_another_base_and_may_be_chosen_by_validation_too(workspace):
    tests = planned_tests(
        workspace,
        METRIC + 'name="x", expect="none", margin=1, against={"base": "one"}',
        METRIC + 'name="y", expect="negative", cell={"optim.lr": 0.1}, against={"optim.lr": [0.2, 0.3]}, '
        'select="validation", where={"base": "one", "encoder.hidden": [[8, 8]]}',
    )
    assert described(tests[0]) == ("lr=0.1, 1 layer of 4, warmup_steps=0", [(None, ["two"], ["one"])])
    assert len(tests) == 7
    assert described(tests[6])[1] == [(None, ["lr=0.1"], ["lr=0.2", "lr=0.3"])]


def test_slopes_and_trends_have_one_point_a_value_of_their_axis(workspace):
    slope = METRIC + 'name="x", kind="slope", expect="negative", along="encoder.hidden", where={"base": "one"}'
    trend = METRIC + 'name="y", kind="trend", expect="positive", along="optim.lr", where={"base": "one"}'
    tests = planned_tests(workspace, slope, trend)
    assert described(tests[0]) == ("one", [(4, ["lr=0.2"], ["lr=0.1"]), (8, ["lr=0.2"], ["lr=0.1"])])
    assert len(tests) == 4
    assert [position for position, *_ in described(tests[2])[1]] == [0.1, 0.2, 0.3]
    across = METRIC + 'name="x", kind="slope", expect="positive", along="base", along_values=[7, 3]'
    by_base = planned_tests(workspace, across)
    assert [point.position for point in by_base[0].points] == [7, 3]


def test_a_correlation_is_over_all_cells_of_each_base(workspace):
    tests = planned_tests(
        workspace,
        METRIC + 'name="x", kind="correlation", with_metric="rank.representation.effective_rank", expect="positive"',
    )
    assert [(test.group, len(test.points[0].cells)) for test in tests] == [("one", 6), ("two", 6)]


@pytest.mark.parametrize(
    ("check", "message"),
    [
        ('name="x", expect="positive", metrik="a"', "metrik: unknown field of a difference; did you mean"),
        ('name="x", expect="positive", with_metric="a"', "with_metric: unknown field of a difference"),
        ('name="x", metric="evaluation.public.test_accuracy"', "expect is missing"),
        (METRIC + 'name="x", expect="positiv"', "expect: 'positiv' is none of .*; did you mean 'positive'"),
        (METRIC + 'name="x", expect="none"', "needs the largest effect that counts as none"),
        (
            'name="x", expect="none", metric="rank.layers.convs.1.weight.overlap"',
            "needs the largest effect that counts as none",
        ),
        (METRIC + 'name="x", expect="positive", margin=-1', "margin must be a number >= 0, got -1"),
        (METRIC + 'name="x", expect="positive", kind="slop"', "kind: 'slop' is none of .* did you mean 'slope'"),
        ('name="x", expect="positive", metric="evaluatoin.public.test_accuracy"', "did you mean 'evaluation'"),
        (
            'name="x", expect="positive", metric="evaluation.public.test_acuracy"',
            "no metric of a probe: .*did you mean 'test_accuracy'",
        ),
        ('name="x", expect="positive", metric="evaluation.public.tst_accuracy"', "did you mean 'test_accuracy'"),
        ('name="x", expect="positive", metric="rank.representation"', "no measured rank: 'representation' is none of"),
        ('name="x", expect="positive", metric="rank.reprsentation.effective_rank"', "did you mean 'representation'"),
        ('name="x", expect="positive", metric="evaluation.publik.test_accuracy"', "none of .* probes .* 'public'"),
        (METRIC + 'name="x", expect="positive", cell={"optim.lrr": 1}', "'optim.lrr' is none of .* 'optim.lr'"),
        (METRIC + 'name="x", expect="positive", cell={"optim.lr": 1}', r"no value 1 in this ablation \(values: 0.1"),
        (METRIC + 'name="x", expect="positive", cell={"optim.lr": 0.1}', "cell: no cell of the ablation is left"),
        (METRIC + 'name="x", expect="positive", select="test"', "select: 'test' is none of validation"),
        (METRIC + 'name="x", expect="positive", probe="public"', "whose validation metric select='validation' uses"),
        (METRIC + 'name="x", expect="positive", select="validation", probe="pub"', "did you mean 'public'"),
        (METRIC + 'name="x", kind="trend", expect="positive"', "along is missing"),
        (METRIC + 'name="x", kind="trend", expect="positive", along="base"', "give a list of 2 numbers, .*one, two"),
        (METRIC + 'name="x", kind="slope", expect="positive", along="optim.lr"', "`against` compares"),
        (
            METRIC + 'name="x", kind="trend", expect="positive", along="optim.lr", where={"optim.lr": 0.1}',
            "at least 2 values of optim.lr",
        ),
        (METRIC + 'name="x", kind="correlation", expect="positive", with_metric="rank"', "with_metric: 'rank' is no"),
        (
            METRIC + 'name="x", kind="correlation", expect="positive", with_metric="seconds.training", '
            'where={"optim.lr": 0.1}',
            "at least 6 cells of a base, got 2",
        ),
        (METRIC + 'name="", expect="positive"', "name must be one line of text"),
    ],
)  # fmt: skip
def test_a_wrong_check_is_refused_with_its_place(workspace, check, message):
    with pytest.raises(RecipeError, match=r"ablation.py: ablation.claim.checks(\[0\])?.*" + message):
        planned_tests(workspace, check)


@pytest.mark.parametrize(
    ("claim", "message"),
    [
        ("[1]", "claim must be a dict of number, statement"),
        ("dict(nummer=1)", "claim.nummer: unknown field; did you mean 'number'"),
        ('dict(number=-1, statement="x", checks=[1])', "claim.number must be a whole number of at least 0, got -1"),
        ('dict(number=1, statement=" ", checks=[1])', "claim.statement must be one line"),
        ('dict(number=1, statement="x", checks=[])', "a list of at least one check"),
        ('dict(number=1, statement="x", checks=[1])', r"claim.checks\[0\] must be a dict, got 1"),
    ],
)
def test_a_wrong_claim_is_refused_before_anything_runs(workspace, claim, message):
    with pytest.raises(RecipeError, match=message):
        plan(workspace.ablation(f'name="a", base="tiny.py", axes={{"optim.lr": [1, 2]}}, claim={claim}'), [], None, [])


def test_differences_need_something_to_be_taken_to_and_checks_names_of_their_own(workspace):
    check = METRIC + 'name="x", expect="positive"'
    with pytest.raises(RecipeError, match="has no baseline to take its place"):
        planned_tests(workspace, check, grid='name="a", base="tiny.py", axes={"optim.lr": [1, 2]}')
    with pytest.raises(RecipeError, match="2 checks have the name 'x'"):
        planned_tests(workspace, check, check)


def test_values_are_short_in_tables():
    assert short({"werank": {"type": "werank", "coefficient": {"type": "depth", "first": 0, "last": 1}}}) == (
        "werank(coefficient=depth(first=0, last=1))"
    )
    assert [short(value) for value in (None, {}, {"convs.0": 0.1}, [512, None], "BGRL", {"type": "gcn"})] == [
        "none", "none", "{convs.0: 0.1}", "[512, none]", "BGRL", "gcn",
    ]  # fmt: skip


def test_the_example_of_the_documentation_plans_its_tests(tmp_path):
    root = Path(__file__).parents[2]
    (example,) = re.findall(r"```python\n(.*?)```", (root / "docs/claims.md").read_text(), re.DOTALL)
    target = tmp_path / "example.py"
    target.write_text(example.replace('"../', f'"{root}/recipes/'))
    rise, _, slope, _ = plan(target, [], None, []).tests
    assert described(rise) == (
        "Cora, edge_drop=[0.1, 0.1], feature_mask=[0.1, 0.1]",
        [(None, ["werank(coefficient=0.001)", "werank(coefficient=0.01)"], ["werank=none"])],
    )
    assert [point.position for point in slope.points] == [0.1, 0.3, 0.5]
