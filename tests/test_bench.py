"""The command of the benchmarks, which are for people with a clone."""

import json
import os
import sys
import time
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from sslcollapse.ablation.grid import plan
from sslcollapse.cli import run_command
from sslcollapse.core.errors import MissingDataError
from sslcollapse.core.registry import GRAPH_DATASETS
from sslcollapse.recipe import load, override, resolve
from tools import bench
from tools.bench import (
    gpu,
    gpu_parts,
    gpu_runs,
    graph_scale,
    graph_step,
    large_graph,
    on_paper,
    probes,
    sampler,
    study,
)


def test_a_benchmark_that_does_not_exist_lists_those_that_do(capsys):
    assert run_command(bench.parser(), ["graph-stp"]) == 2
    assert "unknown benchmark 'graph-stp'; did you mean 'graph-step'?" in capsys.readouterr().err


def test_the_record_of_a_benchmark_is_written_to_the_file_that_is_asked_for(monkeypatch, tmp_path):
    monkeypatch.setattr(bench.importlib, "import_module", lambda name: SimpleNamespace(main=lambda: {"of": name}))
    assert run_command(bench.parser(), ["graph-step", "--json", str(tmp_path / "new" / "a.json")]) == 0
    assert json.loads((tmp_path / "new" / "a.json").read_text()) == {"of": "tools.bench.graph_step"}


@pytest.mark.parametrize("name", sorted(bench.BENCHES))
def test_every_benchmark_that_is_named_is_there(name):
    assert callable(getattr(bench.importlib.import_module(bench.BENCHES[name]), "main", None))


def test_the_help_names_the_benchmarks(capsys):
    with pytest.raises(SystemExit):
        bench.parser().parse_args(["--help"])
    told = " ".join(capsys.readouterr().out.split()).replace("- ", "-")  # lines break after hyphens
    assert "which benchmark: ablate, diagnose, gpu, graph-scale, graph-step, large-graph, memory," in told


WRITES = "import json, sys; json.dump({'status': 'done', 'headline': 'made'}, open(sys.argv[1], 'w'))"
FAILS = "import sys; print('read so far', flush=True); raise ValueError('no such kernel')"
HANGS = """
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print(child.pid, flush=True)
time.sleep(600)
"""


def part(name, code, seconds=30.0, least=0.1):
    return gpu.Part(name, seconds, [sys.executable, "-c", code], least)


def test_a_part_that_fails_or_hangs_stops_no_other_and_says_in_its_file_what_went_wrong(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(gpu, "GRACE", 0.5)
    parts = [
        part("fails", FAILS),
        part("hangs", HANGS, seconds=4),
        part("writes", WRITES),
        part("late", WRITES, 9, 900),
    ]
    summary = gpu.drive(parts, 120, tmp_path)
    assert [each["status"] for each in summary["parts"]] == ["failed", "stopped", "done", "left out"]
    failed = json.loads((tmp_path / "fails.json").read_text())
    assert failed["headline"] == "ended with exit code 1"
    assert "read so far" in failed["traceback"]
    assert "ValueError: no such kernel" in failed["traceback"]
    stopped = json.loads((tmp_path / "hangs.json").read_text())
    assert stopped["headline"] == "stopped after 4 s"
    child = int(stopped["traceback"])
    deadline = time.monotonic() + 10
    while running(child):
        assert time.monotonic() < deadline, "what a part has started goes on after it"
        time.sleep(0.05)
    assert json.loads((tmp_path / "summary.json").read_text()) == summary
    assert (tmp_path / "summary.txt").read_text().splitlines()[2].endswith("made")
    assert "written to" in capsys.readouterr().out


def running(pid):
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


def test_a_record_of_an_earlier_time_is_not_taken_for_that_of_a_part_that_fails(tmp_path, monkeypatch):
    (tmp_path / "fails.json").write_text('{"status": "done", "headline": "of yesterday"}')
    assert gpu.run_part(part("fails", FAILS), 30, tmp_path)["status"] == "failed"


def test_a_part_runs_where_rich_and_lightly_are_missing_and_writes_its_record(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu, "plan", lambda smoke: [each for each in PLANNED if each.name == "vision-step"])
    (tmp_path / "sitecustomize.py").write_text(LACKS)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    code = run_command(bench.parser(), ["gpu", "--smoke", "--out", str(tmp_path), "--json", str(tmp_path / "copy")])
    assert code == 0
    summary = json.loads((tmp_path / "copy").read_text())
    assert [each["status"] for each in summary["parts"]] == ["done"], summary["parts"][0]
    record = json.loads((tmp_path / "vision-step.json").read_text())
    assert record["feeds"]["views_a_second"].keys() == {"ready", "resident", "compiled"}
    assert record["feeds"]["failed"].keys() == {"lightly"}
    assert record["feeds"]["share_of_measured_bf16"]["resident"] > 0
    assert record["feeds"]["flops_a_step"] > 1e6
    assert record["werank"]["times_plain"]["part"] > 0
    assert (tmp_path / "summary.txt").read_text().startswith("tried on a small scale")


PLANNED = gpu.plan(smoke=True)
LACKS = """
from importlib.machinery import PathFinder

find = PathFinder.find_spec
PathFinder.find_spec = lambda name, *rest: None if name in ("rich", "lightly") else find(name, *rest)
"""


def test_the_plan_has_every_kind_of_part_and_a_limit_for_each():
    names = [each.name for each in gpu.plan(smoke=False)]
    assert names[:3] == ["environment", "tests", "graph-step-Cora"]
    assert {f"graph-step-{name}" for name in ("Cora", "CiteSeer", "Photo", "Physics")} < set(names)
    assert names[-len(gpu_runs.RUNS) :] == list(gpu_runs.RUNS)
    assert all(callable(gpu_parts.function_of(name)) for name in names)
    assert [name for name in names if name in {each.name for each in PLANNED}] == [each.name for each in PLANNED]
    assert {gpu_runs.RUNS[each.name].command for each in PLANNED if each.name in gpu_runs.RUNS} == {
        "ablate",
        "speedrun",
        "train",
    }
    assert sum(each.seconds for each in gpu.plan(smoke=False)[: -len(gpu_runs.RUNS)]) < 900


@pytest.mark.parametrize("name", gpu_runs.RUNS)
def test_a_planned_run_resolves(name):
    words = gpu_runs.RUNS[name].words
    given = Path(bench.__file__).parents[2] / words[0]
    changes = [word for before, word in pairwise(words) if "=" in word and before != "--grid"]
    if "ablations" in words[0]:
        every = {cell.recipe["monitor"]["every"] for cell in plan(given, [], None, changes).cells}
    else:
        every = {resolve(override(load(given), changes))["monitor"]["every"]}
    assert every == ({20} if name in study.MEASURED else {0})


def test_the_study_follows_claim_after_claim_after_all_that_is_planned_to_be_short():
    names = list(gpu_runs.RUNS)
    assert names[-len(study.STUDY) - len(study.PUBLISHED) :] == ["depth-10-seeds", *study.STUDY[1:], *study.PUBLISHED]


@pytest.mark.parametrize("name", study.PUBLISHED)
def test_published_settings_are_run_in_full_with_and_without_werank_at_the_recipes_coefficient(name):
    recipe, _, grid, _, baseline, _, seeds, *_ = study.published(name)
    described = load(Path(bench.__file__).parents[2] / recipe)
    planned = plan(
        Path(bench.__file__).parents[2] / recipe, [grid], int(seeds), ["monitor.every=0"], baseline=[baseline]
    )
    coefficients = [cell.values["regularizers.werank.coefficient"] for cell in planned.cells]
    assert coefficients == [0.0, described["regularizers"]["werank"]["coefficient"]]
    assert {cell.recipe["train"]["steps"] for cell in planned.cells} == {described["train"]["steps"]}
    random = {"photo", "computers", "cs", "physics", "wikics"}
    if name.partition("_")[2] in random:
        assert (described["train"]["steps"], int(seeds)) == (10_000, 20)
    assert random < {each.partition("_")[2] for each in study.PUBLISHED}


def test_the_hundred_runs_are_a_hundred_whole_runs_of_cora_with_their_evaluation():
    words = gpu_runs.RUNS["cora-100-runs"].words
    grid, seeds = (words[words.index(option) + 1] for option in ("--grid", "--seeds"))
    changes = [word for word in words[1:] if "=" in word and word != grid]
    recipe = resolve(override(load(Path(bench.__file__).parents[2] / words[0]), changes))
    assert len(grid.split(",")) * int(seeds) == 100
    assert recipe["domain"]["dataset"]["name"] == "Cora"
    assert (recipe["train"]["steps"], list(recipe["evaluate"])) == (1000, ["public", "random"])


def test_a_planned_grid_is_made_by_warm_workers_on_a_small_scale(tmp_path):
    record = gpu_runs.runs("cora-100-runs", smoke=True, seconds=120, folder=tmp_path)
    assert (record["exit_code"], record["finished"]) == (0, 2)
    assert "--executor warm" in " ".join(record["command"])
    assert {run["regularizers"]["werank"]["coefficient"] for run in record["runs"]} == {0.0, 0.1}


def test_a_planned_run_gives_what_it_has_finished(tmp_path):
    record = gpu_runs.runs("simclr-10-epochs", smoke=True, seconds=90, folder=tmp_path)
    (run,) = record["runs"]
    assert (record["exit_code"], run["steps"], run["encoder"]["width"]) == (0, 3, 4)
    assert run["evaluation"]["knn"]["test_accuracy"]["mean"] > 0.2
    with pytest.raises(RuntimeError, match="no run was finished; exit code 2"):
        gpu_runs.runs("simclr-10-epochs", smoke=True, seconds=90, folder=tmp_path)  # it is there


def test_a_graph_step_is_measured_in_one_process_and_a_contender_that_fails_is_named():
    from tools.bench.graph_step import Size, measure

    size = Size(gpu_parts.TINY_GRAPH, (16, 8), 8, rounds=2, steps=1, repeats=1, compiler="no such one", apart=False)
    record = measure(size, ("plain", "plain_compiled", "ours_werank", "floor_tf32", "floor"))
    assert record["ms"].keys() == {"plain", "ours_werank", "floor_tf32", "floor"}
    assert record["failed"].keys() == {"plain_compiled"}
    assert "no such one" in record["failed"]["plain_compiled"]
    assert record["times_floor"]["ours_werank"] > 1
    assert record["same_loss"]["ours"] == pytest.approx(record["same_loss"]["plain"], rel=1e-5)
    assert record["parts_ms"].keys() > {"werank", "optimizer"}


def test_the_device_its_views_and_the_monitor_are_measured_small(tmp_path):
    reaches = gpu_parts.surroundings(smoke=True, seconds=60, folder=tmp_path)["reaches"]
    assert reaches.keys() == {"bf16 TFLOP/s", "TF32 TFLOP/s", "float32 TFLOP/s", "copy GB/s"}
    assert min(reaches.values()) > 0
    assert min(gpu_parts.views(smoke=True, seconds=60, folder=tmp_path)["views_a_second"].values()) > 0
    assert gpu_parts.monitor(smoke=True, seconds=60, folder=tmp_path)["results"].keys() == {"graph", "images"}
    took = gpu_parts.probes(smoke=True, seconds=60, folder=tmp_path)
    assert took["seconds"]["ours"] > took["seconds"]["without probes"] > 0
    assert took["unconverged"]["ours"] == 0


def test_the_probe_is_measured_beside_scikit_learn_with_its_choices():
    scale = probes.Scale(steps=2, rounds=1, slow_rounds=1, repeats=2)
    found = probes.fits(gpu_parts.TINY_GRAPH, scale)
    assert found["splits"] == found["same_c"] == 3
    assert found["apart"] <= 2 / 240  # scikit-learn stops a little before the optimum
    assert found["seconds"].keys() == {"ours", "scikit-learn"}
    assert found["times_faster"] > 0


def test_a_step_on_images_stands_beside_a_loop_of_lightly_and_the_speed_of_one_product(tmp_path, capsys):
    pytest.importorskip("lightly")
    words = ["vision-step", "--smoke", "--json", str(tmp_path / "record.json")]
    assert run_command(bench.parser(), words) == 0
    feeds = json.loads((tmp_path / "record.json").read_text())["results"]["feeds"]
    assert feeds["failed"] == {}
    names = {"ready", "resident", "compiled", "lightly"}
    for key in ("views_a_second", "share_of_measured_bf16", "times_lightly", "times_ready"):
        assert feeds[key].keys() == names
        assert min(feeds[key].values()) > 0
    assert feeds["times_lightly"]["lightly"] == feeds["times_ready"]["ready"] == 1
    printed = capsys.readouterr().out
    assert "a loop of lightly's parts" in printed
    assert "TFLOP/s in one bf16 product" in printed


def test_the_loop_of_lightly_trains_the_same_network_on_as_many_images(monkeypatch):
    pytest.importorskip("lightly")
    from tools.bench.vision_step import SMALL, Step, lightly_step

    plain = Step(torch.device("cpu"), SMALL, werank=False, encoder="resnet_narrow")
    theirs = lightly_step(plain, SMALL, "resnet_narrow")
    sizes = [sum(p.numel() for p in model.parameters()) for model in (plain.module.encoder, theirs.model[0])]
    assert sizes[0] == sizes[1]
    (first, second), size = next(theirs.batches), plain.domain.in_shape
    assert first.shape == second.shape == (SMALL.batch, *size)
    before = theirs.model[0].conv1.weight.clone()
    theirs()
    assert not torch.equal(theirs.model[0].conv1.weight, before)


def test_a_dataset_that_is_not_there_is_named_before_a_network_is_asked(tmp_path, monkeypatch):
    monkeypatch.setenv("SSLCOLLAPSE_DATA", str(tmp_path))
    for spec in gpu_parts.GRAPHS.values():
        assert GRAPH_DATASETS.build(spec, tmp_path).files()
        with pytest.raises(MissingDataError, match="is not there; set SSLCOLLAPSE_DATA"):
            gpu_parts._check_files(spec)


def test_the_sampler_is_measured_beside_other_ways_and_its_steps_with_and_without_a_thread():
    found = sampler.measure(2000, roots=16, rounds=1, batches=1)
    assert {"ours", "plain torch", "RandomNodeLoader"} <= found["edges_a_second"].keys()
    assert ("NeighborLoader" in found["edges_a_second"]) != ("NeighborLoader" in found["failed"])
    assert all(speed["with_features"] > 0 for speed in found["edges_a_second"].values())
    ours, plain = (found["edges_a_second"][name]["edges_a_batch"] for name in ("ours", "plain torch"))
    assert 0.9 < ours / plain < 1.1  # the same work
    assert found["steps"][0].keys() == found["steps"][2].keys() == {"step", "waits"}


def test_a_step_of_the_full_graph_and_one_of_roots_are_timed_on_one_graph_with_their_peaks():
    batchings = {**large_graph.BATCHINGS, "neighbours": {"type": "neighbours", "batch_size": 32, "fanout": [3, 3]}}
    row = large_graph.measure(1000, batchings, rounds=1)
    assert row["nodes"] == 1000
    assert len(row["ms_all"]["neighbours"]) == large_graph.STEPS["neighbours"]
    assert all(ms > 0 for ms in row["ms"].values())
    assert all(0 <= peak < row["held_mib"] for peak in row["peak_mib"].values())
    larger = dict(row, nodes=10_000, ms={"full": 10 * row["ms"]["full"], "neighbours": row["ms"]["neighbours"]})
    found = large_graph.slopes([row, larger])["time"]
    assert found == {"full": pytest.approx(1.0), "neighbours": pytest.approx(0.0)}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["views", "--smoke"], "--smoke is an option of the benchmark 'gpu' and 'vision-step', not of 'views'"),
        (["views", "--runs", "here"], "--runs is an option of the benchmark 'speedrun', not of 'views'"),
        (["gpu", "--minutes", "0"], "--minutes must be > 0, got 0"),
    ],
)
def test_options_of_the_gpu_benchmark_are_checked(words, message, capsys):
    assert run_command(bench.parser(), words) == 2
    assert message in capsys.readouterr().err


def test_the_captured_contenders_of_a_graph_step_run_as_programs_where_there_are_no_graphs():
    size = graph_step.Size(gpu_parts.TINY_GRAPH, (16, 8), 8, "cpu", 1, 1, 1, apart=False)
    names = [name for name in graph_step.ON_GPU if name in ("ours", "ours_werank") or "captured" in name]
    record = graph_step.measure(size, names)
    assert record["failed"] == {}
    assert all(record["ms"][name] > 0 for name in names)
    assert record["werank_adds"].keys() == {"ours", "ours_captured"}
    assert set(names) <= graph_step.TITLES.keys()


def test_a_measured_step_of_a_transformer_is_given_in_training_steps():
    from tools.bench.monitor import DEEP, deep_table, large_networks

    assert [shape[:2] for shape in DEEP.values()] == [(48, 512), (12, 384)]
    found = large_networks("cpu", {"small": (2, 16, 2)}, rounds=1, tokens=64)["small"]
    cost = (found["measuring_ms"] + found["summary_ms"]) / found["step_ms"]
    assert found["training_steps"] == pytest.approx(cost)
    assert found["share_of_an_epoch"] == pytest.approx(cost / 100)
    assert found["summary_ms"] > 0
    assert deep_table({"small": found}).row_count == 1


def test_a_size_of_the_scale_benchmark_is_packed_once_stepped_evaluated_and_measured(tmp_path):
    first, again = (graph_scale.pack(tmp_path, nodes=500) for _ in range(2))
    assert (first["written_now"], again["written_now"]) == (True, False)
    assert first["bytes"] == again["bytes"] > 500 * graph_scale.FEATURES * 2
    row = graph_scale.measure(tmp_path, nodes=500, batch=8, steps=2)
    assert len(row["ms_all"]) == 2
    assert row["rows_a_step"] <= 8 * (1 + 5 + 25)
    assert row["effective_rank"] > 1
    assert row["test_accuracy"] > 1 / 5
    assert min(row[name] for name in ("anonymous_mib", "mapped_mib", "probe_seconds", "rank_seconds")) > 0


def test_the_slope_of_a_power_is_its_exponent_and_of_one_size_none():
    sizes = [10, 100, 1000]
    assert graph_scale.slope(sizes, [3 * size**0.7 for size in sizes]) == pytest.approx(0.7)
    assert graph_scale.slope([10], [3.0]) == 0


def test_memory_is_watched_without_mapped_files():
    with graph_scale.highest() as peaks:
        kept = torch.ones(30 * 2**20 // 4)
        time.sleep(0.1)
        before = peaks["RssAnon"]
    assert before > 30
    assert len(kept)


@pytest.mark.parametrize("text", ["", "many", "100", "1000,x"])
def test_sizes_of_the_scale_benchmark_that_are_none_are_refused(text, capsys):
    with pytest.raises(SystemExit):
        bench.parser().parse_args(["graph-scale", "--nodes", text])
    assert "expected numbers of nodes, 500 or more" in capsys.readouterr().err


def test_bytes_on_paper_are_those_of_a_packed_folder(tmp_path):
    found = graph_scale.pack(tmp_path, nodes=500)["bytes"]
    folder = tmp_path / "500"
    edges = len(np.load(folder / "indices.npy"))
    labelled = sum(len(np.load(path)) for path in folder.glob("split.*.npy"))
    size = on_paper.Size("csbm", 500, edges, graph_scale.FEATURES, labelled)
    expected = sum(on_paper.on_disk(size, 2).values())
    headers = sum(128 for _ in folder.glob("*.npy")) + sum(path.stat().st_size for path in folder.glob("*.json"))
    assert found == pytest.approx(expected, abs=headers + 1000)
    assert abs(found - expected) < 0.2 * expected


def test_hours_on_paper_follow_the_slopes_of_the_record():
    record = {
        "results": [{"nodes": 10**6, "ms": 100.0, "probe_seconds": 36.0, "rank_seconds": 36.0}],
        "slopes": {"ms": 0.0, "probe_seconds": 0.9, "rank_seconds": 1.0},
        "processes": {"ratio": 1.8},
        "batch": 1000,
    }
    size = on_paper.Size("ten times", 10**7, 10**8, 8, 10)
    assert on_paper.hours(size, record)["pass"] == pytest.approx(1000 / 3600)
    assert on_paper.hours(size, record, 10)["pass"] == pytest.approx(1000 / 3600 / 9)
    assert on_paper.hours(size, record)["evaluation"] == pytest.approx(0.2)


def test_the_table_of_bytes_in_the_docs_is_the_computed_one():
    assert on_paper.tables() in (Path(__file__).parents[1] / "docs/scale.md").read_text()
