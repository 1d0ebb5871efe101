"""Planning and recording cost in proportion to what is planned and recorded: calls are counted, never seconds."""

import dataclasses
import inspect
import json
from collections import Counter

import pytest

from sslcollapse.ablation.grid import baselines_of, plan
from sslcollapse.ablation.records import BLOCK, Records
from sslcollapse.ablation.tables import effects
from sslcollapse.ablation.tables.latex import table_latex
from sslcollapse.ablation.tables.page import columns, page, table_csv
from sslcollapse.ablation.values import Cell
from sslcollapse.core.registry import REGISTRIES
from sslcollapse.recipe import assign, load, recipe_hash, resolve
from sslcollapse.recipe import check as checks
from sslcollapse.report import plots_cells
from sslcollapse.report.labels import factors
from sslcollapse.runs.quantities import lookup
from tools.bench import plan as bench_plan

RATES = [0.1 * (k + 1) for k in range(12)]


def _ablation(workspace, rates):
    return workspace.ablation(
        f'name="grown", base="tiny.py", seeds=2, axes={{"encoder.hidden": [[4], [8]], "optim.lr": {rates}}},'
        'baseline={"encoder.hidden": [4]}'
    )


def test_a_plan_is_what_resolving_and_hashing_each_cell_by_itself_gives(workspace):
    made = plan(_ablation(workspace, RATES[:3]), [], None, [])
    base = load(workspace.recipe)
    for cell in made.cells:
        alone = resolve(assign(base, cell.values))
        assert json.dumps(cell.recipe) == json.dumps(alone)  # to the order of its keys, as plan.json has it
        assert cell.hash == recipe_hash(alone)


def test_a_cell_is_resolved_once_and_signatures_are_read_once_however_many_cells_there_are(workspace, monkeypatch):
    counted = Counter()

    def counting(name, function):
        def call(*arguments, **options):
            counted[name] += 1
            return function(*arguments, **options)

        return call

    monkeypatch.setattr(inspect, "signature", counting("signature", inspect.signature))
    monkeypatch.setattr(checks, "get_type_hints", counting("hints", checks.get_type_hints))
    monkeypatch.setattr(
        "sslcollapse.recipe.identity.resolve", counting("resolved", resolve)
    )  # what ``identify`` resolves with
    calls = []
    for rates in (RATES[:1], RATES):
        checks.fields_of.cache_clear()
        checks.supplied_of.cache_clear()
        for registry in REGISTRIES.values():
            registry._parameters.clear()
        counted.clear()
        cells = len(plan(_ablation(workspace, rates), [], None, []).cells)
        assert counted.pop("resolved") == cells
        calls.append(dict(counted))
    assert calls[0] == calls[1]  # of 2 cells as of 24
    assert calls[0]["hints"] > 0


def test_baselines_are_those_that_comparing_all_cells_finds_and_each_value_is_read_a_fixed_number_of_times(
    workspace, monkeypatch
):
    read = Counter()
    at = Cell.at

    def counting(self, path):
        read[self.hash] += 1
        return at(self, path)

    made = plan(_ablation(workspace, RATES), [], None, [])
    naive = bench_plan.naive_baselines(made)
    monkeypatch.setattr(Cell, "at", counting)
    assert baselines_of(made.cells, made.axes, made.baseline) == naive == made.baselines
    assert max(read.values()) <= 6


def test_only_the_end_of_the_records_is_read_to_append_one(tmp_path, monkeypatch):
    path = tmp_path / "runs.jsonl"
    entry = {"hash": "a", "evaluation": {}, "rank": {}, "filler": "x" * (3 * BLOCK)}
    path.write_text("".join(json.dumps({**entry, "seed": seed}) + "\n" for seed in range(20)))
    records = Records(path)
    sizes = []
    opened = open

    def counting(*arguments, **options):
        file = opened(*arguments, **options)
        read = file.read
        file_read = lambda *size: sizes.append(len(data := read(*size))) or data  # noqa: E731
        return _Reading(file, file_read)

    monkeypatch.setattr("builtins.open", counting)
    records.add({**entry, "seed": 20})
    monkeypatch.undo()
    assert 0 < sum(sizes) <= BLOCK
    assert len(Records(path)) == 21


class _Reading:
    """A file whose reads are counted."""

    def __init__(self, file, read):
        self._file, self.read = file, read

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._file.close()

    def __getattr__(self, name):
        return getattr(self._file, name)


@pytest.mark.parametrize("length", [10, BLOCK - 40, BLOCK, 5 * BLOCK])
@pytest.mark.parametrize("before", [0, 1, 3])
def test_a_last_line_of_any_length_without_its_end_is_ended_if_whole_and_cut_off_if_torn(tmp_path, length, before):
    lines = [
        json.dumps({"hash": "a", "seed": seed, "evaluation": {}, "rank": {}, "f": "x" * length}) for seed in range(5)
    ]
    path = tmp_path / "runs.jsonl"
    for last, kept in ((lines[before], lines[: before + 1]), (lines[before][:-5], lines[:before])):
        path.write_text("".join(f"{line}\n" for line in lines[:before]) + last)
        Records(path).add(json.loads(lines[4]))
        assert path.read_text().splitlines() == [*kept, lines[4]]


def test_a_value_is_found_below_keys_with_dots_and_the_first_of_two_ways_counts():
    assert lookup({"a": {"b.c": {"d": 1}}}, "a.b.c.d") == 1
    assert lookup({"a": {"b": 1}, "a.b": 2}, "a.b") == 1
    assert lookup({"a.b": 2, "a": {"b": 1}}, "a.b") == 2
    assert lookup({"a": {"b": {}}, "a.b": {"c": 3}}, "a.b.c") == 3  # the first way ends
    assert lookup({"a": None, "a.b": 2}, "a.c") is None


def test_differences_are_made_once_for_the_page_and_both_tables_and_again_after_a_new_record(workspace, monkeypatch):
    made = plan(_ablation(workspace, RATES[:2]), [], None, [])
    bench_plan.write_records(workspace.folder / "grown", made)
    records = Records(workspace.folder / "grown" / "runs.jsonl")
    paired, counted = effects.paired_difference, Counter()

    def counting(*arguments):
        counted["paired"] += 1
        return paired(*arguments)

    monkeypatch.setattr(effects, "paired_difference", counting)
    for text in (page(made, records, {}, ""), table_csv(made, records), table_latex(made, records, {})):
        assert text
    metrics = sum(column.metric for column in columns(made, list(records)))
    assert counted["paired"] == metrics * len(made.baselines)
    before = effects.effects(made, records, columns(made, list(records))[0])
    records.add({**next(iter(records)), "seed": 7})
    after = effects.effects(dataclasses.replace(made, seeds=8), records, columns(made, list(records))[0])
    assert counted["paired"] > metrics * len(made.baselines)
    assert before == after  # seed 7 has no pair


def test_a_plot_of_very_many_cells_draws_those_that_differ_most_and_its_table_has_all(workspace, monkeypatch):
    made = plan(_ablation(workspace, RATES[:5]), [], None, [])
    bench_plan.write_records(workspace.folder / "grown", made)
    records = Records(workspace.folder / "grown" / "runs.jsonl")
    column = columns(made, list(records))[0]
    (whole,) = plots_cells.forest(made, records, column, factors(made))
    assert "the table has all" not in whole.caption
    monkeypatch.setattr(plots_cells, "MOST_DRAWN", 2)
    (plot,) = plots_cells.forest(made, records, column, factors(made))
    assert plot.rows == whole.rows
    assert len(plot.rows) == 5
    assert "Of 5 cells the 2 that differ most; the table has all." in plot.caption
    assert plot.height < whole.height
    assert all(
        "The first 2 of 10 cells." in each.caption for each in plots_cells.layer_ranks(made, records, factors(made))
    )


def test_the_benchmark_of_plans_tells_seconds_exponents_and_ratios(monkeypatch, capsys):
    monkeypatch.setattr(bench_plan, "CELLS", (2, 4))
    monkeypatch.setattr(bench_plan, "RUNS", ((2, 1), (4, 1)))
    monkeypatch.setattr(bench_plan, "report", lambda folder, ablation: None)  # seconds of drawing, which others test
    record = bench_plan.main()
    assert {row["what"] for row in record["rows"]} >= {"plan, cells", "tables, records"}
    assert "exponent" in capsys.readouterr().out
    assert bench_plan.exponent([10, 100], [1.0, 100.0]) == pytest.approx(2)
