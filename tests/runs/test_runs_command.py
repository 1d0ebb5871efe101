"""``sslcollapse runs``: what ran, how it ended, what differs; and what is deleted, and what is not."""

import json
import shutil

import pytest
from tiny import tiny_recipe

from sslcollapse import cli
from sslcollapse.core.errors import RunError
from sslcollapse.core.files import run_lock
from sslcollapse.recipe import override
from sslcollapse.runs.export import load_encoder
from sslcollapse.training.trainer import train

RECIPE = tiny_recipe(
    "listed",
    optim=dict(type="adamw", lr=1e-2),
    train=dict(steps=2, log_every=1),
    monitor=dict(every=0, baselines=False),
    evaluate=dict(public=dict(type="logistic", split="public")),
)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Two seeds of a recipe, and one with another width."""
    folder = tmp_path_factory.mktemp("runs")
    for changes in ([], ["seed=1"], ["encoder.hidden=[16, 4]"]):
        train(override(RECIPE, changes), out=folder)
    return folder


@pytest.fixture
def folder(made, tmp_path):
    """A copy of them, with one that is not finished."""
    folder = shutil.copytree(made, tmp_path / "runs")
    first = sorted(folder.glob("*/*/seed0"))[0]
    unfinished = shutil.copytree(first, first.with_name("seed7"))
    (unfinished / "result.json").unlink()
    return folder


def printed(capsys, *words):
    """JSON that a command prints."""
    capsys.readouterr()
    assert cli.main(["runs", *map(str, words), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_ls_names_every_run_how_it_ended_and_what_came_out(folder, capsys):
    runs = {run["path"]: run for run in printed(capsys, "ls", folder)}
    assert len(runs) == 4
    assert sorted(run["state"] for run in runs.values()) == ["finished"] * 3 + ["unfinished"]
    for path, run in runs.items():
        if run["state"] == "finished":
            result = json.loads((folder / path / "result.json").read_text())
            assert run["metrics"]["public.test_accuracy"] == result["evaluation"]["public"]["test_accuracy"]["mean"]
            assert run["metrics"]["rank.representation"] == result["rank"]["representation"]["effective_rank"]
            assert (run["step"], run["steps"], run["seed"]) == (2, 2, result["seed"])
    assert cli.main(["runs", "ls", str(folder)]) == 0
    assert capsys.readouterr().out.count("finished") == 4


def test_states_tell_a_signal_a_collapse_a_running_process_and_damage_apart(folder, capsys):
    (run,) = folder.glob("*/*/seed7")

    def state():
        (found,) = printed(capsys, "ls", run)
        return found["state"]

    with run_lock(run):
        assert state() == "running"
    (run / "train.log").write_text("stopped by SIGTERM after step 1\n")
    assert state() == "stopped"
    (run / "collapse.json").write_text(json.dumps(dict(stopped=True, layer="convs.0", kind="output", since=1)))
    assert state() == "collapsed"
    (run / "result.json").write_text('{"hash": ')
    assert state().startswith("damaged: result.json")
    assert len(printed(capsys, "ls", folder)) == 4  # it hides no other


def test_the_folder_that_one_is_in_is_a_run_too(folder, capsys, monkeypatch):
    (run,) = folder.glob("*/*/seed7")
    monkeypatch.chdir(run)
    (found,) = printed(capsys, "ls", ".")
    assert (found["path"], found["state"]) == (str(run), "unfinished")
    with run_lock(run):
        assert cli.main(["runs", "rm", "--yes", "."]) == 2
    assert run.exists()


def test_best_is_by_the_mean_over_seeds_and_by_validation_unless_said(folder, capsys):
    found = printed(capsys, "best", folder)
    assert ".validation_" in found["metric"]
    assert sorted(group["n"] for group in found["recipes"]) == [1, 2]
    by = printed(capsys, "best", folder, "--by", "rank.representation")["recipes"]
    assert by[0]["mean"] > by[1]["mean"]
    lowest = printed(capsys, "best", folder, "--by", "rank.representation", "--lowest")["recipes"]
    assert [group["hash"] for group in lowest] == [group["hash"] for group in reversed(by)]
    assert cli.main(["runs", "best", str(folder), "--by", "public.test_acuracy"]) == 2
    assert "did you mean 'public.test_accuracy'" in capsys.readouterr().err


def test_show_has_recipe_and_result_and_diff_what_differs_in_both(folder, capsys):
    runs = [run["path"] for run in printed(capsys, "ls", folder) if run["state"] == "finished" and run["seed"] == 0]
    shown = printed(capsys, "show", runs[0])
    assert shown["recipe"]["encoder"]["type"] == "gcn"
    assert shown["result"]["status"] == "finished"
    found = printed(capsys, "diff", *runs)
    assert [(row["what"], set(row["values"])) for row in found["recipe"]] == [
        ("encoder.hidden", {"[16, 8]", "[16, 4]"})
    ]
    assert "rank.representation" in [row["what"] for row in found["result"]]
    for words in (["show", runs[0]], ["diff", *runs]):
        assert cli.main(["runs", *words]) == 0
        assert "hidden" in capsys.readouterr().out


def test_rm_asks_or_needs_yes_and_takes_the_empty_folders_with_it(folder, capsys, monkeypatch):
    (run,) = folder.glob("*/*/seed1")
    assert cli.main(["runs", "rm", str(run)]) == 2
    assert "rm needs --yes where nobody can be asked; nothing was deleted" in capsys.readouterr().err
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("builtins.input", lambda question: "n")
    assert cli.main(["runs", "rm", str(run)]) == 0
    assert run.exists()
    monkeypatch.setattr("builtins.input", lambda question: "y")
    assert cli.main(["runs", "rm", str(run)]) == 0
    assert not run.exists()
    left = list(folder.glob("*/*/seed*"))
    assert cli.main(["runs", "rm", "--yes", *map(str, left)]) == 0
    assert list(folder.glob("*")) == []


def test_rm_refuses_what_is_no_run_a_folder_of_runs_a_link_and_a_run_in_use_and_then_deletes_none(folder, capsys):
    runs = sorted(folder.glob("*/*/seed0"))
    link = folder / "link"
    link.symlink_to(runs[0])
    (folder / "notes").mkdir()
    (folder / "notes" / "recipe.json").write_text("{}")
    for path, why in (
        (folder, "this is no run directory"),
        (folder / "notes", "this is no run directory"),
        (folder / "absent", "there is no such folder"),
        (link, "this is a link"),
    ):
        assert cli.main(["runs", "rm", "--yes", str(runs[1]), str(path)]) == 2
        assert why in capsys.readouterr().err
    with run_lock(runs[0]):
        assert cli.main(["runs", "rm", "--yes", *map(str, runs)]) == 2
    assert "this run is in use by process" in capsys.readouterr().err
    assert all(run.exists() for run in runs)


def test_a_path_in_a_table_is_whole_where_nothing_has_a_width(folder, capsys):
    assert cli.main(["runs", "ls", str(folder)]) == 0
    shown = capsys.readouterr().out
    assert all(run["path"] in shown for run in printed(capsys, "ls", folder))


def test_show_prints_a_command_as_it_is_typed_and_seconds_to_six_digits(folder, capsys):
    run = sorted(folder.glob("*/*/seed0"))[0]
    file = run / "environment.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"command": ["sslcollapse", "train", "a b.py"]}))
    seconds = json.loads((run / "result.json").read_text())["seconds"]["training"]
    assert cli.main(["runs", "show", str(run)]) == 0
    shown = capsys.readouterr().out
    assert "sslcollapse train 'a b.py'" in shown
    assert f" {seconds:.6g} " in shown


def test_an_encoder_of_an_unfinished_run_is_refused_with_how_to_go_on(folder):
    (unfinished,) = folder.glob("*/*/seed7")
    (unfinished / "encoder.json").unlink()
    with pytest.raises(RunError, match=r"seed7: this run is not finished and has no exported encoder yet; .* --resume"):
        load_encoder(unfinished)


def test_rm_leaves_empty_folders_that_no_training_has_made(folder, tmp_path, capsys):
    run = shutil.copytree(sorted(folder.glob("*/*/seed0"))[0], tmp_path / "mine" / "kept" / "run")
    assert cli.main(["runs", "rm", "--yes", str(run)]) == 0
    assert run.parent.is_dir()


def test_rm_of_a_run_under_two_names_deletes_it_once(folder, capsys):
    run = sorted(folder.glob("*/*/seed0"))[0]
    other = run.parent / "seed7" / ".." / "seed0"
    assert cli.main(["runs", "rm", "--yes", str(run), str(other)]) == 0
    assert not run.exists()


def test_diff_of_a_run_with_itself_is_no_difference(folder, capsys):
    run = sorted(folder.glob("*/*/seed0"))[0]
    assert printed(capsys, "diff", run, run) == {"recipe": [], "result": [], "environment": []}
