import importlib
import os
import re
import subprocess
import sys
import types
from pathlib import Path

import pytest

import sslcollapse
from sslcollapse import cli
from sslcollapse.core import texts
from sslcollapse.core.errors import RecipeError, RunError
from sslcollapse.core.registry import REGISTRIES
from sslcollapse.recipe import recipe_hash

ROOT = Path(__file__).parents[1]
RECIPE = """recipe = dict(
    name="toy",
    domain=dict(type="graph", dataset=dict(type="csbm")),
    encoder=dict(type="gcn", hidden=[8, 4]),
    objective=dict(type="bgrl"),
    optim=dict(type="adamw", lr=1e-3),
    train=dict(steps=5),
)
"""


@pytest.fixture
def recipe(tmp_path) -> str:
    path = tmp_path / "toy.py"
    path.write_text(RECIPE)
    return str(path)


@pytest.fixture
def calls(monkeypatch) -> list:
    """What the commands call, recorded instead of done."""
    recorded: list = []

    def module(name: str, **functions: object) -> None:
        fake = types.ModuleType(name)
        vars(fake).update(functions)
        monkeypatch.setitem(sys.modules, name, fake)
        room, _, leaf = name.rpartition(".")
        monkeypatch.setattr(importlib.import_module(room), leaf, fake, raising=False)

    def record(name: str, result: object = None):
        def function(*args: object, **kwargs: object) -> object:
            recorded.append((name, args, kwargs))
            return result

        return function

    module("sslcollapse.training.trainer", train=record("train"))
    module("sslcollapse.training.dry_run", dry_run=record("dry_run"))
    module("sslcollapse.training.evaluate", evaluate_run=record("evaluate"))
    module("sslcollapse.ablation", run_ablation=record("ablate", 0))
    return recorded


def test_train_hands_over_the_resolved_recipe_and_its_options(calls, recipe):
    assert cli.main(["train", recipe, "seed=3", "--out", "there", "train.steps=50", "--overwrite"]) == 0
    ((name, (resolved,), options),) = calls
    assert name == "train"
    assert (resolved["seed"], resolved["train"]["steps"]) == (3, 50)
    assert resolved["encoder"]["norm"] == "batch"
    command = options.pop("command")
    assert options.pop("hash_") == recipe_hash(resolved)
    assert options == dict(out=Path("there"), resume=False, overwrite=True, past_collapse=False)
    assert command[-1] == "--overwrite"


def test_runs_go_to_runs_by_default(calls, recipe):
    cli.main(["train", recipe, "--resume"])
    assert calls[0][2]["out"] == Path("runs")
    assert calls[0][2]["resume"] is True


def test_a_dry_run_trains_nothing(calls, recipe):
    assert cli.main(["train", recipe, "--dry-run", "seed=1"]) == 0
    assert [name for name, *_ in calls] == ["dry_run"]


def test_ablate_hands_over_grid_seeds_and_overrides(calls):
    argv = ["ablate", "a.py", "b.py", "train.steps=5", "--grid", "optim.lr=1,2", "--grid", "seed=1", "--seeds", "3"]
    argv += [
        "--jobs",
        "2",
        "encoder.norm=none",
        "--results",
        "r",
        "--slurm",
        "partition=gpu",
        "--baseline",
        "optim.lr=1",
    ]
    assert cli.main(argv) == 0
    assert calls == [
        (
            "ablate",
            (Path("a.py"),),
            dict(
                grid=["optim.lr=1,2", "seed=1"],
                seeds=3,
                baseline=["optim.lr=1"],
                others=[Path("b.py")],
                name=None,
                overrides=["train.steps=5", "encoder.norm=none"],
                jobs=2,
                threads=None,
                executor="local",
                slurm=["partition=gpu"],
                timeout=None,
                retry_failed=False,
                dry_run=False,
                tables=False,
                until_decided=None,
                out=Path("runs"),
                results=Path("r"),
            ),
        )
    ]


def test_an_executor_that_does_not_exist_lists_those_that_do(recipe, capsys):
    assert cli.main(["ablate", recipe, "--executor", "slum", "--grid", "seed=1", "--seeds", "1"]) == 2
    assert re.search(r"executor 'slum'.*local", capsys.readouterr().err)


def test_evaluate_hands_over_target_and_probes(calls):
    assert cli.main(["evaluate", "runs/a", "--probe", "public", "--probe", "random"]) == 0
    assert calls == [("evaluate", (Path("runs/a"), ["public", "random"]), {})]


def test_list_shows_every_component_aligned(capsys):
    assert cli.main(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if not line.startswith(" ")] == list(REGISTRIES)
    assert {line.split()[0] for line in lines if line.startswith(" ")} == {
        name for registry in REGISTRIES.values() for name in registry.names()
    }


def test_list_of_one_kind_shows_only_that_kind(capsys):
    assert cli.main(["list", "encoder"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == REGISTRIES["encoder"].names()
    assert len({len(line) - len(line.split(maxsplit=1)[1]) for line in lines}) == 1


def test_an_unknown_kind_is_suggested(capsys):
    assert cli.main(["list", "encoders"]) == 2
    assert "unknown kind 'encoders'; did you mean 'encoder'? (known: encoder, objective" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["encoder.hiden=3"], "error: encoder.hiden: unknown argument of 'gcn'; did you mean 'hidden'?\n"),
        (["train.steps=x"], "error: train.steps: expected an int, got 'x'\n"),
        (["seed"], "error: override 'seed': expected path=value, such as train.steps=500\n"),
    ],
)
def test_a_mistake_is_one_paragraph_and_exit_code_2(calls, recipe, capsys, words, message):
    assert cli.main(["train", recipe, *words]) == 2
    assert capsys.readouterr().err == message
    assert calls == []


def test_a_missing_recipe_is_one_paragraph(capsys, recipe):
    assert cli.main(["train", recipe.replace("toy", "toi")]) == 2
    assert capsys.readouterr().err.endswith("toi.py: no such file; did you mean 'toy.py'?\n")


def test_an_error_is_shown_in_one_line_by_the_main_process_and_later_by_others(calls, recipe, capsys, monkeypatch):
    def fail(*args: object, **kwargs: object) -> None:
        raise RunError("first\n  second")

    monkeypatch.setattr(sys.modules["sslcollapse.training.trainer"], "train", fail)
    assert cli.main(["train", recipe]) == 2
    assert capsys.readouterr().err == "error: first second\n"
    monkeypatch.setenv("RANK", "1")
    waited = []
    monkeypatch.setattr(texts.time, "sleep", waited.append)
    assert cli.main(["train", recipe]) == 2
    assert waited == [texts.RANK_0_SECONDS]
    assert capsys.readouterr().err == "rank 1: error: first second\n"


def test_debug_shows_the_traceback(calls, recipe):
    with pytest.raises(RecipeError):
        cli.main(["train", recipe, "--debug", "sed=3"])


def test_an_interrupt_ends_with_130(calls, recipe, capsys, monkeypatch):
    def interrupt(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(sys.modules["sslcollapse.training.trainer"], "train", interrupt)
    assert cli.main(["train", recipe]) == 130
    assert capsys.readouterr().err == "interrupted\n"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["train", "a.py", "--ovewrite"], "unrecognized arguments: --ovewrite"),
        (["list", "encoder", "gcn", "more"], "unrecognized arguments: more"),
        (["ablate", "a.py", "--seeds", "0"], "expected a whole number >= 1, got '0'"),
        (["trian"], "invalid choice: 'trian'"),
        ([], "required: COMMAND"),
    ],
)
def test_a_bad_command_line_shows_usage(argv, message, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(argv)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def python(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *words],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        check=False,
    )


def test_help_and_lists_import_nothing_heavy():
    code = (
        "import sys, sslcollapse.cli as cli\n"
        "cli.main(['list'])\n"
        "try: cli.main(['train', '--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'torch_geometric', 'sklearn', 'numpy', 'accelerate', 'rich'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    run = python("-c", code, PYTHONPATH=str(ROOT))
    assert run.returncode == 0, run.stderr


@pytest.mark.parametrize(
    "path",
    sorted(set((ROOT / "tools").glob("*.py")) - {ROOT / "tools/fuzz.py", ROOT / "tools/__init__.py"}),
    ids=lambda path: path.stem,
)
def test_every_tool_runs_from_a_clone_without_installation(path, tmp_path):
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    run = subprocess.run(
        [sys.executable, str(path), "--help"],
        capture_output=True,
        text=True,
        env=environment,
        cwd=tmp_path,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith((f"usage: sslcollapse {path.stem} ", f"usage: {path.name} "))


def test_the_package_exposes_names_lazily():
    code = "import sys, sslcollapse; sslcollapse.ENCODERS, sslcollapse.extend; sys.exit('torch' in sys.modules)"
    assert python("-c", code, PYTHONPATH=str(ROOT)).returncode == 0
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = sslcollapse.nothing
    assert {"extend", "train", "ENCODERS"} <= set(dir(sslcollapse))


@pytest.mark.parametrize("recipe", ["simclr_digits", "quickstart"])
def test_views_draws_a_picture_of_images_and_of_a_graph(recipe, tmp_path, capsys):
    sheet = tmp_path / "new" / "sheet.png"
    assert cli.main(["views", str(ROOT / f"recipes/{recipe}.py"), "--out", str(sheet), "--samples", "2"]) == 0
    assert sheet.read_bytes().startswith(b"\x89PNG")
    assert capsys.readouterr().out == f"{sheet}\n"


def test_a_contact_sheet_of_very_many_rows_is_refused(tmp_path, capsys):
    sheet = tmp_path / "sheet.png"
    many = ["views", str(ROOT / "recipes/simclr_digits.py"), "--out", str(sheet), "--samples", "100000"]
    assert cli.main(many) == 2
    assert "--samples: a sheet has at most 100 rows, got 100000" in capsys.readouterr().err
    assert not sheet.exists()
