"""Two real processes over gloo: gradients, the whole of a run, and what it leaves behind."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.multiprocessing as mp

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "domains/graph")]
import workers  # noqa: E402
from raw_files import write_ppi  # noqa: E402

from sslcollapse.training.checkpoint import load_latest_checkpoint  # noqa: E402
from sslcollapse.training.evaluate import evaluate_run  # noqa: E402

FULL_BATCH = """
recipe = dict(
    name="pair",
    domain=dict(
        type="graph",
        dataset=dict(type="csbm", nodes=60, features=12, train_per_class=3, validation_per_class=3),
        views=dict(),
    ),
    encoder=dict(type="gcn", hidden=[8, 6]),
    objective=dict(type="bgrl", predictor_hidden=7),
    regularizers=dict(werank=dict(type="werank", coefficient=1e-2)),
    optim=dict(type="adamw", lr=1e-3),
    train=dict(steps=4, log_every=1, checkpoint_every=2),
    monitor=dict(every=2),
    evaluate=dict(public=dict(type="logistic", split="random", repeats=2, fractions=[0.3, 0.3, 0.4])),
)
"""
BREAKS_ON_THE_SECOND = """
import os
from sslcollapse import ENCODERS, RecipeError
from sslcollapse.encoders.gcn import GCN


@ENCODERS.register("breaks_on_the_second")
class Breaks(GCN):
    def __init__(self, in_shape, *, hidden=(8, 6)):
        if os.environ["RANK"] == "1":
            raise RecipeError("encoder: a width that only this rank has")
        super().__init__(in_shape, hidden=hidden)


recipe["encoder"] = dict(type="breaks_on_the_second")
"""
BATCHES = """
from sslcollapse.domains.graph.datasets import PPI
from sslcollapse.domains.graph.stored import Sizes
from sslcollapse.core.registry import GRAPH_DATASETS


@GRAPH_DATASETS.register("tiny_ppi")
class TinyPPI(PPI):
    SIZES = Sizes(15, 30, 50, 121, (7, 3, 5))


recipe = dict(
    name="shards",
    domain=dict(type="graph", dataset=dict(type="tiny_ppi", pretrain="train"), views=dict(), batch_size=2),
    encoder=dict(type="sage", hidden=[8, 8], norm="graph"),
    objective=dict(type="bgrl", predictor_hidden=7),
    optim=dict(type="adamw", lr=1e-3),
    train=dict(steps=2, log_every=1, checkpoint_every=2),
    monitor=dict(every=0),
    evaluate={},
)
"""

ROOTS = """
recipe = dict(
    name="roots",
    domain=dict(
        type="graph",
        dataset=dict(type="csbm", nodes=200, features=12, train_per_class=5, validation_per_class=5),
        batching=dict(type="parts", parts=8, per_batch=2),
    ),
    encoder=dict(type="gcn", hidden=[8, 8], norm="layer"),
    objective=dict(type="bgrl", predictor_hidden=7),
    optim=dict(type="adamw", lr=1e-3),
    train=dict(steps=2, log_every=1),
    monitor=dict(every=0),
    evaluate=dict(public=dict(type="logistic", c_step=10), nearest=dict(type="knn", k=5)),
)
"""

IMAGES = """
recipe = dict(
    name="images",
    domain=dict(
        type="vision", dataset=dict(type="digits"), views=dict(strength=0.0), batch_size=64, feed="resident"
    ),
    encoder=dict(type="mlp", hidden=[16, 8], norm="none"),
    objective=dict(type="simclr", projector=[8, 6], norm="none"),
    regularizers=dict(
        werank=dict(type="werank", coefficient=1e-2),
        variance=dict(type="variance", on=["representation", "embedding", "layers.0"], coefficient=0.1),
    ),
    constraints=dict(
        first=dict(type="orthogonal", on=["layers.0"]),
        second=dict(type="retraction", on=["layers.1"]),
        head=dict(type="spectral_norm", on=["projector.*"]),
    ),
    optim=dict(type="sgd", lr=0.05),
    train=dict(steps=4, log_every=1, checkpoint_every=4, online_probe=True),
    monitor=dict(every=0),
    evaluate={},
)
"""


def launch(recipe: Path, *words: str, processes: int = 2, data: Path | None = None) -> subprocess.CompletedProcess:
    """``tools/train.py`` in real processes on the CPU."""
    torchrun = [sys.executable, "-W", "ignore", "-m", "torch.distributed.run"]
    command = [*torchrun, "--standalone", f"--nproc-per-node={processes}", str(ROOT / "tools/train.py"), str(recipe)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    if data is not None:
        environment["SSLCOLLAPSE_DATA"] = str(data)
    return subprocess.run(
        [*command, *words], capture_output=True, text=True, timeout=300, cwd=recipe.parent, env=environment
    )


def test_two_ranks_with_half_the_graphs_each_have_the_gradient_of_one_with_all_and_werank_no_world_size_factor(
    tmp_path,
):
    mp.spawn(workers.graph_gradient, (2, str(tmp_path / "store"), str(tmp_path)), nprocs=2)
    module = workers.graph_module()
    module(workers.graph_batch([0, 1, 2, 3]), 0)["loss"].backward()
    expected = {name: p.grad for name, p in module.named_parameters() if p.requires_grad}
    for rank in range(2):
        gradients = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert gradients.keys() == expected.keys()
        for name, gradient in gradients.items():
            torch.testing.assert_close(gradient, expected[name], rtol=1e-4, atol=1e-6)


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """A finished run of two processes on one graph."""
    folder = tmp_path_factory.mktemp("pair")
    recipe = folder / "pair.py"
    recipe.write_text(FULL_BATCH)
    process = launch(recipe)
    assert process.returncode == 0, process.stderr
    (run,) = folder.glob("runs/pair/*/seed0")
    return recipe, run, process


def test_one_graph_on_two_processes_says_that_both_train_on_it_with_views_of_their_own(pair):
    _, run, process = pair
    assert process.stdout.count("Full-batch graph on 2 ranks") == 1
    assert "every rank trains on the same graph with its own views" in (run / "train.log").read_text()
    assert json.loads((run / "environment.json").read_text())["world_size"] == 2


def test_a_run_of_two_processes_writes_every_file_once(pair):
    _, run, process = pair
    steps = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [record["step"] for record in steps if "loss" in record] == [1, 2, 3, 4]
    assert [record["step"] for record in steps if "rank/representation/effective_rank" in record] == [0, 2, 4]
    assert json.loads((run / "result.json").read_text())["status"] == "finished"
    assert process.stdout.count("effective rank / attainable") == 1


def test_two_processes_see_other_views_than_one(pair, tmp_path):
    recipe, run, _ = pair
    alone = launch(recipe, "--out", str(tmp_path), processes=1)
    assert alone.returncode == 0, alone.stderr
    (single,) = tmp_path.glob("pair/*/seed0")
    first, other = (json.loads((path / "result.json").read_text()) for path in (run, single))
    assert first["untrained"] == other["untrained"]
    assert first["baselines"]["AAX"] == other["baselines"]["AAX"]
    assert first["baselines"].keys() == other["baselines"].keys() == {"same_spectrum", "X", "AX", "AAX"}
    assert first["rank"] != other["rank"]


def test_a_checkpoint_of_two_processes_is_not_resumed_by_one(pair, tmp_path):
    recipe, run, _ = pair
    copy = tmp_path / run.relative_to(recipe.parent / "runs")
    copy.parent.mkdir(parents=True)
    subprocess.run(["cp", "-r", str(run), str(copy)], check=True)
    (copy / "result.json").unlink()
    process = launch(recipe, "--out", str(tmp_path), "--resume", processes=1)
    assert process.returncode != 0
    assert "was trained by 2 processes and this is 1" in process.stderr


def test_batches_of_graphs_are_sharded_over_two_processes_and_train(tmp_path):
    write_ppi(tmp_path)
    recipe = tmp_path / "shards.py"
    recipe.write_text(BATCHES)
    process = launch(recipe, data=tmp_path)
    assert process.returncode == 0, process.stderr
    assert "Full-batch" not in process.stdout
    (run,) = tmp_path.glob("runs/shards/*/seed0")
    assert json.loads((run / "result.json").read_text())["steps"] == 2


def test_probes_of_a_sampled_run_shared_by_two_processes_give_the_results_of_one(tmp_path):
    recipe = tmp_path / "roots.py"
    recipe.write_text(ROOTS)
    process = launch(recipe)
    assert process.returncode == 0, process.stderr
    (run,) = tmp_path.glob("runs/roots/*/seed0")
    result = json.loads((run / "result.json").read_text())
    assert result["warnings"] == []
    names = ("evaluation", "untrained", "baselines")
    found = evaluate_run(run)
    assert {name: found[name] for name in names} == {name: result[name] for name in names}


def test_an_error_that_only_the_second_process_has_is_shown_with_its_rank(tmp_path):
    recipe = tmp_path / "pair.py"
    recipe.write_text(FULL_BATCH + BREAKS_ON_THE_SECOND)
    process = launch(recipe)
    assert process.returncode != 0
    assert "a width that only this rank has" in process.stderr
    assert "rank 1: error: " in process.stderr or "rank 1 failed while building the networks" in process.stderr
    assert "fault of sslcollapse" not in process.stderr


def test_a_batch_that_two_processes_cannot_share_equally_is_refused_before_data_is_read(tmp_path):
    recipe = tmp_path / "shards.py"
    recipe.write_text(BATCHES)
    process = launch(recipe, "domain.batch_size=3", data=tmp_path)
    assert process.returncode != 0
    assert "3 graphs cannot be shared equally by 2 ranks" in process.stderr
    assert process.stderr.count("error: ") == 1
    assert not (tmp_path / "runs").exists()


def test_two_processes_that_share_images_log_the_losses_and_end_with_the_network_of_one_that_has_all(tmp_path):
    recipe = tmp_path / "images.py"
    recipe.write_text(IMAGES)
    states, losses = [], []
    for processes in (1, 2):
        process = launch(recipe, "--out", str(tmp_path / str(processes)), processes=processes)
        assert process.returncode == 0, process.stderr
        (run,) = (tmp_path / str(processes)).glob("images/*/seed0")
        states.append(load_latest_checkpoint(run / "checkpoints")["module"])
        losses.append([json.loads(line)["loss"] for line in (run / "metrics.jsonl").read_text().splitlines()])
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    one, two = states
    assert one.keys() == two.keys()
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-4, atol=1e-6)
