import json
from dataclasses import replace

import fake_worker
import pytest
from test_claims import METRIC, NOISE, Grid, around, rates

from sslcollapse.ablation import run_ablation
from sslcollapse.ablation.claims.judge import judge
from sslcollapse.ablation.claims.needs import needs, needs_lines
from sslcollapse.ablation.claims.verdict import verdict_lines
from sslcollapse.ablation.files import read_plan, write_files, write_plan
from sslcollapse.ablation.grid import plan
from sslcollapse.ablation.records import Records
from sslcollapse.ablation.statistics.intervals import student
from sslcollapse.ablation.statistics.power import look_levels, seeds_needed
from sslcollapse.ablation.tables.page import page
from sslcollapse.core.errors import RecipeError, RunError
from sslcollapse.runs.directory import RunDirectory

CLAIM = 'dict(number=1, statement="Wider is better", checks=[{}])'
CHECK = 'dict(name="{}", metric="evaluation.public.{}_accuracy", expect="positive", cell={{"encoder.hidden": {}}})'


def one_rate(workspace, expect, effect, **options):
    """A claim with one test, of two widths that are alike."""
    check = METRIC + f'name="x", expect="{expect}", cell={{"optim.lr": 0.2}}, where={{"encoder.hidden": [4]}}'
    for key, value in options.pop("check", {}).items():
        check += f", {key}={value!r}"
    grid = Grid(workspace, check, **options)
    return grid.add(0.1, 4, [0.7] * 8).add(0.2, 4, around(0.7 + effect)).complete()


def test_an_equivalence_is_two_one_sided_tests_at_the_whole_level(workspace):
    equivalent = one_rate(workspace, "equivalent", 0.001, check={"margin": 1.0}).judge().results[0]
    assert equivalent.estimate.interval == pytest.approx(student([100 * (0.001 + x) for x in NOISE], 0.90).interval)
    assert equivalent.outcome == "supported"
    none = one_rate(workspace, "none", 0.001, check={"margin": 1.0}).judge().results[0]
    assert none.estimate.interval == pytest.approx(student([100 * (0.001 + x) for x in NOISE], 0.95).interval)


def test_the_margin_that_lies_between_both_intervals_is_equivalence_and_not_yet_none(workspace):
    values = [100 * x for x in NOISE]
    margin = (student(values, 0.90).interval[1] + student(values, 0.95).interval[1]) / 2
    found = {
        expect: one_rate(workspace, expect, 0.0, check={"margin": margin}).judge().results[0].outcome
        for expect in ("equivalent", "none")
    }
    assert found == {"equivalent": "supported", "none": "inconclusive"}
    grid = one_rate(workspace, "equivalent", 0.0, check={"margin": margin})
    assert "An equivalence is two one-sided tests, each at the level 0.05:" in grid.write()


def test_an_equivalence_needs_a_margin(workspace):
    with pytest.raises(RecipeError, match="expect='equivalent' needs the largest effect that counts as none, above 0"):
        Grid(workspace, METRIC + 'name="x", expect="equivalent"')


def test_a_slope_over_two_values_at_0_and_1_is_the_difference_of_differences(workspace):
    check = 'name="x", kind="slope", along="encoder.hidden", along_values=[0, 1], expect="negative"'
    grid = Grid(workspace, METRIC + check + ', cell={"optim.lr": 0.2}')
    for width, effect in ((4, 0.05), (8, 0.02)):
        grid.add(0.1, width, [0.7] * 8).add(0.2, width, around(0.7 + effect) if width == 4 else [0.7 + effect] * 8)
    (result,) = grid.complete().judge().results
    assert result.estimate.mean == pytest.approx(-3.0 - 100 * sum(NOISE) / 8)
    assert result.outcome == "supported"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"check": {"effect": 0}}, r"checks\[0\].effect must be a number above 0, got 0; it is a size, without a sign"),
        ({"check": {"effect": 1, "margin": 1}}, "effect must be a number above the margin of 1, got 1"),
        ({"check": {"effect": "a"}}, "effect must be a number above 0, got 'a'"),
    ],
)
def test_an_effect_that_cannot_be_is_refused(workspace, options, message):
    with pytest.raises(RecipeError, match=message):
        one_rate(workspace, "positive", 0.0, **options)


def test_the_effect_that_matters_of_a_test_of_none_is_its_margin(workspace):
    with pytest.raises(RecipeError, match="effect: of expect='none' the margin is what matters; remove `effect`"):
        one_rate(workspace, "none", 0.0, check={"margin": 1.0, "effect": 2.0})


def test_what_a_claim_says_of_seeds_is_checked(workspace):
    for field, message in (
        ('variances="a/b"', "claim.variances"),
        ("most_seeds=0", "most_seeds must be a whole number"),
    ):
        claim = CLAIM.format(CHECK.format("x", "test", [8]))[:-1] + f", {field})"
        axes = 'axes={"encoder.hidden": [[4], [8]]}, baseline={"encoder.hidden": [4]}'
        target = workspace.ablation(f'name="a", base="tiny.py", {axes}, claim={claim}')
        with pytest.raises(RecipeError, match=message):
            run_ablation(target, dry_run=True)


def need(grid):
    (found,) = needs(grid.ablation, grid.records, grid.judge())
    return found


def test_the_seeds_for_an_effect_that_matters_follow_from_the_recorded_spread_and_the_claims_correction(workspace):
    found = need(one_rate(workspace, "positive", 0.0, check={"effect": 0.4}))
    std = student([100 * x for x in NOISE]).std
    assert found.spread.std == pytest.approx(std)
    assert found.planned == seeds_needed(std, 0.4, [(0.0, float("inf"))], 0.95)
    assert found.planned < found.upper
    both = Grid(
        workspace,
        *(METRIC + f'name="{n}", expect="positive", effect=0.4, cell={{"optim.lr": {n}}}' for n in (0.2, 0.3)),
    )
    for lr, width in ((0.1, 4), (0.1, 8), (0.2, 4), (0.2, 8), (0.3, 4), (0.3, 8)):
        both.add(lr, width, [0.7] * 8 if lr == 0.1 else around(0.7))
    corrected = needs(both.ablation, both.records, both.judge())
    assert [each.planned for each in corrected] == [seeds_needed(std, 0.4, [(0.0, float("inf"))], 0.9875)] * 4
    assert corrected[0].planned > found.planned


def test_a_choice_by_validation_takes_more_seeds(workspace):
    plain = one_rate(workspace, "equivalent", 0.0, check={"margin": 0.5})
    chosen = Grid(
        workspace,
        METRIC + 'name="x", expect="equivalent", margin=0.5, select="validation", where={"encoder.hidden": [4]}',
    )
    chosen.add(0.1, 4, [0.7] * 8).add(0.2, 4, around(0.7)).add(0.3, 4, around(0.7)).complete()
    assert need(chosen).planned > need(plain).planned


@pytest.mark.parametrize(
    ("effect", "most", "answer"),
    [
        (0.001, 100, "yes, as supported"),
        (0.001, 10, "no: not with 10 seeds"),
        (-0.001, 100, "yes, as contradicted"),
        (1e-7, 100, "no: not with 10,000 seeds"),
        (0.05, 100, "it is: supported"),
    ],
)
def test_whether_a_test_can_be_settled_is_said_at_the_effect_seen(workspace, effect, most, answer):
    grid = one_rate(workspace, "positive", effect - sum(NOISE) / 8)
    claim = replace(grid.ablation.claim, most_seeds=most)
    grid.ablation = replace(grid.ablation, claim=claim)
    found = need(grid)
    assert found.answer == answer
    if answer.startswith("yes"):
        assert found.settled > 8
    assert answer in "\n".join(needs_lines(grid.ablation, grid.records, grid.judge()))
    assert "### Seeds that the tests need" in grid.write()


def test_before_anything_runs_the_spread_is_that_of_the_earlier_grid_that_the_claim_names(workspace):
    earlier = one_rate(workspace, "positive", 0.05)
    write_plan(earlier.folder, earlier.ablation, "x")
    check = CHECK.format("x", "test", [8])[:-1] + ", effect=0.4)"
    claim = CLAIM.format(check)[:-1] + ', variances="rates")'
    target = workspace.ablation(
        'name="new", base="tiny.py", axes={"encoder.hidden": [[4], [8]]}, baseline={"encoder.hidden": [4]}, '
        f"claim={claim}"
    )
    new = plan(target, [], None, [])
    records = Records(workspace.results / "new" / "runs.jsonl")
    (found,) = needs(new, records, judge(new, records))
    assert found.spread.std == pytest.approx(student([100 * x for x in NOISE]).std)
    assert (found.spread.source, found.spread.n) == ("rates", 8)
    assert found.planned == seeds_needed(found.spread.std, 0.4, [(0.0, float("inf"))], 0.95)
    (earlier.folder / "plan.json").unlink()
    (found,) = needs(new, records, judge(new, records))
    assert found.spread is None
    lines = needs_lines(new, records, judge(new, records))
    assert "nothing recorded" in lines[2]
    assert "Of `rates`, the earlier grid that the claim names, nothing is used." in lines


def test_a_dry_run_says_what_is_needed_and_that_nothing_is_recorded(workspace, capsys):
    run(workspace, ablation(workspace, CHECK.format("x", "test", [8]), made=0), dry_run=True)
    assert "| x | tiny | nothing recorded | not stated | – | – | – | nothing recorded |" in capsys.readouterr().out


def ablation(workspace, *checks, widths="[4], [8], [800]", made=9):
    """A claim on widths, whose runs of so many seeds are finished: they are recorded when they are asked for."""
    target = workspace.ablation(
        f'name="wide", base="tiny.py", axes={{"encoder.hidden": [{widths}]}}, seeds=5, '
        f'baseline={{"encoder.hidden": [4]}}, claim={CLAIM.format(", ".join(checks))}'
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setenv("LUCKY", "1")
        for cell in plan(target, [], None, []).cells:
            for seed in range(made):
                recipe = cell.with_seed(seed)
                run = RunDirectory.of(recipe, workspace.out, cell.hash).path
                fake_worker.train(run, recipe, out=workspace.out, resume=False, command=[], lock=None)
    return target


def run(workspace, target, **more):
    return run_ablation(target, out=workspace.out, results=workspace.results, **more)


def counts(workspace):
    records = workspace.records("wide")
    widths = [record["overrides"]["encoder.hidden"][0] for record in records]
    return {width: widths.count(width) for width in sorted(set(widths))}


CLEAR = CHECK.format("clear", "validation", [800])
EQUAL = CHECK.format("equal", "test", [8])


def test_seeds_are_added_at_the_planned_looks_and_to_the_cells_of_undecided_tests_alone(workspace, capsys):
    target = ablation(workspace, CLEAR, EQUAL)
    assert run(workspace, target, until_decided=9) == 0
    assert counts(workspace) == {4: 9, 8: 9, 800: 5}
    kept, command = read_plan(workspace.results / "wide")
    assert list(kept.looks) == [5, 6, 7, 8, 9]
    assert "--until-decided 9" in command
    found = json.loads((workspace.results / "wide" / "claim.json").read_text())
    assert [(test["outcome"], test["look"]) for test in found["tests"]] == [("supported", 5), ("inconclusive", 9)]
    assert found["verdict"].startswith("inconclusive")
    assert found["tests"][0]["p"] is None
    text = (workspace.results / "wide" / "README.md").read_text()
    assert "shared out over looks at 5, 6, 7, 8, 9 seeds" in text
    assert "supported at n = 5" in text
    before = workspace.records("wide")
    assert run(workspace, target, until_decided=9) == 0
    assert workspace.records("wide") == before
    assert (workspace.results / "wide" / "README.md").read_text() == text


def test_a_page_is_the_same_from_the_plan_that_is_kept(workspace):
    run(workspace, ablation(workspace, CLEAR, EQUAL), until_decided=9)
    kept, command = read_plan(workspace.results / "wide")
    records = Records(workspace.results / "wide" / "runs.jsonl")
    assert page(kept, records, {}, command) == (workspace.results / "wide" / "README.md").read_text()


def test_a_sequence_stops_when_all_tests_are_decided(workspace):
    assert run(workspace, ablation(workspace, CLEAR, widths="[4], [800]", made=30), until_decided=30) == 0
    assert counts(workspace) == {4: 11, 800: 11} or counts(workspace) == {4: 5, 800: 5}
    found = json.loads((workspace.results / "wide" / "claim.json").read_text())
    assert (found["verdict"], found["looks"]) == ("supported", [5, 11, 17, 24, 30])


def test_other_looks_than_those_that_are_planned_are_refused_once_one_is_spent(workspace):
    target = ablation(workspace, EQUAL, widths="[4], [8]")
    run(workspace, target, until_decided=7)
    before = counts(workspace)
    with pytest.raises(RecipeError, match=r"looks at 5, 6, 7 seeds are planned and some are spent; .* 7 goes on"):
        run(workspace, target, until_decided=30)
    with pytest.raises(RecipeError, match=r"--seeds 20: the looks of wide are planned, .*; --until-decided 7 goes on"):
        run(workspace, target, seeds=20)
    assert run(workspace, target) == 0, "the plain command makes no look of its own"
    assert counts(workspace) == before
    assert list(read_plan(workspace.results / "wide")[0].looks) == [5, 6, 7]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('expect="positive"', 'expect="negative"'),
        ('expect="positive"', 'expect="not negative", margin=9.0'),
        ("test_accuracy", "validation_accuracy"),
        ("[[4], [8]]", "[[4], [8], [9]]"),
        ('{"encoder.hidden": [8]}', '{"encoder.hidden": [8]}, select="validation"'),
    ],
)
def test_a_claim_whose_tests_were_changed_after_a_look_has_no_verdict(workspace, old, new):
    own = EQUAL.replace(', cell={"encoder.hidden": [8]}', "") if old.startswith("[[") else EQUAL
    target = ablation(workspace, own, widths="[4], [8]", made=6)
    run(workspace, target, until_decided=6)
    kept = (workspace.results / "wide" / "plan.json").read_bytes()
    text = target.read_text()
    assert old in text
    target.write_text(text.replace(old, new))
    for options in ({"until_decided": 6}, {"dry_run": True}, {"tables": True}):
        with pytest.raises(RecipeError, match=r"wide: its claim's tests are not those of .*plan.json, whose looks"):
            run(workspace, target, **options)
    assert (workspace.results / "wide" / "plan.json").read_bytes() == kept
    target.write_text(text.replace("Wider is better", "Wider is not worse"))
    run(workspace, target, tables=True)


def test_looks_that_are_planned_after_a_verdict_are_refused(workspace):
    target = ablation(workspace, EQUAL, widths="[4], [8]")
    run(workspace, target)
    with pytest.raises(
        RecipeError, match=r"has its verdict at the 5 seeds that were planned, .* spent the whole error"
    ):
        run(workspace, target, until_decided=9)


def test_a_verdict_that_was_seen_before_more_seeds_or_other_tests_is_told_with_the_next(workspace):
    target = ablation(workspace, EQUAL, widths="[4], [8]", made=7)
    run(workspace, target)
    page, claim = (workspace.results / "wide" / name for name in ("README.md", "claim.json"))
    run(workspace, target)
    assert "There was a verdict before" not in page.read_text()
    run(workspace, target, seeds=7)
    assert "There was a verdict before, at 5 seeds" in page.read_text()
    assert json.loads(claim.read_text())["judged"] == [5]
    target.write_text(
        target.read_text().replace('expect="positive"', 'expect="negative"').replace("seeds=5", "seeds=7")
    )
    run(workspace, target)
    assert json.loads(claim.read_text())["judged"] == [5, 7]
    run(workspace, target, tables=True)
    assert json.loads(claim.read_text())["judged"] == [5, 7]


def test_a_part_of_a_plan_has_no_verdict_and_may_go_on_by_looks(workspace):
    target = ablation(workspace, EQUAL, widths="[4], [8]")
    run(workspace, target, seeds=4)
    assert run(workspace, target, until_decided=6) == 0
    assert counts(workspace) == {4: 6, 8: 6}


def test_without_a_claim_nothing_can_be_decided(workspace):
    target = workspace.ablation('name="wide", base="tiny.py", axes={"encoder.hidden": [[4], [8]]}')
    with pytest.raises(RecipeError, match="--until-decided: wide has no claim that could be decided"):
        run(workspace, target, until_decided=30)


def test_a_run_that_fails_ends_the_sequence_before_its_look(workspace):
    target = ablation(workspace, CHECK.format("x", "test", [8]), widths="[4], [8]", made=5)
    cell = plan(target, [], None, []).cells[1]
    (RunDirectory.of(cell.with_seed(4), workspace.out, cell.hash).path / "result.json").write_text("{}")
    assert run(workspace, target, until_decided=9) == 1
    assert counts(workspace) == {4: 5, 8: 4}
    found = json.loads((workspace.results / "wide" / "claim.json").read_text())
    assert (found["verdict"], found["tests"][0]["look"]) == ("interim", None)


def test_a_damaged_plan_that_has_looks_is_not_written_over(workspace):
    target = ablation(workspace, EQUAL, widths="[4], [8]")
    run(workspace, target, until_decided=7)
    path = workspace.results / "wide" / "plan.json"
    path.write_text(path.read_text()[:-5])
    with pytest.raises(RunError, match=r"plan.json: damaged .* it has the looks that were planned; restore it"):
        run(workspace, target)


def test_before_the_first_look_nothing_is_decided_and_after_it_records_between_looks_count_for_nothing(workspace):
    grid = rates(workspace, "positive", 0.05, 0.05)
    full = list(grid.records)

    def verdict(seeds, looks):
        grid.records._records.clear()
        for record in full:
            if record["seed"] < seeds:
                grid.records._keep((record["hash"], record["seed"]), record)
        return judge(replace(grid.ablation, looks=looks), grid.records)

    assert [result.outcome for result in verdict(6, [7, 20]).results] == ["inconclusive"] * 2
    assert verdict(6, [7, 20]).text == "interim"
    between = verdict(8, [6, 20]).results[0]
    assert (between.estimate.n, between.look) == (6, 6)
    own = look_levels((6, 20), 0.025)[0]
    expected = student([100 * (0.05 + x) for x in NOISE[:6]], 1 - own)
    assert between.estimate.interval == pytest.approx(expected.interval)
    assert between.confidence == 1 - own


def test_a_test_that_a_look_has_decided_stays_decided(workspace):
    turned = [0.75 + x for x in NOISE[:5]] + [0.4, 0.9, 0.1]
    grid = Grid(
        workspace, METRIC + 'name="x", expect="positive", cell={"optim.lr": 0.2}, where={"encoder.hidden": [4]}'
    )
    grid.add(0.1, 4, [0.7] * 8).add(0.2, 4, turned).complete()
    found = judge(replace(grid.ablation, looks=[5, 8]), grid.records)
    assert (found.results[0].outcome, found.results[0].look, found.results[0].estimate.n) == ("supported", 5, 5)
    assert found.text == "supported"
    assert any("keeps the outcome of the first planned look" in line for line in verdict_lines(found))
    (plain,) = grid.judge().results
    assert plain.outcome == "inconclusive"
    write_files(grid.folder, replace(grid.ablation, looks=[5, 8]), grid.records, {}, "x")
