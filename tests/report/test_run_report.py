import json
import math
import shutil
import subprocess
import sys

import numpy as np
import pytest
from boxes import crushed
from report_pages import read, table

from sslcollapse.cli import main
from sslcollapse.core.errors import RunError
from sslcollapse.report.ablation_page import write_report
from sslcollapse.report.page import Page, run_page, write_page
from sslcollapse.report.runs import differences, labels, read_run

SECTIONS = [
    "Result",
    "Rank over time",
    "Spectra",
    "Learning curves",
    "Regularization",
    "Final penalties",
    "Recipe",
    "Environment",
]


@pytest.fixture(scope="module")
def index(trained, tmp_path_factory):
    return write_report([trained], out=tmp_path_factory.mktemp("report"))


@pytest.fixture
def copy(trained, tmp_path):
    """A run to damage."""
    return shutil.copytree(trained, tmp_path / "tiny" / trained.parent.name / "seed0")


def metrics(run) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_the_page_has_every_section_and_its_elements_are_nested_properly(index):
    page = read(index)
    assert [heading for heading in page.headings if heading in SECTIONS] == SECTIONS
    assert len(page.ids) == len(set(page.ids))


def test_what_a_monitor_measured_beside_ranks_has_a_map_of_layers_each(copy, index, tmp_path):
    assert "Smoothness and overlap" not in read(index).headings  # this run's did not
    records = metrics(copy)
    measured = [record for record in records if "rank/layers/convs.1/weight/effective_rank" in record]
    for number, record in enumerate(measured):
        record["rank/layers/convs.1/weight/overlap"] = 0.5 + number / 100
        record |= {f"rank/layers/convs.{layer}/output/mad": 0.1 * layer for layer in range(2)}
    (copy / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    page = write_report([copy], out=tmp_path / "page")
    assert "Smoothness and overlap" in read(page).headings
    (overlap,) = table(page.parent / "plots" / "overlap_by_depth.csv")
    assert overlap.pop("layer") == "convs.1"
    assert [float(value) for value in overlap.values()] == [0.5 + k / 100 for k in range(len(measured))]
    assert [row["layer"] for row in table(page.parent / "plots" / "mad_by_depth.csv")] == ["convs.0", "convs.1"]
    assert not (page.parent / "plots" / "dirichlet_ratio_by_depth.csv").exists()


def test_the_page_needs_no_file_and_every_file_it_links_is_there(index):
    page = read(index)
    files = [link for link in page.links if not link.startswith("#")]
    assert files
    assert [link for link in files if "//" in link or not (index.parent / link).is_file()] == []
    assert [link for link in page.links if link.startswith("#") and link[1:] not in page.ids] == []
    text = index.read_text()
    assert "url(http" not in text
    assert "<script" not in text
    assert "@import" not in text


def test_every_plot_is_in_the_page_and_has_its_three_files(index):
    page = read(index)
    stems = {path.stem for path in (index.parent / "plots").iterdir()}
    assert {"rank", "rank_by_depth-weight", "rank_by_depth-output", "loss", "lr", "werank-coefficient"} <= stems
    assert {"fan-weight_convs.0", "fan-output_convs.1", "fan-representation"} <= stems
    for stem in stems:
        svg, png, numbers = ((index.parent / "plots" / f"{stem}.{suffix}") for suffix in ("svg", "png", "csv"))
        assert png.read_bytes().startswith(b"\x89PNG")
        assert table(numbers)
        assert "currentColor" in svg.read_text()
        assert {f"plots/{stem}.{suffix}" for suffix in ("svg", "png", "csv")} <= set(page.links)
    assert index.read_text().count("<svg ") == len(stems)


def test_the_numbers_of_curves_are_the_metrics(trained, index):
    found = {int(row["step"]): row for row in table(index.parent / "plots" / "werank-coefficient.csv")}
    for record in metrics(trained):
        if (value := record.get("regularizer/werank/convs.0/coefficient")) is not None:
            assert float(found[record["step"]]["convs.0"]) == value
    assert {float(row["convs.0"]) for row in found.values()} > {0.0}
    losses = {int(row["step"]): float(row["loss"]) for row in table(index.parent / "plots" / "loss.csv")}
    assert losses == {record["step"]: record["loss"] for record in metrics(trained) if "loss" in record}


def test_the_heat_map_holds_each_rank_against_what_the_layer_can_attain(trained, index):
    rows = {row["layer"]: row for row in table(index.parent / "plots" / "rank_by_depth-output.csv")}
    last = next(record for record in reversed(metrics(trained)) if "rank/representation/n" in record)
    for layer, row in rows.items():
        limits = [last[f"rank/layers/{layer}/{part}/attainable"] for part in ("weight", "output")]
        expected = last[f"rank/layers/{layer}/output/effective_rank"] / min(limits)
        assert float(row[str(last["step"])]) == pytest.approx(expected, rel=1e-12)
    assert list(rows) == ["convs.0", "convs.1"]


def test_the_numbers_of_a_fan_are_the_stored_singular_values_over_the_largest(trained, index):
    rows = table(index.parent / "plots" / "fan-weight_convs.0.csv")
    for step in (0, 3, 6):
        sigma = np.load(trained / "spectra" / f"{step:08d}.npz")["weight/convs.0"].astype(float)
        np.testing.assert_allclose([float(row[str(step)]) for row in rows], sigma / sigma[0], rtol=1e-12)


@pytest.mark.parametrize("runs", [1, 2])
def test_a_layer_that_widens_is_drawn_against_what_it_can_attain_with_a_mark_at_its_end(trained, copy, runs):
    recipe = json.loads((copy / "recipe.json").read_text())
    (copy / "recipe.json").write_text(json.dumps({**recipe, "seed": 1}))
    page = run_page([read_run(trained), read_run(copy)][:runs])
    stem = "fan" if runs == 1 else "spectrum"
    plot = next(p for section in page.sections for p in section.plots if p.name == f"{stem}-output_convs.0")
    assert "12 of 16 can be attained." in plot.caption  # 12 features → 16
    assert plot.rows[15][0] == 16, "the table has all"
    axes = plot.figure().axes[0]
    *lines, mark = axes.lines
    assert (list(mark.get_xdata()), mark.get_linestyle()) == ([1, 1], "--")
    assert {line.get_xdata()[-1] for line in lines} == {1.0}
    sigma = np.sort(np.load(sorted((trained / "spectra").iterdir())[-1])["output/convs.0"].astype(float))[::-1]
    np.testing.assert_allclose(lines[-1].get_ydata(), np.maximum(sigma[:12] / sigma[0], 1e-5))
    assert "A fall before the dashed line is lost rank" in next(s for s in page.sections if s.name == "spectra").html


def test_a_colour_means_one_thing_on_the_page_of_a_run(trained):
    meanings = {}
    for section in run_page([read_run(trained)]).sections:
        for plot in section.plots:
            figure = plot.figure()
            for line in figure.axes[0].lines if figure.legends else ():
                meanings.setdefault((line.get_color(), line.get_linestyle()), set()).add(line.get_label())
    assert {"representation", "loss", "convs.0"} <= set().union(*meanings.values())
    assert [labels for labels in meanings.values() if len(labels) > 1] == []


def test_plots_of_a_run_leave_their_axes_room(trained):
    plots = [plot for section in run_page([read_run(trained)]).sections for plot in section.plots]
    assert {plot.name: found for plot in plots if (found := crushed(plot.figure()))} == {}


def runs_with(folder, recipe, changes) -> list:
    for seed, change in enumerate(changes):
        path = folder / str(seed) / "seed0"
        path.mkdir(parents=True)
        (path / "recipe.json").write_text(json.dumps({**recipe, **change}))
    return [read_run(folder / str(seed) / "seed0") for seed in range(len(changes))]


def test_runs_are_named_by_what_differs_and_parts_of_another_type_by_it_alone(trained, tmp_path):
    recipe = json.loads((trained / "recipe.json").read_text())
    simclr = {"type": "simclr", "temperature": 0.2, "projector": [64, 64]}
    changes = [
        {"regularizers": {}, "seed": 0},
        {"regularizers": {}, "seed": 1},
        {"regularizers": {}, "objective": simclr, "seed": 0},
        {"regularizers": recipe["regularizers"], "objective": simclr, "seed": 0},
    ]
    found = runs_with(tmp_path, recipe, changes)
    assert labels(found) == [
        "cca_ssg · without werank · seed 0",
        "cca_ssg · without werank · seed 1",
        "simclr · without werank · seed 0",
        "simclr · with werank · seed 0",
    ]
    assert [path for path, _ in differences(found)] == ["seed", "objective", "regularizers.werank"]


def test_of_much_that_differs_labels_have_what_tells_apart(trained, tmp_path):
    recipe = json.loads((trained / "recipe.json").read_text())
    found = runs_with(
        tmp_path,
        recipe,
        [
            {"optim": {**recipe["optim"], **{f"argument_{k}": k * lr for k in range(9)}, "lr": lr}, "seed": seed}
            for lr in (0.1, 0.2)
            for seed in (0, 1)
        ],
    )
    assert [label.split(" · ")[-1] for label in labels(found)] == ["seed 0", "seed 1"] * 2
    assert len(set(labels(found))) == 4
    assert max(map(len, labels(found))) < 30


def test_the_tables_are_those_of_the_result(trained, index):
    result = json.loads((trained / "result.json").read_text())
    rows = {row["encoder"]: row for row in table(index.parent / "tables" / "evaluation.csv")}
    assert list(rows)[-3:] == ["untrained", "random, same spectrum", "trained"]
    scores = {name: entry["public"] for name, entry in result["baselines"].items()}
    scores |= {"trained": result["evaluation"]["public"], "untrained": result["untrained"]["public"]}
    for title, name in (("trained",) * 2, ("untrained",) * 2, ("AAX, no encoder", "AAX")):
        assert float(rows[title]["test"]) == 100 * scores[name]["test_accuracy"]["mean"]
    gain = scores["trained"]["test_accuracy"]["mean"] - scores["AAX"]["test_accuracy"]["mean"]
    assert float(rows["AAX, no encoder"]["trained less it"]) == pytest.approx(100 * gain)
    rank = result["baseline_ranks"]["AAX"]["representation"]["effective_rank"]
    assert float(rows["AAX, no encoder"]["effective rank"]) == rank
    ranks = {(row["of"], row["part"]): row for row in table(index.parent / "tables" / "ranks.csv")}
    for part in ("weight", "output"):
        expected = result["rank"]["layers"]["convs.1"][part]["effective_rank"]
        assert float(ranks["convs.1", part]["effective rank"]) == expected
    recipe = {row["path"]: row["value"] for row in table(index.parent / "tables" / "recipe.csv")}
    assert recipe["regularizers.werank.coefficient.start"] == "2"


def test_every_kind_of_plot_has_the_same_bytes_again(trained, index):
    again = {plot.name: plot for section in run_page([read_run(trained)]).sections for plot in section.plots}
    for name in ("rank_by_depth-weight", "fan-weight_convs.0", "loss"):
        files = tuple((index.parent / "plots" / f"{name}.{suffix}").read_bytes() for suffix in ("svg", "png"))
        assert again[name].render() == files


def test_several_runs_are_laid_over_each_other_and_their_recipes_compared(trained, copy):
    recipe = json.loads((copy / "recipe.json").read_text())
    recipe["encoder"]["hidden"] = [32, 8]
    (copy / "recipe.json").write_text(json.dumps(recipe))
    page = run_page([read_run(trained), read_run(copy)])
    sections = {section.name: section for section in page.sections}
    (differences,) = sections["differences"].tables
    assert differences.heads == ["path", "hidden=[16, 8]", "hidden=[32, 8]"]
    assert differences.rows == [["encoder.hidden", "[16, 8]", "[32, 8]"]]
    curves = {plot.name: plot for section in page.sections for plot in section.plots}
    assert [row[1:] for row in curves["loss"].rows] == [[r["loss"]] * 2 for r in metrics(trained) if "loss" in r]
    assert {"rank_by_depth-output-hidden=_16_8", "spectrum-weight_convs.0"} <= set(curves)


def test_an_unfinished_damaged_run_is_shown_as_far_as_it_goes(copy):
    (copy / "result.json").unlink()
    lines = (copy / "metrics.jsonl").read_text().splitlines()
    lines[2] = lines[2][:20]
    lines += [json.dumps({"step": 5, "loss": math.nan}), '{"step": 6, "lo']
    (copy / "metrics.jsonl").write_text("\n".join(lines))
    (copy / "spectra" / "00000003.npz").write_bytes(b"PK")
    page = run_page([read_run(copy)])
    text = "\n".join(page.notes)
    assert "Unfinished: step 6 of 6 is the last there are metrics of" in text
    assert "metrics.jsonl: damaged and left out: line 3." in text
    assert "Spectra that cannot be read are left out: 00000003.npz." in text
    assert "loss is not finite at step 5" in text
    sections = {section.name: section for section in page.sections}
    assert "ranks are those of its last measured step" in sections["result"].html
    assert sections["result"].tables[1].rows[0][0] == "representation"
    fan = next(plot for plot in sections["spectra"].plots if plot.name == "fan-weight_convs.0")
    assert fan.heads == ["k", "0", "6"]
    fan.render()
    next(plot for plot in sections["learning"].plots if plot.name == "loss").render()


def test_a_run_that_measured_nothing_says_so(copy):
    kept = [r for r in metrics(copy) if "loss" in r]
    (copy / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in kept[:1]))
    shutil.rmtree(copy / "spectra")
    page = run_page([read_run(copy)])
    assert any(note.startswith("No ranks were measured during training (monitor.every=0") for note in page.notes)
    assert "There are no spectra, so there are no fans." in page.notes
    assert [
        section.name for section in page.sections if section.name in ("spectra", "rank") and not section.empty
    ] == []


@pytest.mark.parametrize("content", ["{", "[]", '{"name": "x"}'])
def test_a_damaged_recipe_is_named(copy, content):
    (copy / "recipe.json").write_text(content)
    with pytest.raises(RunError, match=r"recipe\.json"):
        read_run(copy)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{}", "it has no 'hash'"),
        ('{"hash": 3}', "it has no 'seed'"),
        (None, "its 'evaluation' is None"),
    ],
)
def test_a_damaged_result_is_named_and_the_rest_of_the_run_is_shown(copy, content, message):
    result = json.loads((copy / "result.json").read_text())
    (copy / "result.json").write_text(content or json.dumps({**result, "evaluation": None}))
    page = run_page([read_run(copy)])
    assert f"result.json is damaged and left out: {message}." in page.notes
    assert next(section for section in page.sections if section.name == "result").tables[1].rows


@pytest.mark.parametrize("content", ["[]", "[" * 100_000, '{"hash": ' + "9" * 5000 + "}", "\xff"])
def test_a_result_that_cannot_be_read_is_an_error(copy, content):
    (copy / "result.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(RunError, match=r"result\.json: .*; restore the file, or leave this run out"):
        read_run(copy)


def test_odd_metrics_spectra_and_environments_leave_the_rest_as_it_is(copy):
    odd = [
        '{"step": 1e400}',
        '{"step": -1}',
        '{"step": "x"}',
        "[" * 100_000,
        '{"step": 4, "loss": 1' + "0" * 400 + ', "rank": 1, "rank/representation": 2, "lr": "fast"}',
    ]
    lines = (copy / "metrics.jsonl").read_text().splitlines()
    (copy / "metrics.jsonl").write_text("\n".join([*odd, *lines]) + "\n")
    np.save(copy / "spectra" / "bare.npy", np.ones(3))
    shutil.move(copy / "spectra" / "bare.npy", copy / "spectra" / "00000004.npz")
    np.savez(copy / "spectra" / "00000005.npz", **{"a/b": np.ones(3), "weight/x": np.array(["text"]), "c": np.ones(())})
    np.savez(copy / "spectra" / "²³.npz", a=np.ones(3))
    (copy / "environment.json").write_text('{"command": [1, null], "packages": []}')
    page = run_page([read_run(copy)])
    assert "metrics.jsonl: damaged and left out: line 1, 2, 3, 4." in page.notes
    assert "Spectra that cannot be read are left out: 00000004.npz." in page.notes
    for section in page.sections:
        assert all(table.html() for table in section.tables)


def test_a_path_that_is_nothing_of_this_is_named_with_what_is_wanted(tmp_path, capsys):
    assert main(["report", str(tmp_path)]) == 2
    assert "neither a run nor a folder of runs; expected a run directory" in capsys.readouterr().err
    with pytest.raises(RunError, match="there is no such file or folder"):
        write_report([tmp_path / "nowhere"])
    with pytest.raises(RunError, match=r"nothing\.py: there is no such file"):
        write_report([tmp_path / "nothing.py"])


def test_a_folder_that_cannot_be_written_or_has_another_page_is_left_alone(tmp_path):
    page = Page("x", "", [], "")
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot write the report here"):
        write_page(page, tmp_path / "file")
    (tmp_path / "index.html").write_text("<p>mine</p>")
    with pytest.raises(RunError, match=r"index\.html: there is a page that is no report"):
        write_page(page, tmp_path)
    assert (tmp_path / "index.html").read_text() == "<p>mine</p>"


def test_plots_of_an_earlier_report_go_and_other_files_stay(tmp_path):
    page = Page("x", "", [], "")
    write_page(page, tmp_path)
    for name in ("old.svg", "notes.txt"):
        (tmp_path / "plots" / name).write_text("")
    write_page(page, tmp_path)
    assert [path.name for path in (tmp_path / "plots").iterdir()] == ["notes.txt"]


def test_help_of_report_imports_neither_torch_nor_matplotlib():
    lines = [
        "import sys",
        "from sslcollapse.cli import main",
        "try: main(['report', '--help'])",
        "except SystemExit: pass",
        "print({'torch', 'matplotlib'} & set(sys.modules))",
    ]
    process = subprocess.run([sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, check=True)
    assert process.stdout.strip().endswith("set()")
