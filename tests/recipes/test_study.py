"""The files of the claims' study: what they plan, what they ask of earlier grids, and what recipes say of records."""

import json
import re
from pathlib import Path
from statistics import fmean

import pytest

from sslcollapse.ablation import run_ablation
from sslcollapse.ablation.claims.judge import judge
from sslcollapse.ablation.claims.needs import needs
from sslcollapse.ablation.grid import plan
from sslcollapse.ablation.records import Records
from sslcollapse.recipe import extend, identify, load, override, resolve
from sslcollapse.training.trainer import train
from tools.bench.study import ASKED_AGAIN, MEASURED, STUDY, words

RECIPES = Path(__file__).parents[2] / "recipes"
RESULTS = RECIPES.parent / "docs/results"


def test_the_deep_recipes_are_those_of_the_depth_grid_with_one_probe_more():
    for name, coefficient in (("bgrl_deep_cora", 0.0), ("bgrl_werank_deep_cora", 1e-1)):
        shown = load(RECIPES / f"{name}.py")
        grid = override(load(RECIPES / "claims/bgrl_deep_cora.py"), [f"regularizers.werank.coefficient={coefficient}"])
        same = {"train": resolve(grid)["train"], "evaluate": grid["evaluate"]}
        regularizers = grid["regularizers"] if coefficient else {}
        assert identify({**shown, **same})[1] == identify({**grid, "regularizers": regularizers})[1]
        assert resolve(shown)["train"]["steps"] == same["train"]["steps"]


def test_figures_of_the_deep_recipes_are_those_of_the_first_six_seeds_on_record():
    lines = (RESULTS / "claim_00_depth/runs.jsonl").read_text().splitlines()
    found = {}
    for coefficient in (0.0, 1e-1):
        chosen = {"encoder.hidden": [256] * 8, "regularizers.werank.coefficient": coefficient}
        kept = [r for r in map(json.loads, lines) if (r["base"], r["overrides"]) == ("Cora", chosen) and r["seed"] < 6]
        assert len(kept) == 6
        accuracy = fmean(100 * record["evaluation"]["public"]["test_accuracy"]["mean"] for record in kept)
        rank = fmean(record["rank"]["representation"]["effective_rank"] for record in kept)
        untrained = fmean(100 * record["untrained"]["public"]["test_accuracy"]["mean"] for record in kept)
        found[coefficient] = f"{accuracy:.1f}", f"{rank:.0f}", f"{untrained:.1f}"
    (plain, rank, untrained), (ranked, kept_rank, _) = found.values()
    said = {name: (RECIPES / f"{name}.py").read_text() for name in ("bgrl_deep_cora", "bgrl_werank_deep_cora")}
    assert re.findall(r"(\d+\.\d) %", said["bgrl_deep_cora"]) == [plain, untrained]
    assert re.findall(r"(\d+\.\d) %", said["bgrl_werank_deep_cora"]) == [ranked, plain]
    assert re.findall(r"effective\s+rank of (\d+) of 256", said["bgrl_deep_cora"]) == [rank]
    assert re.findall(r"rank of (\d+) of 256", said["bgrl_werank_deep_cora"]) == [kept_rank]
    assert f"with {plain} % and {rank}." in said["bgrl_werank_deep_cora"]


@pytest.mark.parametrize("dataset", ["cora", "citeseer"])
def test_what_is_measured_on_the_way_changes_nothing_that_is_learnt(dataset):
    usual, measured = (load(RECIPES / f"claims/bgrl_deep_{part}{dataset}.py") for part in ("", "measured_"))
    assert identify(usual)[1] == identify(measured)[1]
    assert usual["name"] != measured["name"]


def planned(name):
    return plan(RECIPES / f"ablations/{name}.py", [], None, [])


def test_the_study_has_every_file_of_a_claim_once_and_begins_with_claims_0_2_1_and_5():
    files = {path.stem for path in (RECIPES / "ablations").glob("claim_*.py")}
    assert len(set(STUDY)) == len(STUDY)
    assert set(STUDY) | set(ASKED_AGAIN) == files
    assert not set(STUDY) & set(ASKED_AGAIN)
    assert set(ASKED_AGAIN.values()) <= set(STUDY)
    assert list(dict.fromkeys(name[:8] for name in STUDY))[:4] == ["claim_00", "claim_02", "claim_01", "claim_05"]


def test_only_files_whose_runs_are_measured_on_the_way_leave_the_monitor_as_it_is():
    for name in STUDY:
        every = {cell.recipe["monitor"]["overlap"] > 0 for cell in planned(name).cells}
        assert every == {name in MEASURED}
        assert ("monitor.every=0" in words(name)) is (name not in MEASURED)


def test_the_depth_grid_is_the_one_that_its_records_are_of():
    kept = {json.loads(line)["hash"] for line in (RESULTS / "claim_00_depth/runs.jsonl").read_text().splitlines()}
    assert kept == {cell.hash for cell in planned("claim_00_depth").cells}


def test_the_mechanism_is_asked_of_runs_that_the_rivals_make():
    rivals, mechanism = (
        {(cell.recipe["name"], cell.hash) for cell in planned(name).cells}
        for name in ("claim_00_depth_rivals", "claim_00_depth_mechanism")
    )
    assert mechanism < rivals


FROM_EARLIER = [name for name in STUDY if getattr(planned(name).claim, "variances", "")]


@pytest.mark.parametrize("name", FROM_EARLIER)
def test_before_a_grid_runs_its_seeds_follow_from_the_records_of_an_earlier_one(name):
    ablation, records = planned(name), Records(RESULTS / name / "runs.jsonl")
    found = [need for need in needs(ablation, records, judge(ablation, records)) if need.planned is not None]
    assert found
    assert {need.spread.source for need in found} == {ablation.claim.variances}
    assert all(5 <= need.planned <= need.upper for need in found)


def test_each_new_file_but_the_mechanism_knows_an_earlier_grid():
    new = [name for name in STUDY if name.startswith("claim_00_depth_")] + [
        ASKED_AGAIN[name] for name in ASKED_AGAIN if name[6:8] in ("03", "04", "06", "09", "10", "11")
    ]
    assert set(new) - set(FROM_EARLIER) == {"claim_00_depth_mechanism"}


SMALL = {
    "domain": {"dataset": {"type": "csbm", "nodes": 80, "features": 12, "classes": 3, "train_per_class": 5}},
    "encoder": {"hidden": [8] * 3},
    "train": {"steps": 2},
    "optim": {"warmup_steps": 1},
    "monitor": {"every": 1, "overlap": 2},
}
SMALL["domain"]["dataset"]["validation_per_class"] = 5


@pytest.mark.parametrize("way", range(7))
def test_each_rival_trains_on_a_small_graph_with_the_overlaps_of_its_layers(way, tmp_path):
    cell = planned("claim_00_depth_rivals").cells[way]
    run = train(extend(cell.with_seed(0), SMALL), out=tmp_path)
    course = json.loads((run / "result.json").read_text())["course"]
    assert [len(course["layers"][f"convs.{k}"]["overlap"]) for k in (1, 2)] == [len(course["step"])] * 2


def test_a_dry_run_of_a_new_file_prints_the_seeds_that_its_tests_need(capsys):
    run_ablation(RECIPES / "ablations/claim_10_equivalence.py", dry_run=True, results=RESULTS)
    shown = " ".join(capsys.readouterr().out.split())
    assert "claim_10_regularizers" in shown
    assert "so is equivalent" in shown
