"""What the documents say is run: commands, code blocks, figures."""

import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest
import torch
from PIL import Image

from sslcollapse.ablation.files import read_plan
from sslcollapse.ablation.records import Records
from sslcollapse.ablation.statistics.intervals import paired_difference
from sslcollapse.ablation.tables.columns import Column
from sslcollapse.cli import main
from sslcollapse.runs.export import load_encoder
from sslcollapse.runs.quantities import attainable

pytestmark = pytest.mark.usefixtures("own_components_of_a_test")

ROOT = Path(__file__).parents[1]
PROGRAMS = {
    "sslcollapse": ["-m", "sslcollapse.cli"],
    "accelerate": ["-m", "accelerate.commands.accelerate_cli"],
}


def commands(document: str) -> list[str]:
    """Every command line of a document that starts one of the two programs, installation apart."""
    text = (ROOT / document).read_text()
    lines = [line.removeprefix("    ").strip() for line in text.splitlines() if line.startswith(("    ", ".venv/bin/"))]
    lines = [line.removeprefix(".venv/bin/") for line in lines]
    return [line for line in lines if line.split(" ")[0] in PROGRAMS]


def run(command: str, *words: str, folder: Path = ROOT, process: bool = False) -> subprocess.CompletedProcess:
    """What a command says; in this process, which has already imported what takes most of a new one's time."""
    program, *arguments = shlex.split(command)
    if program != "sslcollapse" or process:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        line = [sys.executable, *PROGRAMS[program], *arguments, *words]
        return subprocess.run(line, capture_output=True, text=True, timeout=300, cwd=folder, env=environment)
    here, out, err = Path.cwd(), io.StringIO(), io.StringIO()
    os.chdir(folder)
    try:
        with redirect_stdout(out), redirect_stderr(err):
            code = main([*arguments, *words])
    finally:
        os.chdir(here)
    return subprocess.CompletedProcess(command, code, out.getvalue(), err.getvalue())


@pytest.mark.parametrize("command", commands("README.md"))
def test_a_command_of_the_readme_trains(command, tmp_path):
    if "cora" in command and not os.environ.get("SSLCOLLAPSE_DATA"):
        pytest.skip("set SSLCOLLAPSE_DATA to run it on Cora")
    shorter = ["train.steps=2", "optim.warmup_steps=0", "monitor.every=0", "--out", str(tmp_path)]
    shorter += ["encoder.hidden=[32, 16]", "evaluate.public.c_step=5"] if "cora" in command else []
    shorter += ["encoder.width=4", "monitor.samples=64"] if "simclr" in command else []
    first = command == commands("README.md")[0]  # as somebody types it, the others in this process
    process = run(command, *shorter, *(["evaluate.random=None"] if "cora" in command else []), process=first)
    assert process.returncode == 0, process.stderr
    assert list(tmp_path.glob("*/*/seed0/result.json"))


def test_the_readme_shows_both_runs_and_cora():
    shown = commands("README.md")
    assert any("regularizers.werank=None" in command for command in shown)
    assert any(command.startswith("accelerate launch tools/train.py recipes/bgrl_werank_cora.py") for command in shown)


@pytest.mark.parametrize("command", [c for c in commands("docs/quickstart.md") if c.startswith("sslcollapse train")])
def test_a_training_command_of_the_quickstart_resolves_and_a_mistake_is_answered_as_shown(command, tmp_path):
    words = [] if "--resume" in command or "--dry-run" in command else ["--dry-run"]
    for part in ("train", "test") if "/images/" in command else ():
        for name in ("cats", "dogs"):
            (tmp_path / "images" / part / name).mkdir(parents=True)
            Image.new("RGB", (64, 64)).save(tmp_path / "images" / part / name / "0.png")
    command = command.replace("--resume", "--dry-run").replace("/images/", f"{tmp_path}/images/")
    process = run(command, *words, "--out", str(tmp_path))
    assert process.returncode == 0, process.stderr
    assert "run directory" in process.stdout


def test_the_mistake_of_the_quickstart_is_answered_as_shown():
    text = (ROOT / "docs/quickstart.md").read_text()
    command, answer = re.search(r"\$ (sslcollapse .*)\n +(error: .*) …\n", text).groups()
    process = run(command)
    assert process.returncode == 2
    assert process.stderr.startswith(answer)


def blocks(document: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (ROOT / document).read_text(), flags=re.DOTALL)


def block_of(component: str) -> str:
    """The code of the guide to components that registers one of this name."""
    (found,) = [code for code in blocks("docs/adding-a-component.md") if f'.register("{component}")' in code]
    return found


def test_the_objective_of_the_guide_trains_from_its_own_recipe(tmp_path):
    shutil.copy(ROOT / "recipes/quickstart.py", tmp_path)
    (tmp_path / "my_objective.py").write_text(block_of("simsiam_like"))
    shorter = ["train.steps=2", "optim.warmup_steps=0", "evaluate={}", "monitor.every=0"]
    process = run("sslcollapse train my_objective.py", *shorter, folder=tmp_path)
    assert process.returncode == 0, process.stderr
    assert list(tmp_path.glob("runs/my_objective/*/seed0/result.json"))


def test_the_regularizer_of_the_guide_takes_every_form_of_coefficient(tmp_path):
    shutil.copy(ROOT / "recipes/quickstart.py", tmp_path)
    recipe = """
from pathlib import Path

from sslcollapse import extend

recipe = extend(Path(__file__).with_name("quickstart.py"), {})
"""
    (tmp_path / "mine.py").write_text(block_of("frobenius") + recipe)
    coefficient = (
        """regularizers.werank={"type": "frobenius", "coefficient": {"type": "depth", "first": 0.5, "last": 0.25}}"""
    )
    process = run("sslcollapse train mine.py", coefficient, "--dry-run", folder=tmp_path)
    assert process.returncode == 0, process.stderr
    rows = {line.split()[1]: line.split()[-2] for line in process.stdout.splitlines() if "convs." in line}
    assert rows == {"convs.0": "0.5", "convs.1": "0.25"}


def test_the_feature_regularizer_of_the_guide_is_a_part_of_the_loss(tmp_path):
    shutil.copy(ROOT / "recipes/quickstart.py", tmp_path)
    recipe = """
from pathlib import Path

from sslcollapse import extend

recipe = extend(Path(__file__).with_name("quickstart.py"), {})
"""
    (tmp_path / "mine.py").write_text(block_of("centre") + recipe)
    shorter = ["train.steps=1", "optim.warmup_steps=0", "evaluate={}", "monitor.every=0", "train.log_every=1"]
    process = run("sslcollapse train mine.py", """regularizers.c={"type": "centre"}""", *shorter, folder=tmp_path)
    assert process.returncode == 0, process.stderr
    (metrics,) = tmp_path.glob("runs/quickstart/*/seed0/metrics.jsonl")
    assert "regularizer/c/representation/weighted" in metrics.read_text()


def test_the_constraint_of_the_guide_holds_in_the_exported_encoder(tmp_path):
    shutil.copy(ROOT / "recipes/quickstart.py", tmp_path)
    recipe = """
from pathlib import Path

from sslcollapse import extend

recipe = extend(Path(__file__).with_name("quickstart.py"), dict(constraints=dict(rows=dict(type="unit_rows"))))
"""
    (tmp_path / "mine.py").write_text(block_of("unit_rows") + recipe)
    shorter = ["train.steps=2", "optim.warmup_steps=0", "evaluate={}", "monitor.every=0"]
    process = run("sslcollapse train mine.py", *shorter, folder=tmp_path)
    assert process.returncode == 0, process.stderr
    (folder,) = tmp_path.glob("runs/quickstart/*/seed0")
    encoder, _ = load_encoder(folder)
    for conv in encoder.convs:
        torch.testing.assert_close(conv.weight.norm(dim=1), torch.ones(len(conv.weight)))


def test_the_probe_of_the_guide_is_evaluated_in_a_run_and_again_after_its_file_is_imported(tmp_path):
    shutil.copy(ROOT / "recipes/quickstart.py", tmp_path)
    recipe = """
from pathlib import Path

from sslcollapse import extend

recipe = extend(Path(__file__).with_name("quickstart.py"), dict(evaluate=dict(means=dict(type="nearest_mean"))))
"""
    (tmp_path / "mine.py").write_text(block_of("nearest_mean") + recipe)
    shorter = ["train.steps=1", "optim.warmup_steps=0", "evaluate.public=None", "monitor.every=0"]
    process = run("sslcollapse train mine.py", *shorter, folder=tmp_path)
    assert process.returncode == 0, process.stderr
    (folder,) = tmp_path.glob("runs/quickstart/*/seed0")
    means = json.loads((folder / "result.json").read_text())["evaluation"]["means"]
    assert 0.5 < means["test_accuracy"]["mean"] < 1
    again = f"import mine; from sslcollapse.training.evaluate import evaluate_run; print(evaluate_run({str(folder)!r}))"
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    process = subprocess.run(
        [sys.executable, "-c", again], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path}
    )
    assert str(means["test_accuracy"]["mean"]) in process.stdout, process.stderr


def test_the_domain_of_the_guide_is_trained_and_evaluated_from_its_own_recipe(tmp_path):
    (tmp_path / "my_domain.py").write_text(block_of("my_sentences"))
    process = run("sslcollapse train my_domain.py", "train.steps=2", "evaluate.public.k=2", folder=tmp_path)
    assert process.returncode == 0, process.stderr
    (result,) = tmp_path.glob("runs/my_domain/*/seed0/result.json")
    assert json.loads(result.read_text())["rank"]["representation"]["n"] == 80


def test_the_data_set_of_the_guide_makes_a_kind_of_its_own():
    from sslcollapse import REGISTRIES

    exec(block_of("poems"), {"__name__": "guide"})
    assert REGISTRIES["sentence_dataset"].build({"type": "poems", "language": "de"}, None).language == "de"


def test_the_file_and_the_commands_of_the_guide_to_ablations_resolve(tmp_path):
    from sslcollapse.ablation.grid import plan
    from sslcollapse.cli import _parser

    (block,) = blocks("docs/ablations.md")
    path = tmp_path / "widths.py"
    path.write_text(block.replace("../", f"{ROOT}/recipes/"))
    assert len(plan(path, [], None, []).cells) == 8
    shown = commands("docs/ablations.md")
    assert len(shown) == 2
    for command in shown:
        options = _parser().parse_args(shlex.split(command)[1:])
        assert plan(ROOT / options.target, options.grid, options.seeds, options.overrides).cells


@pytest.mark.parametrize(
    "document",
    [
        "README.md",
        *(str(p.relative_to(ROOT)) for f in ("docs", "docs/results") for p in sorted((ROOT / f).glob("*.md"))),
    ],
)
def test_links_between_documents_lead_somewhere(document):
    here = ROOT / document
    targets = re.findall(r"\]\((?!https?:)([^)#]+)", here.read_text())
    assert [target for target in targets if not (here.parent / target).exists()] == []


def quickstart_record(seed: int, werank: bool) -> dict:
    lines = (ROOT / "docs/results/quickstart/runs.jsonl").read_text().splitlines()
    (record,) = [
        record
        for record in map(json.loads, lines)
        if record["seed"] == seed and (record["overrides"]["regularizers.werank"] is not None) is werank
    ]
    return record


@pytest.mark.parametrize(("column", "werank"), [(2, True), (3, False)])
def test_the_quickstarts_figures_are_those_of_the_recorded_run(column, werank):
    record = quickstart_record(0, werank)
    rows = [line.split("|") for line in (ROOT / "docs/quickstart.md").read_text().splitlines() if line.startswith("| ")]
    shown = {row[1].strip(): row[column].strip() for row in rows if len(row) == 5}
    rank, layers = record["rank"], record["rank"]["layers"]

    def cell(parts: dict, part: str) -> str:
        return f"{parts[part]['effective_rank']:.1f} / {attainable(parts, part)}"

    for key, name in (("untrained", "untrained encoder"), ("evaluation", "trained")):
        assert shown[f"accuracy, {name}"] == f"{100 * record[key]['public']['test_accuracy']['mean']:.2f}"
    for layer in ("convs.0", "convs.1"):
        expected = f"{cell(layers[layer], 'weight')}, {cell(layers[layer], 'output')}"
        assert shown[f"rank of {layer}: weight, output"] == expected
    for part in ("representation", "prediction"):
        assert shown[f"rank of the {part}"] == cell(rank, part)


@pytest.mark.parametrize(("dataset", "ablation"), [("Cora", "werank_cora"), ("CiteSeer", "werank_citeseer")])
def test_the_readmes_results_are_those_of_the_recorded_tables(dataset, ablation):
    page = (ROOT / f"docs/results/{ablation}/README.md").read_text()
    assert "20 of 20 runs" in page
    rows = [line for line in (ROOT / "README.md").read_text().splitlines() if line.startswith(f"| {dataset}, ")]
    figures = [figure for row in rows for figure in re.findall(r"\d+\.\d+ ± \d+\.\d+|[+−]\d+\.\d+ \[.*?\]", row)]
    assert len(figures) == 7
    assert [figure for figure in figures if figure.replace("−", "-") not in page] == []


def test_the_readmes_gains_under_weak_views_are_those_of_claim_1():
    claim = json.loads((ROOT / "docs/results/claim_01_weak_views/claim.json").read_text())
    text = " ".join((ROOT / "README.md").read_text().split())
    tests = [test for test in claim["tests"] if test["check"] == "accuracy rises"]
    assert [test["group"] for test in tests] == ["Cora", "CiteSeer"]
    for test in tests:
        assert (test["outcome"], test["n"]) == ("supported", 10)
        assert test["shown"] in text.replace(" points", "")


@pytest.mark.parametrize(
    ("graph", "shown"), [("CiteSeer", "5.32 points [+2.44, +8.20]"), ("Cora", "+0.26 [−1.42, +1.94]")]
)
def test_the_readmes_operating_point_is_that_of_the_records_of_claim_3(graph, shown):
    folder = ROOT / "docs/results/claim_03_view_strength"
    ablation, _ = read_plan(folder)
    records, column = Records(folder / "runs.jsonl"), Column("evaluation.public.test_accuracy", "", "")

    def of(strength, coefficient):
        chosen = {"domain.views.strength": strength, "regularizers.werank.coefficient": coefficient}
        return records.of([c for c in ablation.cells if c.base == graph and c.values == chosen], 5)

    found = paired_difference(*column.paired(of(1.0, 0.0), of(0.2, 0.1)), 1 - 0.05 / 2)
    numbers = [100 * number for number in (found.mean, *found.interval)]
    assert re.findall(r"[+−]?\d+\.\d\d", shown) == [
        f"{number:+.2f}".replace("-", "−").removeprefix("+" if k == 0 and "points" in shown else " ")
        for k, number in enumerate(numbers)
    ]
    assert found.n == 5
    assert shown in " ".join((ROOT / "README.md").read_text().split())


def test_the_readmes_figures_of_depth_are_those_of_claim_0():
    claim = json.loads((ROOT / "docs/results/claim_00_depth/claim.json").read_text())
    text = " ".join((ROOT / "README.md").read_text().split()).replace(" points", "").replace("−", "-")
    named = ("accuracy rises in deep encoders", "the best depth with WERank beats the best without")
    shown = [(test["shown"], test["n"], test["outcome"]) for test in claim["tests"] if test["check"] in named]
    assert [outcome for _, _, outcome in shown] == ["supported"] * 4 + ["inconclusive"] * 2
    assert [figure for figure, _, _ in shown if figure not in text] == []
    assert {n for _, n, _ in shown} == {10}


@pytest.mark.parametrize("graph", ["Cora", "CiteSeer"])
def test_the_readmes_accuracy_without_an_encoder_is_that_of_recorded_runs(graph):
    lines = (ROOT / "docs/results/claim_00_depth/runs.jsonl").read_text().splitlines()
    records = [record for record in map(json.loads, lines) if record["base"] == graph and "AAX" in record.get("baselines", {})]
    found = {record["baselines"]["AAX"]["public"]["test_accuracy"]["mean"] for record in records}
    assert len(records) > 10
    (row,) = [line for line in (ROOT / "README.md").read_text().splitlines() if line.startswith(f"| {graph}, accuracy")]
    assert {row.split("|")[2].strip()} == {f"{100 * value:.2f}" for value in found}


@pytest.mark.parametrize("name", ["digits", "objectives_citation"])
def test_the_figures_of_the_notes_tables_are_those_of_their_pages(name):
    text, page = ((ROOT / "docs/results" / path).read_text() for path in ("notes.md", f"{name}/README.md"))
    starts = {
        "digits": ("SimCLR", "BYOL", "SimSiam", "VICReg", "Barlow Twins"),
        "objectives_citation": ("GRACE,", "CCA-SSG,"),
    }
    rows = [line for line in text.splitlines() if line.startswith(tuple(f"| {start}" for start in starts[name]))]
    figures = [figure for row in rows for figure in re.findall(r"\d+\.\d+ ± \d+\.\d+|[+−]\d+\.\d+ \[.*?\]", row)]
    assert len(figures) >= 35
    assert [figure for figure in figures if figure.replace("−", "-") not in page] == []


def test_the_arguments_and_defaults_of_the_controllers_page_are_those_of_the_rank_floor():
    from sslcollapse import COEFFICIENTS

    rows = re.findall(r"^\| (`.*?) \| (.*?) \|", (ROOT / "docs/controller.md").read_text(), flags=re.MULTILINE)
    shown = {}
    for names, values in rows:
        shown |= dict(zip(re.findall(r"`(\w+)`", names), values.replace("`", "").split(", "), strict=True))
    expected = {name: p.default for name, p in COEFFICIENTS.parameters("rank_floor").items()}
    assert shown.keys() == expected.keys()
    for name, default in expected.items():
        assert json.loads(shown[name]) == default


@pytest.mark.parametrize("command", commands("docs/controller.md"))
def test_a_command_of_the_controllers_page_resolves(command, tmp_path):
    process = run(command, "--dry-run", "--out", str(tmp_path))
    assert process.returncode == 0, process.stderr
