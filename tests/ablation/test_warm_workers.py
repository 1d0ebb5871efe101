"""Processes that make run after run: the runs are those of a process each, and what goes wrong costs one of them."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from sslcollapse.ablation import run_ablation
from sslcollapse.ablation.executors import room, warm
from sslcollapse.ablation.executors.room import Memory, runs_that_fit
from sslcollapse.core import registry as core_registry
from sslcollapse.core.errors import RecipeError
from sslcollapse.core.kind import Registry
from sslcollapse.domains.graph.data import csr_tensor
from sslcollapse.domains.graph.synthetic import CSBM
from sslcollapse.recipe import resolve
from sslcollapse.training.build import Datasets, build_domain, size_of

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]

RECIPE = """
import os
from sslcollapse.core.registry import ENCODERS
from sslcollapse.encoders.mlp import MLP
WORKER = os.environ.get("SSLCOLLAPSE_PARENT") != str(os.getpid())  # else this file is read by who plans
{extra}
recipe = dict(
    name="{name}",
    domain=dict(
        type="graph",
        dataset=dict(type="csbm", nodes=120, features=12, train_per_class=5, validation_per_class=5),
        views=dict(),
    ),
    encoder=dict(type="gcn", hidden=[16, 8]),
    objective=dict(type="bgrl", predictor_hidden=7),
    optim=dict(type="adamw", lr=1e-3, warmup_steps=0),
    train=dict(steps=4, log_every=1),
    monitor=dict(every=0),
    evaluate=dict(public=dict(type="logistic", split="public")),
)
"""

IMAGES = """
recipe = dict(
    name="pictures",
    domain=dict(type="vision", dataset=dict(type="digits"), views=dict(preset="simclr", flip=0.0), batch_size=32),
    encoder=dict(type="resnet_narrow", width=4),
    objective=dict(type="simclr", projector=[8, 8]),
    optim=dict(type="sgd", lr=1e-2, warmup_steps=0),
    train=dict(steps=3, log_every=1, precision="bf16"),
    monitor=dict(every=0),
    evaluate={},
)
"""


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def written(place, name="first", extra="", text=RECIPE):
    path = place / f"{name}.py"
    path.write_text(text.replace("{extra}", extra).replace("{name}", name))
    return path


def ablate(place, recipe, grid, *, executor="warm", folder="warm", **more):
    options = {"seeds": 1, "jobs": 1, "threads": 1, **more}
    others = options.pop("others", ())
    return run_ablation(
        recipe,
        others=others,
        grid=grid,
        executor=executor,
        name="grid",
        out=place / folder / "runs",
        results=place / folder / "results",
        **options,
    )


def runs_of(place, folder="warm"):
    """Recipe, hash and seed → run directory."""
    found = sorted((place / folder / "runs").glob("*/*/seed*"))
    return {str(path.relative_to(place / folder / "runs")): path for path in found if path.is_dir()}


def failures(place, folder="warm"):
    path = place / folder / "results/grid/failures.json"
    return {} if not path.exists() else {k: v["error"] for k, v in json.loads(path.read_text()).items()}


def left(run):
    """What a run left, but for times and the place."""
    result = json.loads((run / "result.json").read_text())
    environment = json.loads((run / "environment.json").read_text())
    del result["seconds"], environment["time"]
    environment["command"] = environment["command"][:-1]
    metrics = (run / "metrics.jsonl").read_text()
    weights = {name: value.tolist() for name, value in load_file(run / "encoder.safetensors").items()}
    return {"result": result, "environment": environment, "metrics": metrics, "weights": weights}


def workers(place, folder="warm"):
    """Process ids that runs were made by, which the recipe has written down."""
    path = place / "pids"
    return [int(word) for word in path.read_text().split()] if path.exists() else []


WRITES_PID = """
if WORKER:
    with open("pids", "a") as file:
        file.write(f"{os.getpid()}\\n")
"""


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    """What a recipe of a test registers is forgotten after it."""
    for registry in (each for each in vars(core_registry).values() if isinstance(each, Registry)):
        for name in ("_targets", "_factories", "_places"):
            monkeypatch.setattr(registry, name, dict(getattr(registry, name)))


@pytest.fixture
def parent(monkeypatch):
    """Lets a recipe tell a worker from the process that plans."""
    monkeypatch.setenv("SSLCOLLAPSE_PARENT", str(os.getpid()))


SPOILS = """
import logging, random, sys, warnings
import numpy as np
import torch

sys.path.insert(0, os.path.dirname(__file__))

if WORKER:
    import helper  # which counts how often it was used

    assert helper.used == 0, "a module of the user has kept what an earlier run left in it"
    helper.used += 1
    assert torch.get_default_dtype() == torch.float32
    with open("draws", "a") as file:
        file.write(f"{torch.rand(1).item()} {np.random.rand()}\\n")
    assert "SPOILT" not in os.environ
    assert not logging.getLogger().handlers
    assert torch.get_num_threads() == 1
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.get_float32_matmul_precision() == "highest"
    assert not torch.backends.cudnn.benchmark
    assert not any("spoilt" in str(rule) for rule in warnings.filters)
    assert np.geterr()["divide"] == "warn"
    assert torch.is_grad_enabled()


@ENCODERS.register("mine")
class Mine(MLP):
    def __init__(self, in_shape, *, hidden=(8, 4)):
        super().__init__(in_shape, hidden=hidden)
        self.start = torch.rand(1)  # of the global stream

    def forward(self, view):
        if WORKER:
            np.seterr(divide="ignore")
            np.random.seed(5)
            random.seed(5)
            os.environ["SPOILT"] = "1"
            warnings.filterwarnings("error", message="spoilt")
            torch.backends.cudnn.benchmark = True
            if not any(type(each).__name__ == "FileHandler" for each in logging.getLogger().handlers):
                logging.getLogger().addHandler(logging.FileHandler("left.log"))
        return super().forward(view)
"""


def test_runs_of_a_warm_worker_are_bit_for_bit_those_of_a_process_each(place, parent):
    (place / "helper.py").write_text("used = 0\n")
    first = written(place, "first", SPOILS)
    grid = ["encoder=dict(type='mine'),dict(type='gcn',hidden=[8,4])", "train.precision=no,bf16"]
    for executor in ("fork", "warm"):
        assert ablate(place, first, grid, executor=executor, folder=executor) == 0
    cold, hot = runs_of(place, "fork"), runs_of(place, "warm")
    assert cold.keys() == hot.keys()
    assert len(cold) == 4
    draws = (place / "draws").read_text().splitlines()
    assert len(draws) == 8
    assert len(set(draws[4:])) == 1, "random states are those of an earlier run"
    for name in cold:
        assert left(hot[name]) == left(cold[name]), name
        log = (hot[name] / "train.log").read_text()
        assert "Traceback" not in log


def test_what_one_recipe_registers_another_has_not(place, parent):
    first = written(place, "first", "@ENCODERS.register('mine')\nclass Mine(MLP): pass\n" + WRITES_PID)
    second = written(place, "second", WRITES_PID, RECIPE.replace("lr=1e-3", "lr=2e-3"))
    assert ablate(place, first, ["encoder.type=mine,gcn"], others=[second]) == 1
    (error,) = failures(place).values()
    assert "unknown encoder 'mine'" in error
    assert sum((run / "result.json").exists() for run in runs_of(place).values()) == 3


def test_a_warm_worker_makes_graphs_and_images_in_turns_each_as_a_process_of_its_own(place, parent):
    graph, images = written(place, "graph"), written(place, "pictures", text=IMAGES)
    for executor in ("fork", "warm"):
        assert ablate(place, graph, ["optim.lr=0.01,0.1"], executor=executor, folder=executor, others=[images]) == 0
    cold, hot = runs_of(place, "fork"), runs_of(place, "warm")
    assert len(cold) == len(hot) == 4
    for name in cold:
        assert left(hot[name]) == left(cold[name]), name


def test_one_process_makes_all_runs_of_a_slot(place, parent):
    recipe = written(place, extra=WRITES_PID)
    assert ablate(place, recipe, ["optim.lr=0.001,0.01,0.1"]) == 0
    assert len(workers(place)) == 3
    assert len(set(workers(place))) == 1


CHANGES_DATA = """
import torch

@ENCODERS.register("changing")
class Changing(MLP):
    def forward(self, view):
        if not self.training:
            view.features._x.add_(0.1)  # the numbers of the dataset itself
        return super().forward(view)
"""


def test_a_run_that_changes_its_data_changes_those_of_no_other_run(place, parent):
    changing = written(place, "changing", CHANGES_DATA + WRITES_PID)
    for executor in ("fork", "warm"):
        assert ablate(place, changing, ["encoder.type=changing,gcn"], executor=executor, folder=executor) == 0
    cold, hot = runs_of(place, "fork"), runs_of(place, "warm")
    assert len(hot) == 2
    assert len(set(workers(place)[2:])) == 1
    for name in cold:
        assert left(hot[name]) == left(cold[name]), name


def test_data_are_read_once_for_runs_of_the_same_settings_and_again_for_others(place, monkeypatch):
    space = {}
    exec(written(place).read_text(), space)
    recipe = resolve(space["recipe"])
    datasets, read = Datasets(), []

    load = CSBM.load
    monkeypatch.setattr(CSBM, "load", lambda self: read.append(self) or load(self))
    views = {**recipe["domain"]["views"], "strength": 0.5}
    for domain in (recipe["domain"], {**recipe["domain"], "views": views}):
        made = build_domain({**recipe, "domain": domain})
        datasets.load(made)
        assert made.dataset.graphs[0].x.shape == (120, 12)
    assert len(read) == 1
    other = {**recipe["domain"], "dataset": {**recipe["domain"]["dataset"], "seed": 1}}
    datasets.load(build_domain({**recipe, "domain": other}))
    assert len(read) == 2


def test_sparse_features_are_kept_for_the_next_run_as_a_copy_of_their_own(place, monkeypatch):
    space = {}
    exec(written(place).read_text(), space)
    recipe = resolve(space["recipe"])
    load = CSBM.load

    def sparse(self):
        made = load(self)
        (graph,) = made.graphs
        return dataclasses.replace(made, graphs=(dataclasses.replace(graph, x=graph.x.to_sparse_csr()),))

    monkeypatch.setattr(CSBM, "load", sparse)
    datasets, first, second = Datasets(), build_domain(recipe), build_domain(recipe)
    datasets.load(first)
    one = first.dataset.graphs[0].x
    assert one.layout == torch.sparse_csr
    before = one.to_dense()
    one.values().zero_()
    datasets.load(second)
    assert torch.equal(second.dataset.graphs[0].x.to_dense(), before)


def test_data_of_a_file_that_has_changed_or_that_are_large_are_read_again(place):
    space = {}
    exec(IMAGES, space)
    recipe = resolve(space["recipe"])
    first, second = build_domain(recipe), build_domain(recipe)
    datasets = Datasets(most=10_000)
    datasets.load(first)
    datasets.load(second)
    assert first.dataset.images is not second.dataset.images
    assert size_of(first.loaded()) > 10_000
    assert datasets._kept == {}
    x = csr_tensor(torch.ones(3).long(), torch.arange(3), torch.ones(3), (3, 3))
    assert size_of({"a": [x, torch.zeros(2)]}) == 3 * 4 + 3 * 8 + 4 * 8 + 8


KILLS = """
import signal

@ENCODERS.register("killing")
class Killing(MLP):
    def __init__(self, in_shape, *, hidden=(8, 4), how="kill"):
        super().__init__(in_shape, hidden=hidden)
        if WORKER and how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if WORKER and how == "raise":
            raise KeyboardInterrupt("by hand")
        if WORKER and how == "exit":
            os._exit(7)
        if WORKER and how == "abort":
            os.abort()
"""


def test_a_worker_that_dies_costs_its_run_and_a_new_one_makes_the_next(place, parent):
    recipe = written(place, extra=KILLS + WRITES_PID)
    kinds = ["none", "kill", "raise", "exit", "abort"]
    words = ",".join(f"dict(type='killing',how='{how}')" for how in [*kinds, "last"])
    assert ablate(place, recipe, [f"encoder={words}"]) == 1
    errors = sorted(failures(place).values())
    assert len(errors) == 4
    assert any("killed by the system" in error for error in errors)
    assert any("KeyboardInterrupt: by hand" in error for error in errors)
    assert any("exit code 7" in error for error in errors)
    finished = [run for run in runs_of(place).values() if (run / "result.json").exists()]
    assert len(finished) == 2
    pids = workers(place)
    assert pids[0] == pids[1], "the run that kills is made by the worker of the run before"
    assert len(set(pids)) > 3


FAILS_ONCE = """
import torch
if WORKER:
    # A change inside a library, which nothing finds: the second run in this process fails by it.
    if hasattr(torch.nn, "spoilt"):
        raise ValueError("spoilt by an earlier run")
    torch.nn.spoilt = True
"""


def test_a_run_that_fails_by_what_an_earlier_one_left_is_made_in_a_new_worker(place, parent, capsys):
    recipe = written(place, extra=FAILS_ONCE + WRITES_PID)
    assert ablate(place, recipe, ["optim.lr=0.001,0.01"]) == 0
    assert failures(place) == {}
    assert capsys.readouterr().out.count("start  ") == 2
    assert len(set(workers(place))) == 2


def test_a_run_that_fails_by_itself_fails_once_in_a_new_worker_and_is_listed(place, parent):
    recipe = written(place, extra=WRITES_PID)
    assert ablate(place, recipe, ["domain.dataset.train_per_class=5,90"]) == 1
    (error,) = failures(place).values()
    assert "train_per_class" in error
    assert len(set(workers(place))) == 2


LEAKS = """
import torch
if WORKER:
    kept = torch.__dict__.setdefault("kept", [])
    kept.append(torch.ones(10 << 20) if kept else None)  # 40 MB from the second run on
"""


def test_a_worker_that_holds_ever_more_memory_is_replaced_after_the_run_in_hand(place, parent, monkeypatch, capsys):
    monkeypatch.setattr(room, "HOST_GROWTH", 30 << 20)
    recipe = written(place, extra=LEAKS + WRITES_PID)
    assert ablate(place, recipe, ["optim.lr=0.001,0.01,0.1,1.0"]) == 0
    pids = workers(place)
    assert pids[0] == pids[1] != pids[2] == pids[3]
    assert "a worker is replaced: it holds 4" in capsys.readouterr().out


HANGS = """
import time

@ENCODERS.register("slow")
class Slow(MLP):
    def __init__(self, in_shape, *, hidden=(8, 4), seconds=0.0):
        super().__init__(in_shape, hidden=hidden)
        self.seconds, self.calls = seconds, 0

    def forward(self, view):
        self.calls += 1
        end = time.monotonic() + (self.seconds if WORKER and self.calls > 6 else 0.0)
        while time.monotonic() < end:
            time.sleep(0.05)
        return super().forward(view)
"""


@pytest.mark.parametrize("executor", ["warm", "fork"])
def test_a_run_that_takes_longer_than_its_time_is_ended_and_the_next_is_made(place, parent, executor, monkeypatch):
    monkeypatch.setattr("sslcollapse.ablation.executors.slots.GRACE_SECONDS", 0.5)
    recipe = written(place, extra=HANGS)
    slow = "dict(type='slow',seconds=500.0)"
    assert ablate(place, recipe, ["encoder.type=slow,gcn"], executor=executor) == 0  # also starts the fork server
    grid = [f"encoder=dict(type='slow',hidden=[6,4]),{slow},dict(type='slow',hidden=[7,4])"]
    assert ablate(place, recipe, grid, executor=executor, timeout=0.2) == 1
    (error,) = failures(place).values()
    assert error == "took longer than the 0.2 minutes of --timeout; --retry-failed goes on with it"
    assert sum((run / "result.json").exists() for run in runs_of(place).values()) == 4


def test_a_stopped_worker_has_saved_its_run_which_has_not_failed_and_is_gone_on_with(place, parent, capsys):
    recipe = written(place, extra=HANGS + WRITES_PID)
    grid = ["encoder=dict(type='slow',seconds=0.1),dict(type='slow')"]
    overrides = ["train.steps=8"]
    codes = []
    ablation = threading.Thread(target=lambda: codes.append(ablate(place, recipe, grid, overrides=overrides)))
    ablation.start()
    run = wait_for(lambda: next(iter((place / "warm").glob("runs/*/*/seed0/metrics.jsonl")), None)).parent
    os.kill(workers(place)[0], signal.SIGTERM)
    ablation.join()
    assert codes == [1]
    assert "by a signal; the same command goes on with it" in capsys.readouterr().out
    assert failures(place) == {}
    assert len(set(workers(place))) == 2
    assert ablate(place, recipe, grid, overrides=overrides) == 0
    assert "resuming after step" in (run / "train.log").read_text()


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_no_warm_worker_outlives_its_ablation_and_its_run_is_gone_on_with(place, parent, sent):
    recipe = written(place, extra=HANGS + WRITES_PID)
    grid = "encoder=dict(type='slow'),dict(type='slow',seconds=0.1)"
    words = ["ablate", recipe, "--grid", grid, "--seeds", "1", "train.steps=8", "--executor", "warm", "--jobs", "1"]
    words += ["--threads", "1", "--name", "grid", "--out", place / "warm/runs", "--results", place / "warm/results"]
    ablation = subprocess.Popen(
        [sys.executable, "-c", "import os, sys; os.environ['SSLCOLLAPSE_PARENT'] = str(os.getpid()); "
         "from sslcollapse import cli; sys.exit(cli.main())", *map(str, words)],
        cwd=place,
        stdout=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    wait_for(lambda: len(workers(place)) == 2 and len(list((place / "warm").glob("runs/*/*/seed0/metrics.jsonl"))) == 2)
    ablation.send_signal(sent)
    assert ablation.wait(90) != 0
    wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in set(workers(place))))
    assert failures(place) == {}
    options = {"overrides": ["train.steps=8"]}
    assert ablate(place, recipe, [grid], **options) == 0
    if sent != signal.SIGKILL:
        logs = [(run / "train.log").read_text() for run in runs_of(place).values()]
        assert sum("resuming after step" in log for log in logs) == 1


def wait_for(condition, seconds=90.0):
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(0.02)
    return found


GIB = 1 << 30


def test_slots_are_as_many_as_the_memory_of_the_gpu_holds_runs_and_contexts():
    # 80 GiB, of which a context has 1 and a run 3: 0.9 × 79 − 3 = 68.1, and 17 more runs of 4.
    assert runs_that_fit(Memory(free=76 * GIB, total=80 * GIB, reserved=3 * GIB, peak=3 * GIB), 3 * GIB) == 18
    assert runs_that_fit(Memory(free=2 * GIB, total=80 * GIB, reserved=60 * GIB, peak=60 * GIB), 60 * GIB) == 1
    # Another program has 40 GiB: no run is taken to need that for its context.
    assert runs_that_fit(Memory(free=39 * GIB, total=80 * GIB, reserved=1 * GIB, peak=1 * GIB), 1 * GIB) == 15


def test_auto_begins_with_a_run_a_gpu_and_then_has_the_slots_that_fit(place, monkeypatch, capsys):
    monkeypatch.setattr(warm, "on_gpu", lambda: True)
    monkeypatch.setattr(warm, "visible_devices", lambda: ["0", "1"])
    monkeypatch.setattr(warm, "share_of_threads", lambda threads: 12)
    crew = warm.Workers(None, None, print)
    assert crew.slots() == 2
    crew._heard(warm.Answer(0, "", Memory(11 * GIB, 16 * GIB, 4 * GIB, 4 * GIB)))
    assert crew.slots() == 2 * 2
    crew._heard(warm.Answer(0, "", Memory(5 * GIB, 16 * GIB, 4 * GIB, 8 * GIB)))
    assert crew.slots() == 2 * 1, "a later run has needed more"
    assert "4 runs at a time: one has taken 4.29 GB of a GPU with 17.2 GB" in capsys.readouterr().out
    crew.close()


def test_when_slots_become_fewer_a_run_that_is_under_way_in_one_of_them_is_not_lost(place, parent, monkeypatch):
    memories = [Memory(11 * GIB, 16 * GIB, 4 * GIB, 4 * GIB), Memory(5 * GIB, 16 * GIB, 4 * GIB, 8 * GIB)]
    slots, heard = [], warm.Workers._heard

    def hears(crew, answer):  # what a GPU would say: two runs fit, then one
        heard(crew, answer._replace(memory=memories[min(len(slots), 1)]))
        slots.append(crew.slots())

    monkeypatch.setattr(warm, "on_gpu", lambda: True)
    monkeypatch.setattr(warm, "visible_devices", lambda: ["0"])
    monkeypatch.setattr(warm, "share_of_threads", lambda threads: 2)
    monkeypatch.setattr(warm.Workers, "_heard", hears)
    recipe = written(place, extra=HANGS)
    kinds = [f"dict(type='slow',hidden=[{k},4],seconds={0.5 if k == 7 else 0.0})" for k in (5, 6, 7, 8)]
    assert ablate(place, recipe, [f"encoder={','.join(kinds)}"], jobs="auto") == 0
    assert failures(place) == {}
    assert slots == [2, 1, 1, 1]
    assert sum((run / "result.json").exists() for run in runs_of(place).values()) == 4


def test_a_first_run_that_fails_does_not_say_how_many_fit(place, monkeypatch):
    monkeypatch.setattr(warm, "on_gpu", lambda: True)
    monkeypatch.setattr(warm, "visible_devices", lambda: ["0"])
    monkeypatch.setattr(warm, "share_of_threads", lambda threads: 12)
    crew = warm.Workers(None, None, print)
    crew._heard(warm.Answer(1, "its run ended with code 1", Memory(15 * GIB, 16 * GIB, 2 << 20, 2 << 20)))
    assert crew.slots() == 1
    crew._heard(warm.Answer(0, "", Memory(11 * GIB, 16 * GIB, 4 * GIB, 4 * GIB)))
    assert crew.slots() == 2
    crew.close()


def test_auto_on_a_cpu_is_a_run_a_core_and_makes_them(place):
    recipe = written(place)
    assert ablate(place, recipe, ["optim.lr=0.001,0.01"], jobs="auto", executor="local") == 0
    assert ablate(place, recipe, ["optim.lr=0.001,0.02"], jobs="auto") == 0
    assert len(runs_of(place)) == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"jobs": "many"}, "--jobs many: a number is needed, or auto"),
        ({"jobs": "auto", "executor": "slurm"}, "--jobs auto: a number is needed"),
        ({"jobs": "auto", "executor": "debug"}, "--jobs auto: a number is needed"),
        ({"timeout": 0}, "--timeout 0: minutes above 0"),
        ({"timeout": 3, "executor": "debug"}, "--timeout 3: minutes above 0 are needed, and --executor local"),
    ],
)
def test_a_wrong_number_of_jobs_or_minutes_is_refused(place, options, message):
    with pytest.raises(RecipeError, match=message):
        ablate(place, written(place), ["seed=1"], **options)
