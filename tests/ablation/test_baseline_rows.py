"""Baselines in records and in every table of an ablation: rows of their own, and an empty cell where there are none."""

import csv
import io
import json

import pytest

from sslcollapse.ablation.drive import run_ablation
from sslcollapse.ablation.grid import plan
from sslcollapse.ablation.records import Records, make_record
from sslcollapse.ablation.tables import baselines
from sslcollapse.ablation.tables.columns import Column
from sslcollapse.ablation.tables.latex import table_latex
from sslcollapse.ablation.tables.page import page, table_csv
from sslcollapse.runs.quantities import EVIDENCE, KEPT_STEPS

AXES = '{"encoder.hidden": [[4], [8]], "regularizers": [{}, {"werank": {"type": "werank"}}]}'
ACCURACY = "evaluation.public.test_accuracy"


def scores(mean):
    return {"public": {"solver": "lbfgs", "test_accuracy": {"values": [mean], "mean": mean}}}


def rank(value):
    return {"representation": {"effective_rank": value, "effective_rank_centred": value, "attainable": 8, "n": 9}}


def recorded(workspace, *, without=(), seeds=2):
    """Cell k, seed s: trained .5 + k/100; untrained depends on the width, X on nothing, the random one on the cell."""
    ablation = plan(workspace.ablation(f'name="held", base="tiny.py", seeds={seeds}, axes={AXES}'), [], None, [])
    records = Records(workspace.results / "held" / "runs.jsonl")
    for k, cell in enumerate(ablation.cells):
        for seed in range(seeds):
            width = cell.at("encoder.hidden")[0]
            record = {
                "hash": cell.hash, "seed": seed, "evaluation": scores(0.5 + k / 100), "rank": rank(4.0 + k),
                "untrained": scores(0.3 + width / 100 + seed / 1000),
            }  # fmt: skip
            if (k, seed) not in without:
                record["baselines"] = {"same_spectrum": scores(0.2 + k / 100), "X": scores(0.6)}
                record["baseline_ranks"] = {"untrained": rank(float(width)), "X": rank(7.5)}
                record["target"] = {"initialization_left": 0.005 if width == 4 else 0.36}
            records.add(record)
    return ablation, records


def rows_of(text, heading):
    lines = text[text.index(f"## {heading}") :].split("\n## ")[0].splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]


def test_a_baseline_has_a_row_for_each_value_that_it_depends_on_and_no_other(workspace):
    ablation, records = recorded(workspace)
    head, _, *rows = rows_of(page(ablation, records, {}, "command"), "Evaluation")
    assert head[:5] == ["encoder", "hidden", "regularizers", "seeds", "public accuracy, test"]
    found = [row[:5] for row in rows]
    assert [row[0] for row in found] == ["trained"] * 4 + ["X, no encoder"] + ["untrained"] * 2 + [
        "random, same spectrum"
    ] * 4
    assert found[4] == ["X, no encoder", "any", "any", "2", "60.00 ± 0.00"]
    assert found[5] == ["untrained", "1 layer of 4", "any", "2", "34.05 ± 0.07"]
    assert found[6] == ["untrained", "1 layer of 8", "any", "2", "38.05 ± 0.07"]
    assert found[10][4] == "23.00 ± 0.00"


def test_ranks_of_baselines_stand_below_those_of_the_cells(workspace):
    ablation, records = recorded(workspace)
    head, _, *rows = rows_of(page(ablation, records, {}, "command"), "Effective rank")
    values = {(row[0], row[1]): row[head.index("representation")] for row in rows if row[0] != "trained"}
    assert values == {
        ("X, no encoder", "any"): "7.50 ± 0.00",
        ("untrained", "1 layer of 4"): "4.00 ± 0.00",
        ("untrained", "1 layer of 8"): "8.00 ± 0.00",
    }


def test_the_csv_and_the_latex_table_have_the_same_rows(workspace):
    ablation, records = recorded(workspace)
    rows = list(csv.DictReader(io.StringIO(table_csv(ablation, records))))
    assert [row["encoder"] for row in rows[:5]] == ["trained"] * 4 + ["X"]
    assert (rows[4]["hash"], rows[4]["encoder.hidden"], rows[4]["seeds"]) == ("", "any", "2")
    assert float(rows[4][f"{ACCURACY}:mean"]) == pytest.approx(0.6)
    assert float(rows[5][f"{ACCURACY}:mean"]) == pytest.approx(0.3405)
    assert float(rows[5]["rank.representation.effective_rank:mean"]) == 4.0
    assert all(len(row) == len(rows[0]) and None not in row for row in rows)
    text = table_latex(ablation, records)
    assert r"X, no encoder & any & any & 2 & 60.00 $\pm$ 0.00" in text
    assert text.count(r"\midrule") == 2
    assert len({line.count("&") for line in text.splitlines() if line.endswith(r"\\")}) == 1


def test_records_without_baselines_stay_and_have_no_rows(workspace):
    every = {(k, seed) for k in range(4) for seed in range(2)}
    ablation, records = recorded(workspace, without=every)
    text = page(ablation, records, {}, "command")
    head, _, *rows = rows_of(text, "Evaluation")
    assert head[0] == "hidden"
    assert len(rows) == 4
    assert "initialisation" not in text
    assert next(csv.reader(io.StringIO(table_csv(ablation, records))))[:2] == ["hash", "encoder.hidden"]
    assert "encoder &" not in table_latex(ablation, records)


def test_where_some_records_have_no_baselines_the_rows_are_of_those_that_have(workspace):
    ablation, records = recorded(workspace, without={(0, 0), (0, 1), (1, 1)})
    _, _, *rows = rows_of(page(ablation, records, {}, "command"), "Evaluation")
    titles = [row[0] for row in rows]
    assert titles.count("trained") == 4
    assert titles.count("random, same spectrum") == 3
    (first,) = [row for row in rows if row[:3] == ["random, same spectrum", "1 layer of 4", "werank"]]
    assert first[3] == "1"


def test_the_page_says_how_many_targets_have_turned_over(workspace):
    ablation, records = recorded(workspace)
    text = page(ablation, records, {}, "command")
    assert "Targets have 0.5 % to 36 % of their initialisation left; 4 of 8 have turned over." in text


def test_a_record_carries_what_its_result_has_without_long_lists(workspace):
    ablation = plan(workspace.ablation(f'name="held", base="tiny.py", seeds=1, axes={AXES}'), [], None, [])
    cell, run = ablation.cells[0], workspace.folder / "run"
    run.mkdir()
    long = {"X": {"public": {"solver": "s", "test_accuracy": {"values": [0.5] * 30, "mean": 0.5, "std": 0.0}}}}
    result = {
        "hash": cell.hash, "seed": 0, "recipe": cell.with_seed(0), "steps": 2, "seconds": {}, "evaluation": {},
        "untrained": {}, "rank": {}, "regularizers": {}, "baselines": long,
        "baseline_ranks": {"X": {"representation": {"effective_rank": 2.0, "stable_rank": 1.0, "n": 9}}},
        "course": {"step": list(range(100)), "representation": {"effective_rank": [1.0] * 100}},
        "target": {"initialization_left": 0.2},
    }  # fmt: skip
    (run / "result.json").write_text(json.dumps(result))
    (run / "environment.json").write_text(json.dumps({"packages": {}}))
    record = make_record(cell, [], run)
    assert record["baselines"]["X"]["public"]["test_accuracy"] == {"mean": 0.5, "std": 0.0, "n": 30}
    assert record["baseline_ranks"] == {"X": {"representation": {"effective_rank": 2.0, "n": 9}}}
    assert len(record["course"]["step"]) == len(record["course"]["representation"]["effective_rank"]) == KEPT_STEPS
    assert record["target"] == {"initialization_left": 0.2}
    for key in EVIDENCE:
        del result[key]
    (run / "result.json").write_text(json.dumps(result))
    assert not EVIDENCE.keys() & make_record(cell, [], run).keys()


def test_a_metric_of_an_ablation_may_be_a_baseline_or_the_targets_share(workspace):
    ablation, records = recorded(workspace)
    record = next(iter(records))
    assert Column("baselines.X.public.test_accuracy", "", "").of(record) == 0.6
    assert Column("baselines.X.public.test_accuracy", "", "").percent
    metrics = '["baselines.X.public.test_accuracy", "target.initialization_left"]'
    made = plan(workspace.ablation(f'name="m", base="tiny.py", seeds=1, axes={AXES}, metrics={metrics}'), [], None, [])
    assert list(made.metrics) == ["baselines.X.public.test_accuracy", "target.initialization_left"]
    assert len(ablation.cells) == 4


@pytest.mark.slow
def test_an_ablation_takes_baselines_that_evaluate_has_added_and_makes_no_run_again(workspace):
    ablation = workspace.ablation(f'name="held", base="tiny.py", seeds=1, axes={AXES}')

    def run():
        return run_ablation(ablation, out=workspace.out, results=workspace.results)

    assert run() == 0
    made = len(workspace.calls())
    assert run() == 0
    lines = workspace.records("held")
    assert (len(lines), len(workspace.calls())) == (4, made)
    (path,) = list(workspace.out.glob(f"tiny/{lines[0]['hash']}/seed0/result.json"))
    result = json.loads(path.read_text())
    path.write_text(json.dumps({**result, "baselines": {"X": scores(0.6)}}))
    added = {"public": {"solver": "lbfgs", "test_accuracy": {"values": [0.6], "mean": 0.6, "n": 1}}}
    assert run() == 0
    assert len(workspace.calls()) == made
    records = Records(workspace.results / "held" / "runs.jsonl")
    assert len(records) == 4
    assert [record["baselines"] for record in records if "baselines" in record] == [{"X": added}]
    assert len(workspace.records("held")) == 5, "appended once"
    assert run() == 0
    assert len(workspace.records("held")) == 5
    other = {**workspace.records("held")[0], "evaluation": scores(0.9), "baselines": {"Y": scores(0.1)}}
    records.add(other)
    assert not any("Y" in record.get("baselines", {}) for record in records), "of another machine's run"


def test_baselines_of_cells_without_a_seed_in_common_are_not_taken_for_the_same():
    one, other = {0: (0.8,)}, {1: (0.8,)}
    assert not baselines._alike([one, other])
    assert baselines._alike([one, {0: (0.8,), 1: (0.8,)}])
    assert baselines._alike([one, {}])
