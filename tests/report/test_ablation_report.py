import json
import math
import shutil

import pytest
import report_records
from report_pages import read, table
from report_records import record, write_records
from scipy.stats import t

from sslcollapse.ablation.files import write_plan
from sslcollapse.ablation.grid import Ablation, plan
from sslcollapse.ablation.values import Cell
from sslcollapse.cli import main
from sslcollapse.core.errors import RunError
from sslcollapse.report.ablation_page import ablation_page, from_folder, write_report
from sslcollapse.report.from_records import ablation_of
from sslcollapse.report.labels import factors
from sslcollapse.report.scale import scale


@pytest.fixture(scope="module")
def index(results, trained, tmp_path_factory):
    """A page with records of a grid, and the run directory of one of its cells."""
    folder = tmp_path_factory.mktemp("page")
    runs = folder / "runs" / "tiny" / "Cora0.1" / "seed0"
    shutil.copytree(trained, runs)
    shutil.copytree(results, folder / "grid")
    claim = {
        "statement": "WERank helps",
        "verdict": "supported",
        "tests": [{"check": "gain", "shown": "+0.15 [0.1, 0.2]", "places": [{"cell": "5c"}]}],
    }
    (folder / "grid" / "claim.json").write_text(json.dumps(claim))
    return write_report([folder / "grid"], out=folder / "out", runs=folder / "runs")


def lines(results) -> list[dict]:
    return [json.loads(line) for line in (results / "runs.jsonl").read_text().splitlines()]


def cells(axis: str, values: list) -> Ablation:
    made = [Cell("x", None, {axis: value}, {}, str(k)) for k, value in enumerate(values)]
    return Ablation("a", made, [(axis,)], 1, {}, [], [])


def test_the_page_has_tables_plots_claim_and_curves(index):
    page = read(index)
    wanted = ["Against the axes", "Differences, plotted", "Rank against accuracy", "Rank by layer", "During training"]
    wanted += ["Evaluation", "Effective rank", "Difference to the baseline"]
    assert [heading for heading in page.headings if heading in wanted] == wanted
    assert len(page.ids) == len(set(page.ids))
    for words in (
        "WERank helps",
        "Supported",
        "[0.1, 0.2]",
        "Compared with the cells that have regularizers.werank=None",
    ):
        assert words in page.text
    assert "Site <b>" in page.text  # escaped in the page
    assert [link for link in page.links if "//" in link] == []
    assert [link for link in page.links if link[0] != "#" and not (index.parent / link).is_file()] == []


def test_means_and_deviations_against_the_coefficient_are_those_of_the_records(results, index):
    rows = table(index.parent / "plots" / "public.test_accuracy-by-coefficient.csv")
    assert [(row["base"], row["regularizers.werank.coefficient"]) for row in rows] == [
        (base, coefficient) for base in ("Cora", "Site <b>") for coefficient in ("0", "0.01", "0.1")
    ]
    own = [r for r in lines(results) if r["hash"] == "Cora0.01"]
    accuracies = [100 * r["evaluation"]["public"]["test_accuracy"]["mean"] for r in own]
    mean = sum(accuracies) / 3
    std = math.sqrt(sum((a - mean) ** 2 for a in accuracies) / 2)
    row = rows[1]
    assert float(row["mean"]) == pytest.approx(mean)
    assert float(row["high"]) - float(row["mean"]) == pytest.approx(std)
    assert row["n"] == "3"


def test_the_forest_has_paired_differences_with_the_corrected_interval_of_the_table(index):
    row = table(index.parent / "plots" / "forest-public.test_accuracy.csv")[0]
    assert row["cell"] == "Cora · coefficient 0.01"
    differences = [2.0, 2.2, 2.4]  # 100 × 0.02 × (1 + 0.1 seed)
    half = t.ppf(1 - 0.025 / 4, 2) * 0.2 / math.sqrt(3)  # four differences in the column
    assert [float(row[key]) for key in ("mean", "low", "high")] == pytest.approx(
        [sum(differences) / 3, 2.2 - half, 2.2 + half]
    )


def test_scatter_and_layer_ranks_have_the_records_numbers(index):
    row = table(index.parent / "plots" / "scatter-public.test_accuracy-rank.representation.effective_rank.csv")[2]
    assert row["hash"] == "Cora0.1"
    assert float(row["rank.representation.effective_rank:mean"]) == pytest.approx(3 + 0.5 + 0.1)
    (layer,) = table(index.parent / "plots" / "layers-weight-Cora.csv")
    assert float(layer["0.1"]) == pytest.approx((3 + 0.5 + 0.1) / 2 / 4)
    (layer,) = table(index.parent / "plots" / "layers-output-Cora.csv")
    assert float(layer["0.1"]) == pytest.approx((3 + 0.5 + 0.1) / 4)  # its weight attains 4, its samples 8


def test_run_directories_give_the_curves(trained, index):
    rows = table(index.parent / "plots" / "time-loss.csv")
    losses = [json.loads(line).get("loss") for line in (trained / "metrics.jsonl").read_text().splitlines()]
    assert [float(row["Cora · coefficient 0.1:mean"]) for row in rows] == [v for v in losses if v is not None]


def test_the_same_records_give_the_same_page_and_plots(results, index, tmp_path):
    first, second = (ablation_page(from_folder(results), tmp_path) for _ in range(2))
    assert [section.html for section in first.sections] == [section.html for section in second.sections]
    again = {plot.name: plot for section in second.sections for plot in section.plots}
    for name in ("public.test_accuracy-by-coefficient", "forest-public.test_accuracy", "layers-weight-Cora"):
        files = tuple((index.parent / "plots" / f"{name}.{suffix}").read_bytes() for suffix in ("svg", "png"))
        assert again[name].render() == files
        assert again[name].csv() == (index.parent / "plots" / f"{name}.csv").read_bytes()


def test_failed_runs_are_listed_with_their_errors(results, tmp_path):
    folder = shutil.copytree(results, tmp_path / "grid")
    entry = {"error": "RunError: loss is nan at step 3", "time": "2026-01-01T00:00:00+00:00", "log": "train.log"}
    (folder / "failures.json").write_text(json.dumps({"Cora0.1/seed2": entry}))
    page = read(write_report([folder], out=tmp_path / "out", runs=tmp_path))
    assert "Failed runs" in page.headings
    assert "RunError: loss is nan at step 3" in page.text
    assert "1 run failed; the last section has the errors." in page.text
    (folder / "failures.json").write_text("[")
    with pytest.raises(RunError, match=r"failures.json: cannot be read .*; delete it, failed runs are then not listed"):
        write_report([folder], out=tmp_path / "out", runs=tmp_path)


def test_a_folder_is_read_by_its_plan_with_its_failed_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recipe = tmp_path / "tiny.json"
    recipe.write_text(json.dumps(report_records.RECIPE))
    planned = plan(recipe, ["optim.lr=0.1,0.2"], 2, ["train.steps=4"], baseline=["optim.lr=0.1"], name="rates")
    kept, failed = planned.cells
    records = [record("tiny", None, seed, 0.8, 3.0, kept.hash) for seed in range(2)]
    folder = write_records(tmp_path / "results" / "rates", [*records, record("tiny", 0.3, 0, 0.1, 1.0, "removed")])
    write_plan(folder, planned, "sslcollapse ablate tiny.json")
    (folder / "failures.json").write_text(json.dumps({f"{failed.hash}/seed0": {"error": "loss is nan", "time": ""}}))
    recipe.unlink()
    found = from_folder(folder)
    assert [cell.hash for cell in found.ablation.cells] == [kept.hash, failed.hash], "not the cell that was removed"
    assert (found.ablation.baselines, found.command) == (planned.baselines, "sslcollapse ablate tiny.json")
    assert found.failures == {"tiny optim.lr=0.2 seed=0": "loss is nan"}
    (folder / "plan.json").unlink()
    rebuilt = from_folder(folder)
    assert rebuilt.ablation.cells[-1].hash == "removed"
    assert rebuilt.failures == {f"{failed.hash}/seed0": "loss is nan"}


@pytest.mark.parametrize("with_plan", [True, False])
def test_a_report_of_a_folder_executes_nothing_that_the_folder_names(results, tmp_path, monkeypatch, with_plan):
    monkeypatch.chdir(tmp_path)
    folder = shutil.copytree(results, tmp_path / "sent" / "grid")
    ran = tmp_path / "ran"
    hostile = f"open({str(ran)!r}, 'w').write('x')\nablation = {{}}\n"
    places = [folder / "evil.py", tmp_path / "sent/recipes/ablations/grid.py", tmp_path / "recipes/ablations/grid.py"]
    for place in places:
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(hostile)
    (folder / "README.md").write_text("# grid\n\n    sslcollapse ablate evil.py\n")
    if with_plan:
        recipe = tmp_path / "tiny.json"
        recipe.write_text(json.dumps(report_records.RECIPE))
        write_plan(folder, plan(recipe, ["optim.lr=0.1,0.2"], 2, [], name="grid"), "sslcollapse ablate evil.py")
        path = folder / "plan.json"
        path.write_text(path.read_text().replace("tiny.json", "evil.py"))
    text = read(write_report([folder], out=tmp_path / "out", runs=tmp_path)).text
    assert not ran.exists()
    assert "sslcollapse ablate evil.py" in text, "the command is shown"
    if not with_plan:
        assert "This folder has no plan.json" in text
        assert "'sslcollapse ablate FILE --tables'" in text


def test_records_made_with_other_settings_are_not_compared(results):
    records = [{**each, "settings": ["train.steps=3"]} for each in lines(results) if "0.01" in each["hash"]]
    ablation, notes = ablation_of("grid", [*records, *(r for r in lines(results) if "0.01" not in r["hash"])])
    assert [cell.hash for cell in ablation.cells] == ["CoraNone", "Cora0.1", "Site <b>None", "Site <b>0.1"]
    assert "Records that were made with other settings are left out: 6." in notes


def test_a_changed_cell_counts_by_its_last_hash(results):
    records = [*lines(results), {**lines(results)[0], "hash": "changed"}]
    ablation, notes = ablation_of("grid", records)
    assert [cell.hash for cell in ablation.cells if cell.base == "Cora"] == ["changed", "Cora0.01", "Cora0.1"]
    assert ablation.baselines["Cora0.1"] == "changed"
    assert any("Cora" in note and "left out" in note for note in notes)


def test_paths_that_change_together_are_one_axis(results):
    records = lines(results)
    for one in records:
        one["overrides"]["name"] = "with" if one["overrides"]["regularizers.werank"] else "without"
        one["overrides"]["optim.lr"] = 1.0
    records = [one for one in records if not one["hash"].endswith("0.1")]
    ablation, _ = ablation_of("grid", records)
    assert ablation.axes == [("regularizers.werank", "name"), ("optim.lr",)]
    assert len(ablation.baselines) == 2


@pytest.mark.parametrize(
    ("values", "title", "numbers"),
    [
        ([0, 0.001, 0.1], "a", [0, 0.001, 0.1]),
        ([None, {"type": "werank", "coefficient": 0.01}], "a.coefficient", [0, 0.01]),
        ([{}, {"w": {"type": "werank", "coefficient": 0.01}}], "a.w.coefficient", [0, 0.01]),
        ([{"type": "s", "start": 1, "x": 2}, {"type": "s", "start": 5, "x": 2}], "a.start", [1, 5]),
        ([{"type": "s", "start": 1, "x": 2}, {"type": "s", "start": 5, "x": 3}], "a", None),
        ([[64], [128]], "a", None),
        ([None, 0.1], "a", None),
        ([True, False], "a", None),
    ],
)
def test_a_factor_has_numbers_where_just_one_number_varies(values, title, numbers):
    (factor,) = factors(cells("a", values))
    assert (factor.title, factor.numbers) == (title, numbers)


def test_a_wide_axis_is_logarithmic_and_zero_stands_apart_at_its_left():
    (factor,) = factors(cells("a", [0.1, 0, 0.001]))
    made = scale(factor)
    assert made.logarithmic
    assert made.places[0] - made.places[2] == pytest.approx(2)
    assert made.apart == made.places[1] < made.places[2]
    (narrow,) = factors(cells("a", [0, 0.2, 1.0]))
    assert scale(narrow).places == [0, 0.2, 1.0]


def test_an_ablation_file_without_records_says_what_to_do(tmp_path, capsys):
    (tmp_path / "tiny.py").write_text("recipe = " + RECIPE)
    (tmp_path / "grid.py").write_text(
        'ablation = dict(name="grid", base="tiny.py", axes={"seed_": [1]})'.replace("seed_", "optim.lr")
    )
    assert main(["report", str(tmp_path / "grid.py"), "--results", str(tmp_path)]) == 2
    assert "no records of" in capsys.readouterr().err


RECIPE = """dict(
    name="tiny",
    domain=dict(type="graph", dataset=dict(type="csbm")),
    encoder=dict(type="gcn", hidden=[4]),
    objective=dict(type="bgrl", predictor_hidden=4),
    optim=dict(type="adamw", lr=1e-3),
    train=dict(steps=2),
)
"""


def test_a_damaged_claim_and_a_mixture_are_refused(results, trained, tmp_path):
    shutil.copytree(results, tmp_path / "grid")
    (tmp_path / "grid" / "claim.json").write_text('{"statement": "x"}')
    with pytest.raises(RunError, match=r"claim\.json: no claim"):
        write_report([tmp_path / "grid"], out=tmp_path / "out")
    with pytest.raises(RunError, match="is an ablation and has a page of its own"):
        write_report([results, trained], out=tmp_path / "out")
