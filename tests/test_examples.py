"""Every example of the documents is run as it stands, in a process and a folder of its own."""

import os
import re
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


def test_tensorboard_has_a_curve_a_layer_and_the_picture(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    text = printed("tensorboard_logging", tmp_path, "curves")
    assert len(re.findall(r"^(?:weight|output) +of layer [02]: rank", text, flags=re.MULTILINE)) == 4
    curves = EventAccumulator(str(tmp_path / "curves"))
    curves.Reload()
    names = {f"effective_rank/{kind}/{layer}" for kind in ("weight", "output") for layer in "02"}
    assert set(curves.Tags()["scalars"]) == names | {"loss"}
    assert [event.step for event in curves.Scalars("effective_rank/output/2")] == [0, 1, 2, 3, 4]
    assert (tmp_path / "curves/ranks.png").exists()


def test_the_guide_names_every_example():
    guide = (ROOT / "docs/library.md").read_text()
    names = sorted(path.name for path in EXAMPLES.glob("*.py"))
    assert len(names) == 4
    assert [name for name in names if f"(examples/{name})" not in guide] == []
