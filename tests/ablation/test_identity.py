import hashlib
import json
from pathlib import Path

import pytest

from sslcollapse.ablation import job, run_ablation
from sslcollapse.ablation.claims.judge import judge
from sslcollapse.ablation.claims.verdict import verdict_json
from sslcollapse.ablation.files import read_plan
from sslcollapse.ablation.grid import plan
from sslcollapse.ablation.job import first_hash
from sslcollapse.ablation.records import Records
from sslcollapse.ablation.tables.page import page
from sslcollapse.cli import main
from sslcollapse.core.registry import PROBES
from sslcollapse.recipe import digest, learnt, load, recipe_hash, resolve
from sslcollapse.runs.directory import environment

RESULTS = Path(__file__).parents[2] / "docs" / "results"

OWN = """
from sslcollapse.core.registry import PROBES

@PROBES.register("identity_test")
class Own:
    def __init__(self, *, rate: float = 0.3) -> None:
        self.rate = rate
"""
"""A probe, since its kind imports no torch: the fake worker does not build it."""


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    """What a test registers is forgotten after it."""
    for name in ("_targets", "_factories", "_places"):
        monkeypatch.setattr(PROBES, name, dict(getattr(PROBES, name)))


def with_own_component(workspace):
    recipe = workspace.recipe.read_text().replace("evaluate=dict(", 'evaluate=dict(own=dict(type="identity_test"), ', 1)
    workspace.recipe.write_text(OWN + recipe)


def change_default(workspace):
    workspace.recipe.write_text(workspace.recipe.read_text().replace("rate: float = 0.3", "rate: float = 2.0"))


def run(workspace, **more):
    grid = ["encoder.hidden=[4],[8]"]
    options = {"grid": grid, "seeds": 2, "jobs": 2, "out": workspace.out, "results": workspace.results, **more}
    return run_ablation(workspace.recipe, **options)


def test_runs_of_a_component_whose_default_has_changed_are_other_runs(workspace, capsys):
    with_own_component(workspace)
    assert run(workspace) == 0
    before = recipe_hash(resolve(load(workspace.recipe)))
    change_default(workspace)
    assert recipe_hash(resolve(load(workspace.recipe))) == before, "the hash leaves defaults out"
    capsys.readouterr()
    assert run(workspace) == 0
    shown = capsys.readouterr().out
    assert "tiny: 4 runs, 0 finished, 4 to do" in shown
    assert "set aside 4 recorded runs of the same hash: evaluate.own.rate: 2.0 asked for, 0.3 there" in shown
    assert len(workspace.calls()) == len(workspace.records()) == 8
    assert [record["recipe"]["evaluate"]["own"]["rate"] for record in workspace.records()] == [0.3] * 4 + [2.0] * 4
    assert "4 of 4 runs" in (workspace.results / "tiny" / "README.md").read_text()


def test_the_run_directory_of_other_defaults_is_moved_aside_and_kept(workspace):
    with_own_component(workspace)
    assert run(workspace) == 0
    old = {path.parent for path in workspace.out.glob("tiny/*/seed?/result.json")}
    change_default(workspace)
    (workspace.results / "tiny" / "runs.jsonl").unlink()
    assert run(workspace) == 0
    assert len(workspace.calls()) == 8, "a finished run of another default is not recorded as this one"
    for path in old:
        (kept,) = path.parent.glob(f"{path.name}-*")
        assert json.loads((kept / "recipe.json").read_text())["evaluate"]["own"]["rate"] == 0.3
        assert json.loads((path / "recipe.json").read_text())["evaluate"]["own"]["rate"] == 2.0
    assert len(old) == 4


def test_the_origin_of_a_recipes_own_component_is_kept_with_its_runs(workspace):
    with_own_component(workspace)
    resolved = resolve(load(workspace.recipe))
    source = hashlib.sha256(workspace.recipe.read_bytes()).hexdigest()[:12]
    expected = {"probe identity_test": f"tiny.py sha256:{source}"}
    assert environment(1, "cpu", [], resolved)["plugins"] == expected
    run(workspace)
    path = workspace.results / "tiny" / "runs.jsonl"
    path.write_text("".join(json.dumps({**record, "plugins": expected}) + "\n" for record in workspace.records()))
    run(workspace)
    text = (workspace.results / "tiny" / "README.md").read_text()
    assert f"Plug-ins: probe identity_test of tiny.py sha256:{source}." in text


def test_a_default_that_is_changed_back_finds_its_records_again(workspace):
    with_own_component(workspace)
    text = workspace.recipe.read_text()
    run(workspace)
    change_default(workspace)
    run(workspace)
    workspace.recipe.write_text(text)
    assert run(workspace) == 0
    assert len(workspace.calls()) == 8


def test_a_dry_run_says_what_is_set_aside(workspace, capsys):
    with_own_component(workspace)
    run(workspace)
    change_default(workspace)
    capsys.readouterr()
    run(workspace, dry_run=True)
    shown = capsys.readouterr().out
    assert "0 finished, 4 to do\nset aside 4 recorded runs of the same hash: evaluate.own.rate" in shown


def test_train_refuses_the_folder_of_a_run_with_other_defaults(workspace, capsys):
    with_own_component(workspace)
    run(workspace)
    change_default(workspace)
    command = ["train", str(workspace.recipe), "encoder.hidden=[4]", "--out", str(workspace.out)]
    for option in ([], ["--resume"]):
        assert main([*command, *option]) == 2
        said = capsys.readouterr().err
        assert "a run of the same hash is here whose defaults were others (evaluate.own.rate: 2.0 asked for" in said
        assert "use --overwrite to replace it, or --out for another folder" in said


def test_an_option_that_came_later_leaves_recorded_runs_valid(workspace):
    assert run(workspace) == 0
    path = workspace.results / "tiny" / "runs.jsonl"
    records = workspace.records()
    for record in records:
        del record["recipe"]["encoder"]["initial_rank"]
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    assert run(workspace) == 0
    assert len(workspace.calls()) == 4


def without_recipes(workspace):
    path = workspace.results / "tiny" / "runs.jsonl"
    records = workspace.records()
    for record in records:
        del record["recipe"]
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


def test_records_of_the_first_version_count_while_built_in_defaults_are_those_of_then(workspace, monkeypatch, capsys):
    assert run(workspace) == 0
    without_recipes(workspace)
    assert run(workspace) == 0
    assert len(workspace.calls()) == 4
    known = json.loads(Path(job.__file__).with_name("first_defaults.json").read_text())
    known["encoder gcn"]["defaults"]["norm_momentum"] = 0.5  # as if the default had been changed since
    monkeypatch.setattr(job, "_defaults", lambda: known)
    capsys.readouterr()
    run(workspace, dry_run=True)
    assert "set aside 4 recorded runs of the same hash: a record of version 0.1.0" in capsys.readouterr().out


def test_records_of_the_first_version_with_a_component_of_somebody_else_do_not_count(workspace, capsys):
    with_own_component(workspace)
    assert run(workspace) == 0
    without_recipes(workspace)
    capsys.readouterr()
    run(workspace, dry_run=True)
    assert "0 finished, 4 to do\nset aside 4 recorded runs" in capsys.readouterr().out


@pytest.mark.parametrize(
    "name", ["bgrl_werank_cora", "simclr_werank_digits", "toy_werank_noise", "bgrl_ppi", "bgrl_arxiv"]
)
def test_the_first_versions_hash_is_found_from_the_whole_recipe_alone(name):
    resolved = resolve(load(RESULTS.parents[1] / "recipes" / f"{name}.py"))
    assert first_hash(json.loads(json.dumps(resolved))) == recipe_hash(resolved)
    other = json.loads(json.dumps(resolved))
    other["train"]["accumulate"] = 2
    assert first_hash(other) != recipe_hash(resolved)


@pytest.mark.parametrize("folder", sorted(path.parent.name for path in RESULTS.glob("*/runs.jsonl")))
def test_every_recorded_run_of_this_repository_still_counts_and_its_page_says_what_the_records_say(folder):
    ablation, command = read_plan(RESULTS / folder)
    records = Records(RESULTS / folder / "runs.jsonl")
    there = sum((cell.hash, seed) in records for cell in ablation.cells for seed in range(ablation.seeds))
    assert len(records.of(ablation.cells, ablation.seeds)) == there > 0
    assert records.set_aside(ablation.cells, ablation.seeds) == {}
    assert (RESULTS / folder / "README.md").read_text() == page(ablation, records, {}, command)
    if ablation.claim is not None:
        assert (RESULTS / folder / "claim.json").read_text() == verdict_json(judge(ablation, records))


def test_records_of_other_random_streams_are_set_aside_where_a_cell_asks_for_some(workspace):
    from dataclasses import replace

    run(workspace)
    (cell, _) = plan(workspace.recipe, ["encoder.hidden=[4],[8]"], 2, []).cells
    records = Records(workspace.results / "tiny" / "runs.jsonl")
    assert len(records.of([replace(cell, streams=None)], 2)) == len(records.of([replace(cell, streams=1)], 2)) == 2
    assert records.of([replace(cell, streams=2)], 2) == []
    assert records.set_aside([replace(cell, streams=2)], 2) == {"random streams of version 1, 2 asked for": 2}


@pytest.mark.parametrize(
    "recipe", [{"encoder": 5}, {"encoder": {"type": []}}, {"evaluate": 1, "train": {}}, {"train": 1}]
)
def test_what_is_no_recipe_has_no_hash_of_the_first_version(recipe):
    assert first_hash(recipe) in ("", first_hash({}))


@pytest.mark.parametrize("made", [5, [], {}, {"train": 5}, {"encoder": "gcn"}, {"train": {"steps": {}}}])
def test_a_record_with_a_recipe_that_is_none_is_another_run_or_the_same_but_no_traceback(workspace, made):
    (cell, _) = plan(workspace.recipe, ["encoder.hidden=[4],[8]"], 2, []).cells
    records = Records(workspace.results / "tiny" / "runs.jsonl")
    records.add({"hash": cell.hash, "seed": 0, "evaluation": {}, "rank": {}, "recipe": made, "plugins": made})
    assert len(records.of([cell], 1)) + sum(records.set_aside([cell], 1).values()) == 1


def test_two_records_of_one_hash_and_seed_are_kept_where_they_were_made_differently(tmp_path):
    records = Records(tmp_path / "runs.jsonl")
    for recipe in ({"a": 1}, {"a": 2}, {"a": 1}):
        records.add({"hash": "h", "seed": 0, "evaluation": {}, "rank": {}, "recipe": recipe})
    assert [record["recipe"] for record in Records(tmp_path / "runs.jsonl")] == [{"a": 1}, {"a": 2}]
    assert digest(learnt({"a": 1})) != digest(learnt({"a": 2}))
