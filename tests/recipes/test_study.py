"""The files of the claims' study: what they plan, what they ask of earlier grids, and what recipes say of records."""

import json
import re
from pathlib import Path
from statistics import fmean

import pytest

from sslcollapse.recipe import identify, load, override, resolve

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
