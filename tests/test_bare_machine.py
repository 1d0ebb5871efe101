"""Every command on a machine that has torch, Accelerate and scikit-learn, and lacks what only some things need."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from tiny import tiny_recipe

ROOT = Path(__file__).parents[1]
LACKING = ("rich", "lightly", "timm", "torch_geometric", "torchvision")
REFUSE = """
from importlib.machinery import PathFinder

find = PathFinder.find_spec
PathFinder.find_spec = lambda name, *rest: None if name.partition(".")[0] in {lacking!r} else find(name, *rest)
"""
COMMANDS = """
import contextlib, io, json, sys
from sslcollapse.cli import main

ended = []
for words in json.loads(sys.argv[1]):
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown), contextlib.redirect_stderr(shown):
        try:
            code = main(words)
        except SystemExit as end:
            code = end.code
    ended.append((code, shown.getvalue()))
print(json.dumps(ended))
"""
RECIPE = tiny_recipe(
    "bare",
    regularizers=dict(werank=dict(type="werank", coefficient=1e-2)),
    optim=dict(type="adamw", lr=1e-3),
    train=dict(steps=2, log_every=1),
    monitor=dict(every=1),
    evaluate=dict(public=dict(type="logistic", split="public")),
)
ABLATION = """
ablation = dict(name="bare", base="recipe.json", axes={"optim.lr": [1e-3, 1e-2]}, seeds=1)
"""


def bare(folder, *commands, lacking=LACKING):
    """Exit code and output of each command, in one process without some packages."""
    (folder / "sitecustomize.py").write_text(REFUSE.format(lacking=tuple(lacking)))
    paths = [str(folder), str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    process = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", COMMANDS, json.dumps([[str(word) for word in c] for c in commands])],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert process.returncode == 0, process.stdout + process.stderr
    return json.loads(process.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    """Name of command → exit code and output, of one process after another's."""
    folder = tmp_path_factory.mktemp("bare")
    (folder / "recipe.json").write_text(json.dumps(RECIPE))
    (folder / "ablation.py").write_text(ABLATION)
    from sslcollapse.recipe import resolve
    from sslcollapse.runs.directory import RunDirectory

    run = RunDirectory.of(resolve(RECIPE), Path("runs")).path
    commands = {
        "dry run": ("train", "recipe.json", "--dry-run"),
        "train": ("train", "recipe.json"),
        "evaluate": ("evaluate", run),
        "diagnose": ("diagnose", run, "--data", "recipe.json"),
        "ablate --dry-run": ("ablate", "ablation.py", "--dry-run"),
        "ablate": ("ablate", "ablation.py", "--executor", "debug", "--results", "results"),
        "report": ("report", run, "--out", "page"),
        "report of an ablation": ("report", "results/bare", "--out", "pages"),
        "list": ("list",),
        "list encoder timm": ("list", "encoder", "timm"),
        "list encoder gcn": ("list", "encoder", "gcn"),
        **{
            f"train {name}": ("train", "recipe.json", "--dry-run", *words)
            for name, words in {
                "timm": ["encoder=dict(type='timm', model='test_vit')"],
                "resnet": ["encoder=dict(type='resnet18')"],
                "pyg": ["encoder=dict(type='pyg', module='GAT', out_dim=4)"],
                "lightly": ["objective=dict(type='lightly', loss='NTXentLoss')"],
                "muon": ["optim=dict(type='timm', name='adamp', lr=0.1)"],
            }.items()
        },
        "train cora": ("train", ROOT / "recipes/bgrl_cora.py", f"data_root={folder}"),
        "diagnose timm": ("diagnose", "timm:resnet18"),
    }
    return dict(zip(commands, bare(folder, *commands.values()), strict=True))


@pytest.mark.parametrize(
    "command",
    [
        *("dry run", "train", "evaluate", "ablate --dry-run", "ablate", "report", "report of an ablation", "list"),
        "list encoder gcn",
    ],
)
def test_a_command_that_needs_none_of_them_runs_without_rich_and_the_others(shown, command):
    code, text = shown[command]
    assert code == 0, text


def test_a_diagnosis_runs_without_them_and_has_a_code_of_its_own(shown):
    code, text = shown["diagnose"]
    assert code in (0, 1), text
    assert re.search(r"convs\.0 +\d+ × \d+ ", text)
    assert "layers hold" in text


def test_without_rich_a_run_shows_its_tables_as_plain_lines_and_keeps_them_in_its_log(shown):
    _, text = shown["train"]
    lines = text.splitlines()
    start = lines.index("effective rank / attainable")
    title, rule, first = lines[start + 1 : start + 4]
    assert title.split() == ["layer", "weight", "output"]
    assert set(rule) == {"-", " "}
    assert re.fullmatch(r"convs\.0 +[\d.]+ / 12 +[\d.]+ / 12", first)
    assert [line for line in lines if re.fullmatch(r"trained +\d+\.\d+.*", line)]
    assert "\x1b" not in text


@pytest.mark.parametrize(
    ("command", "package"),
    [
        ("list encoder timm", "timm"),
        ("train timm", "timm"),
        ("train muon", "timm"),
        ("diagnose timm", "timm"),
        ("train resnet", "torchvision"),
        ("train pyg", "torch_geometric"),
        ("train cora", "torch_geometric"),
        ("train lightly", "lightly"),
    ],
)
def test_what_needs_a_package_that_is_not_there_says_in_one_sentence_what_to_install(shown, command, package):
    code, text = shown[command]
    assert code == 2, text
    assert text.count("error: ") == 1
    assert f"the package {package} is not installed; install it with: pip install {package}" in text


def test_a_page_without_matplotlib_or_markdown_says_what_to_install(tmp_path):
    (tmp_path / "recipe.json").write_text(json.dumps(RECIPE))
    (tmp_path / "ablation.py").write_text(ABLATION)
    ablate, run_page, page = bare(
        tmp_path,
        ("ablate", "ablation.py", "train.steps=1", "--executor", "debug", "--results", "results"),
        ("report", "runs/bare"),
        ("report", "results/bare"),
        lacking=("matplotlib", "markdown_it"),
    )
    assert ablate[0] == 0, ablate[1]
    assert run_page[0] == 2
    assert "the package matplotlib is not installed; install it with: pip install matplotlib" in run_page[1]
    assert page[0] == 2
    assert re.search(r"the package (matplotlib|markdown-it-py) is not installed; install it with: pip", page[1])
