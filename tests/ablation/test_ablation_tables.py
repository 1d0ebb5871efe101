import csv
import io
import re

import pytest

from sslcollapse.ablation.grid import plan
from sslcollapse.ablation.records import Records
from sslcollapse.ablation.statistics.intervals import paired_difference, shared_confidence
from sslcollapse.ablation.tables.columns import heads, legend, shown_p
from sslcollapse.ablation.tables.latex import escape, table_latex
from sslcollapse.ablation.tables.page import correlations, page, table_csv

NOISE = (0.01, -0.02, 0.015)


def ablation_with_records(workspace, axes, *, values=None, seeds=3, baseline='{"optim.lr": 0.1}', bases='"tiny.py"'):
    """Accuracy and rank of cell k are (k + 50 + noise) / 100 and 10 + k; ``values`` gives splits by cell and seed."""
    text = f'name="a_b", base={bases}, seeds={seeds}, axes={axes}, baseline={baseline}'
    ablation = plan(workspace.ablation(text), [], None, [])
    records = Records(workspace.results / "a_b" / "runs.jsonl")
    for k, cell in enumerate(ablation.cells):
        for seed in range(seeds):
            splits = values[k][seed] if values else [(50 + k + (-1) ** k * NOISE[seed]) / 100]
            accuracy = {"values": splits, "mean": sum(splits) / len(splits)}
            metrics = {"solver": "lbfgs", "test_accuracy": accuracy, "validation_accuracy": {"mean": 0.5}}
            records.add(
                {
                    "hash": cell.hash, "seed": seed, "evaluation": {"public": metrics}, "untrained": {},
                    "rank": {"representation": {"effective_rank": 10.0 + k + NOISE[seed] * (k % 2), "n": 9}},
                    "commit": "c", "device": "d", "torch": "t", "torch_geometric": "g", "threads": 1,
                }
            )  # fmt: skip
    return ablation, records


def test_intervals_and_p_values_are_corrected_alike_over_all_differences_of_a_metric(workspace):
    ablation, records = ablation_with_records(workspace, '{"optim.lr": [0.1, 0.2, 0.3, 0.4]}')
    text = page(ablation, records, {}, "command")
    rows = list(csv.DictReader(io.StringIO(table_csv(ablation, records))))
    key = "evaluation.public.test_accuracy"
    raw = [float(row[f"{key}:p"]) for row in rows[1:]]
    assert [float(row[f"{key}:p_corrected"]) for row in rows[1:]] == pytest.approx([min(1, 3 * p) for p in raw])
    own, base = ({seed: v / 100 for seed, v in enumerate(s * n + m for n in NOISE)} for s, m in ((-1, 51), (1, 50)))
    expected = paired_difference(own, base, shared_confidence(3))
    assert raw[0] == pytest.approx(expected.p, rel=1e-6)
    assert [float(rows[1][f"{key}:{end}"]) for end in ("low", "high")] == pytest.approx(expected.interval)
    assert f"+1.00 [{100 * float(rows[1][f'{key}:low']):+.2f}, " in text
    assert (
        "both corrected by\nBonferroni over the 3 differences of a column, so that the intervals hold together" in text
    )
    assert "| 0.2 | 3 | +1.00 [" in text
    assert rows[0][f"{key}:p"] == ""


def test_one_seed_of_many_splits_has_a_paired_difference_and_no_interval(workspace):
    splits = [[[0.5 + k / 100 for k in range(20)]], [[0.53 + k / 100 for k in range(20)]]]
    ablation, records = ablation_with_records(workspace, '{"optim.lr": [0.1, 0.2]}', values=splits, seeds=1)
    text = page(ablation, records, {}, "command")
    assert "| 0.2 | 1 | +3.00 over 20 splits | +1.01 |" in text
    assert "the splits of one seed say nothing about other seeds" in text


def test_runs_of_unequal_numbers_of_splits_are_not_paired_and_the_page_says_so(workspace):
    splits = [[[0.5] * 4] * 3, [[0.6] * 2] * 3, [[0.6] * 4] * 3]
    ablation, records = ablation_with_records(workspace, '{"optim.lr": [0.1, 0.2, 0.3]}', values=splits)
    text = page(ablation, records, {}, "command")
    assert "| 0.2 | 3 | – (evaluation.public.test_accuracy, seed 0: 2 splits cannot be paired with 4) | +1.00 [" in text
    assert "| 0.3 | 3 | +10.00 (no spread), p = 0.500 |" in text


def test_long_lists_of_splits_are_paired_by_their_number_too(workspace):
    ablation, records = ablation_with_records(workspace, '{"optim.lr": [0.1, 0.2]}')
    for record in records:
        accuracy = record["evaluation"]["public"]["test_accuracy"]
        del accuracy["values"]  # records keep no more than 20
        accuracy["n"] = 30 if record["hash"] == ablation.cells[0].hash else 50
    assert "50 splits cannot be paired with 30" in page(ablation, records, {}, "command")


def test_ranks_at_different_numbers_of_samples_are_neither_averaged_nor_paired(workspace):
    ablation, records = ablation_with_records(workspace, '{"optim.lr": [0.1, 0.2, 0.3]}')
    _, second, third = (cell.hash for cell in ablation.cells)
    for record in records:
        rank = record["rank"]["representation"]
        if record["hash"] == third or (record["hash"] == second and record["seed"] == 2):
            rank |= {"n": 1024, "effective_rank": 1000.0}
    text = page(ablation, records, {}, "command")
    rows = list(csv.DictReader(io.StringIO(table_csv(ablation, records))))
    key = "rank.representation.effective_rank"
    assert float(rows[1][f"{key}:mean"]) == pytest.approx(11 + (NOISE[0] + NOISE[1]) / 2)
    assert [rows[1]["rank.representation.n"], rows[2]["rank.representation.n"]] == ["9", "1024"]
    assert "Of a cell whose ranks were measured on different numbers of samples N those of one N are shown." in text
    assert "| 3 / 2 | " in text, "accuracy is paired over all seeds, rank over those of one N"
    assert "| – (ranks measured on different numbers of samples) |" in text
    assert rows[2][f"{key}:difference"] == ""
    assert float(rows[2]["evaluation.public.test_accuracy:difference"]) == pytest.approx(0.02)


def test_correlations_are_within_a_base_and_need_six_cells(workspace):
    (workspace.folder / "other.py").write_text(workspace.recipe.read_text().replace("hidden=4", "hidden=5"))
    bases = '{"one": "tiny.py", "two": "other.py"}'
    rates = '{"optim.lr": [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]}'
    ablation, records = ablation_with_records(workspace, rates, bases=bases)
    found = correlations(ablation, records)
    assert [(each.base, each.correlation.n) for each in found] == [("one", 6), ("two", 6)]
    assert "| one | public accuracy, test | representation | 6 | +1.00 | +1.00 " in page(ablation, records, {}, "")
    five, records = ablation_with_records(workspace, rates.replace(", 0.6", ""))
    assert correlations(five, records) == []
    two, records = ablation_with_records(workspace, '{"optim.lr": [0.1, 0.2]}')
    assert correlations(two, records) == []
    assert "across cells" not in page(two, records, {}, "")


def test_a_failing_cell_shows_its_errors_in_its_row(workspace):
    ablation, records = ablation_with_records(workspace, '{"optim.lr": [0.1, 0.2]}')
    failures = {f"tiny optim.lr=0.2 seed={seed}": "ValueError: no | luck\nat all" for seed in (0, 1)}
    failures["tiny optim.lr=0.2 seed=2"] = "RuntimeError: killed"
    text = page(ablation, records, failures, "command")
    assert "| ValueError: no \\| luck at all (2 runs); RuntimeError: killed (1 run) |" in text
    assert "* tiny optim.lr=0.2 seed=1: ValueError: no | luck at all" in text
    assert text.count("| error |") == 2
    assert "ValueError: no \\textbar{} luck at all (2 runs)" in table_latex(ablation, records, failures)


def titles_and_legend(workspace, axes):
    ablation = plan(workspace.ablation(f'name="a", base="tiny.py", axes={axes}'), [], None, [])
    return list(heads(ablation).values()), legend(ablation)


def with_werank(workspace, *names):
    made = ", ".join(f'{name}=dict(type="werank", coefficient=1)' for name in names)
    workspace.recipe.write_text(workspace.recipe.read_text().replace("optim=", f"regularizers=dict({made}), optim=", 1))


def test_titles_are_as_short_as_they_can_be_and_constant_axes_are_left_out(workspace):
    axes = '{"encoder.hidden": [[4], [8]], "objective.momentum": [0.9, 0.8], "train.steps": [7], "regularizers": [{}]}'
    assert titles_and_legend(workspace, axes) == (
        ["hidden", "momentum"],
        "Axes: hidden is `encoder.hidden`, momentum is `objective.momentum`. "
        "In all cells: `train.steps` is 7, `regularizers` is none.",
    )
    with_werank(workspace, "a", "b")
    axes = '{"regularizers.a.coefficient": [0, 0.1], "regularizers.b.coefficient": [0, 0.1], "optim.lr": [1, 2]}'
    assert titles_and_legend(workspace, axes)[0] == ["a.coefficient", "b.coefficient", "lr"]


def test_a_single_cell_is_named_by_its_axes(workspace):
    ablation = plan(workspace.ablation('name="a", base="tiny.py", axes={"train.steps": [7]}'), [], None, [])
    assert (heads(ablation), legend(ablation)) == ({"train.steps": "steps"}, "Axes: steps is `train.steps`.")


def test_the_csv_keeps_full_paths_and_values_as_they_are_written(workspace):
    with_werank(workspace, "w")
    axes = '{"regularizers.w": [None, {"type": "werank", "coefficient": 0.1}]}'
    ablation, records = ablation_with_records(workspace, axes, baseline='{"regularizers.w": None}')
    rows = list(csv.DictReader(io.StringIO(table_csv(ablation, records))))
    assert [row["regularizers.w"] for row in rows] == ["None", "{'type': 'werank', 'coefficient': 0.1}"]
    assert "| werank(coefficient=0.1) | 3 |" in page(ablation, records, {}, "")


def test_latex_tables_have_equal_columns_in_all_rows_and_balanced_braces(workspace):
    ablation, records = ablation_with_records(workspace, '{"optim.lr": [0.1, 0.2, 0.3]}')
    text = table_latex(ablation, records)
    assert text.count(r"\begin{table}") == text.count(r"\end{table}") == text.count(r"\toprule") == 2
    for columns, body in re.findall(r"\\begin\{tabular\}\{(l+)\}(.*?)\\end\{tabular\}", text, re.DOTALL):
        rows = [line for line in body.splitlines() if line.endswith(r"\\")]
        assert {len(re.findall(r"(?<!\\)&", row)) + 1 for row in rows} == {len(columns)}
        assert body.split()[0] == r"\toprule"
        assert len(rows) in (3, 4)
    assert text.count("{") == text.count("}")
    assert r"50.00 $\pm$ 0.02" in text
    assert r"\caption{a\_b: mean" in text
    assert re.search(r"\$\+1\.00\$ \$\[\+0\.\d\d, \+1\.\d\d\]\$, \$p [=<] 0\.\d{3}\$", text)
    assert text.isascii()


def test_latex_escapes_what_it_would_read_as_commands():
    assert escape("50 % of a_b & {c} #1 $ ~ ^ \\ <x|y> ± – −1") == (
        r"50 \% of a\_b \& \{c\} \#1 \$ \textasciitilde{} \textasciicircum{} \textbackslash{} "
        r"\textless{}x\textbar{}y\textgreater{} $\pm$ -- $-$1"
    )


def test_small_p_values_are_bounded():
    assert [shown_p(p) for p in (0.0123, 0.0009, 1.0)] == ["p = 0.012", "p < 0.001", "p = 1.000"]
