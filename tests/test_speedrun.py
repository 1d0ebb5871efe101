"""The board of the speedrun is what its records say, and its recipes are what the board says."""

import json
import shlex
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))

from sslcollapse.cli import run_command
from sslcollapse.recipe import load, resolve
from tools import bench
from tools.bench import speedrun

NAMES = sorted(path.stem for path in speedrun.RECIPES.glob("*.py"))


def point(step, test, training, seconds):
    return {"step": step, "test": test, "validation": test, "training": training, "seconds": seconds}


RECORD = {
    "name": "speedrun_simclr",
    "hash": "01234567",
    "seed": 0,
    "data": "CIFAR-10 (JPEG)",
    "encoder": "resnet18",
    "batch": 1000,
    "steps": 5000,
    "epochs": 100.0,
    "finished": True,
    "overrides": ["domain.dataset={}", "optim.lr=0.5"],
    "device": "a GPU",
    "commit": "0123456789ab",
    "time": "2026-12-01T10:00:00+00:00",
    "packages": {},
    "curve": [point(2500, 0.80, 60.0, 66.0), point(5000, 0.851, 150.0, 162.0)],
    "reached": {"84.8": point(5000, 0.851, 150.0, 162.0), "90": None},
}


def rows(table):
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in table.splitlines()[2:]]


def test_the_page_is_what_the_records_in_the_repository_say():
    text = speedrun.PAGE.read_text()
    assert speedrun.page(text, speedrun.stored()) == text


def test_every_recipe_has_a_row_and_one_without_a_record_has_no_figures():
    found = rows(speedrun.board([]))
    assert [row[0] for row in found] == [f"[{name}](../recipes/speedrun/{name}.py)" for name in NAMES]
    assert all(set(row[1:-1]) == {speedrun.NONE} for row in found)
    assert all(row[-1].endswith(".") for row in found)


def test_a_row_has_both_times_what_was_changed_and_what_was_not_reached():
    (row,) = [each for each in rows(speedrun.board([RECORD])) if each[1] != speedrun.NONE]
    assert row[1:9] == [
        *("2.5 (2.7)", "not reached", "85.10", "100 of 100", "CIFAR-10 (JPEG)", "a GPU", "0123456789ab", "2026-12-01")
    ]
    assert row[-1].endswith("Changed: `optim.lr=0.5`.")
    nothing = {"84.8": None, "90": None}
    stopped = {**RECORD, "finished": False, "commit": None, "curve": RECORD["curve"][:1], "reached": nothing}
    (row,) = [each for each in rows(speedrun.board([stopped])) if each[1] != speedrun.NONE]
    assert row[1:7] == ["not reached", "not reached", "80.00, stopped", "50 of 100", "CIFAR-10 (JPEG)", "a GPU"]
    fast = {**RECORD, "time": "2026-12-02", "reached": {"84.8": point(2500, 0.85, 60.0, 66.0), "90": None}}
    ordered = [row[1] for row in rows(speedrun.board([RECORD, fast])) if row[1] != speedrun.NONE]
    assert ordered == ["1.0 (1.1)", "2.5 (2.7)"]


@pytest.mark.parametrize("change", [{"encoder": "resnet_narrow"}, {"data": "digits"}, {"name": "simclr_cifar10"}])
def test_a_run_of_another_network_data_set_or_recipe_is_no_row_of_the_board_but_a_lead(change):
    other = {**RECORD, **change}
    assert speedrun.board([other]) == speedrun.board([])
    assert speedrun.leads([other]).count("\n") == 2
    assert speedrun.leads([RECORD]) == "None has been recorded."


def test_a_page_without_a_place_for_a_table_is_refused():
    with pytest.raises(ValueError, match="needs one <!-- leads --> that is followed by <!-- end -->, has 0"):
        speedrun.page("<!-- board -->\n\n<!-- end -->", [])


def test_an_aim_is_reached_at_the_first_point_that_is_as_high():
    curve = [point(1, 0.847, 1, 1), point(2, 0.848, 2, 2), point(3, 0.86, 3, 3)]
    assert speedrun.reached(curve, 84.8)["step"] == 2
    assert speedrun.reached(curve, 90.0) is None


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_is_of_whole_epochs_measures_itself_and_follows_the_rule_for_its_batch(name):
    recipe = resolve(load(speedrun.RECIPES / f"{name}.py"))
    steps, batch = recipe["train"]["steps"], recipe["domain"]["batch_size"]
    assert recipe["name"] == f"speedrun_{name}"
    assert 50_000 % batch == 0
    assert steps * batch % 50_000 == 0
    assert (recipe["encoder"]["type"], recipe["encoder"]["stem"]) == ("resnet18", "cifar")
    assert recipe["evaluate"].keys() == {"knn"}
    assert (recipe["evaluate"]["knn"]["k"], recipe["evaluate"]["knn"]["temperature"]) == (200, 0.1)
    assert recipe["monitor"]["timed"] == ["knn"]
    assert recipe["monitor"]["baselines"] is False, "a run is for its minutes, and rows of tables need time after it"
    assert steps % recipe["monitor"]["timed_every"] == 0
    assert all(until < steps and size < 32 for until, size in recipe["domain"]["grow"])
    rule = {"simclr": 0.06 / 128, "byol": 1.0 / 256, "vicreg": 0.3 / 256}[recipe["objective"]["type"]] * batch
    if recipe["optim"]["type"] == "timm":
        rule = 2e-3 * (batch / 256) ** 0.5
    assert recipe["optim"]["lr"] == pytest.approx(rule)


def test_the_training_commands_of_the_page_resolve_to_runs_that_the_board_can_read():
    lines = [
        line.split("#")[0] for line in speedrun.PAGE.read_text().splitlines() if line.startswith("    sslcollapse ")
    ]
    assert len(lines) == 2
    for line in lines:
        _, command, path, *words = shlex.split(line)
        recipe = resolve(load(speedrun.REPOSITORY / path), [word for word in words if "=" in word])
        assert command == "train"
        assert recipe["monitor"]["timed"] == ["knn"] == list(recipe["evaluate"])


def test_the_part_of_the_gpu_benchmark_leaves_a_record_that_the_board_takes(tmp_path, monkeypatch, capsys):
    part = speedrun.part("speedrun-vicreg", smoke=True, seconds=400, folder=tmp_path)
    record = part["speedrun"]
    assert (part["exit_code"], record["name"], record["finished"]) == (0, "speedrun_vicreg", True)
    assert [each["step"] for each in record["curve"]] == [2, 3]
    assert all(0 < each["training"] <= each["seconds"] for each in record["curve"])
    assert "84.8 % not reached, 90 % not reached; kNN 0." in part["headline"]
    monkeypatch.setattr(speedrun, "RECORDS", tmp_path / "records")
    monkeypatch.setattr(speedrun, "PAGE", tmp_path / "page.md")
    speedrun.RECORDS.mkdir()
    speedrun.PAGE.write_text("a\n<!-- board -->\n\n<!-- end -->\nb\n<!-- leads -->\n\n<!-- end -->\nc")
    words = ["speedrun", "--runs", str(tmp_path / "runs"), "--json", str(tmp_path / "record.json")]
    assert run_command(bench.parser(), words) == 0
    (file,) = speedrun.RECORDS.iterdir()
    assert json.loads(file.read_text()) == record
    first = speedrun.PAGE.read_text()
    assert "| speedrun_vicreg | " in first
    assert "`train.steps=3`" in first
    assert run_command(bench.parser(), words[:1]) == 0
    assert speedrun.PAGE.read_text() == first
    (run,) = (tmp_path / "runs").glob("**/seed0")
    with (run / "train.log").open("a") as log:
        log.write("resuming after step 2\n")
    assert speedrun.records_below(tmp_path / "runs") == []
