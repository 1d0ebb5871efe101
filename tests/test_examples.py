"""Every example of the documents is run as it stands, in a process and a folder of its own."""

import json
import os
import re
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "docs/examples"


def printed(name: str, folder: Path, *arguments: str) -> str:
    path = os.pathsep.join([str(ROOT), *os.environ.get("PYTHONPATH", "").split(os.pathsep)])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    process = subprocess.run(
        [sys.executable, str(EXAMPLES / f"{name}.py"), *arguments],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=folder,
        env=environment,
    )
    assert process.returncode == 0, process.stderr
    return process.stdout


def test_the_timm_loop_learns_and_prints_ranks_after_every_epoch(tmp_path):
    text = printed("plain_timm", tmp_path)
    losses = [float(loss) for loss in re.findall(r"^epoch \d: loss (\S+)$", text, flags=re.MULTILINE)]
    assert len(losses) == 3
    assert losses[-1] < losses[0]
    rows = re.findall(r"^  (blocks\.[01]\.mlp\.fc[12]) +rank +([\d.]+), +(\d+) %$", text, flags=re.MULTILINE)
    assert len(rows) == 3 * 4
    assert all(1 <= float(rank) <= 48 and 0 < int(share) <= 100 for _, rank, share in rows)


def test_the_graph_networks_embeddings_collapse_without_werank_and_not_with_it(tmp_path):
    text = printed("pyg_node", tmp_path)
    without, with_werank = map(float, re.findall(r"embeddings +rank +([\d.]+) of 32", text))
    assert without < with_werank / 2
    assert len(re.findall(r"(?:first|second)\.lin +(?:weight|output) rank", text)) == 2 * 4


def test_the_lightning_module_logs_ranks_of_layers_and_of_its_metric(tmp_path):
    text = printed("lightning_simclr", tmp_path)
    logged = {name: float(value) for name, value in re.findall(r"^(effective_rank/\S+) +([\d.]+)$", text, re.MULTILINE)}
    layers = ["backbone.0", "backbone.2", "backbone.5", "projection_head.layers.0", "projection_head.layers.3"]
    expected = {f"effective_rank/{kind}/{layer}" for kind in ("weight", "output") for layer in layers}
    assert set(logged) == expected | {"effective_rank/representation"}
    assert all(1 <= value <= 32 for value in logged.values())
    assert "30 rows of history" in text


NAMES = {
    f"{measure}/{kind}/{layer}"
    for measure in ("effective_rank", "fraction")
    for kind in ("weight", "output")
    for layer in "02"
}


def logged(name: str, folder: Path) -> Path:
    """Where the example has left what it logged by one logger."""
    pytest.importorskip(name)
    text = printed("experiment_loggers", folder, name, "logged")
    assert len(re.findall(r"^(?:weight|output) +of layer [02]: rank", text, flags=re.MULTILINE)) == 4
    return folder / "logged"


def test_tensorboard_has_a_curve_a_layer_and_pictures_every_third_epoch(tmp_path):
    folder = logged("tensorboard", tmp_path)
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder))
    found.Reload()
    assert set(found.Tags()["scalars"]) == NAMES
    assert [event.step for event in found.Scalars("effective_rank/output/2")] == [0, 1, 2, 3, 4]
    assert {name: [event.step for event in found.Images(name)] for name in found.Tags()["images"]} == {
        "heatmap": [0, 3],
        "spectrum": [0, 3],
    }


def test_wandb_has_them_offline(tmp_path):
    folder = logged("wandb", tmp_path)
    (records,) = folder.glob("wandb/offline-run-*/run-*.wandb")
    kept = records.read_bytes()
    assert [name for name in NAMES if kept.count(name.encode()) < 5] == []  # one record an epoch
    assert len(list(folder.glob("wandb/offline-run-*/files/media/images/*.png"))) == 4


def test_trackio_has_them_in_its_data_base(tmp_path):
    folder = logged("trackio", tmp_path)
    (base,) = folder.glob("*.db")
    with sqlite3.connect(base) as connection:
        rows = connection.execute("SELECT step, metrics FROM metrics ORDER BY step").fetchall()
    steps = [step for step, metrics in rows if json.loads(metrics).keys() >= NAMES]
    assert steps == [0, 1, 2, 3, 4]
    assert [step for step, metrics in rows if "heatmap" in json.loads(metrics)] == [0, 3]


def test_mlflow_has_them_in_files(tmp_path):
    folder = logged("mlflow", tmp_path)
    (run,) = folder.glob("mlruns/0/*/metrics")
    assert {str(file.relative_to(run)) for file in run.rglob("*") if file.is_file()} == NAMES
    assert len((run / "effective_rank/output/2").read_text().splitlines()) == 5
    assert len(list(run.parent.glob("artifacts/images/*.png"))) == 4


def test_the_guide_names_every_example():
    guide = (ROOT / "docs/library.md").read_text()
    names = sorted(path.name for path in EXAMPLES.glob("*.py"))
    assert len(names) == 4
    assert [name for name in names if f"(examples/{name})" not in guide] == []
