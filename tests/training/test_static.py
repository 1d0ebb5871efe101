"""The step as one program on fixed tensors does what the trainer's step does; on a CPU it runs without capture."""

import json
import re

import pytest
import torch
from accelerate import Accelerator
from tiny import random_graph, tiny_recipe

from sslcollapse.core.capture import HostMemory
from sslcollapse.core.errors import NonFiniteLossError, RecipeError, RunError
from sslcollapse.core.seeding import generator
from sslcollapse.core.types import Context
from sslcollapse.domains.graph.batching import FixedViews
from sslcollapse.domains.graph.view import augment
from sslcollapse.domains.graph.views import GraphViews
from sslcollapse.recipe import identify
from sslcollapse.runs.directory import RunDirectory
from sslcollapse.training.build import build_domain, build_module
from sslcollapse.training.checkpoint import load_latest_checkpoint
from sslcollapse.training.hooks import Hook
from sslcollapse.training.journal import Row
from sslcollapse.training.setup import Setup
from sslcollapse.training.static import ANY_STEP, StaticStep, _readers
from sslcollapse.training.stopping import StopSignals
from sslcollapse.training.trainer import Trainer, train

CPU = torch.device("cpu")
STEPS = 30
OBJECTIVES = {
    "bgrl": dict(type="bgrl", predictor_hidden=7, target_buffers="copy"),
    "grace": dict(type="simclr", projector=[9, 6]),
    "cca_ssg": dict(type="cca_ssg"),
    "vicreg": dict(type="vicreg", projector=[9, 6]),
}
LATE = dict(type="schedule", base=1e-1, start=7, warmup=3, schedule="cosine", stop=25)
"""Of which the step knows three sets of penalties: none, all, and none again."""
PENALTIES = {
    "scheduled": dict(
        werank=dict(type="werank", coefficient=LATE),
        variance=dict(type="variance", coefficient=dict(type="schedule", base=1.0, schedule="linear"), on=["convs.0"]),
    ),
    "followed": dict(werank=dict(type="werank", coefficient=dict(type="rank_floor", every=4, start=1e-2))),
}


def setup_of(folder, **fields):
    fields = dict(optim=dict(type="adamw", lr=1e-2, warmup_steps=4), train=dict(steps=STEPS)) | fields
    recipe, hash_ = identify(tiny_recipe("static") | fields)
    domain = build_domain(recipe)
    domain.load()
    return Setup(
        recipe, RunDirectory.of(recipe, folder, hash_), Accelerator(cpu=True), domain, build_module(recipe, domain)
    )


def trainer_of(folder, static, **fields):
    """A trainer, whose steps are the program if ``static``."""
    setup = setup_of(folder, **fields)
    if not setup.run.path.exists():
        setup.run.create(overwrite=False)
    trainer = Trainer(setup, StopSignals())
    assert trainer.static is None
    if static:
        trainer.static = StaticStep(
            trainer.module,
            trainer.wrapped,
            trainer.optimizer.optimizer,
            trainer.lr_at,
            setup.domain.fixed_batches(setup.context),
            CPU,
        )
    return trainer


def metrics(trainer):
    return [json.loads(line) for line in (trainer.setup.run.path / "metrics.jsonl").read_text().splitlines()]


def state_of(trainer):
    return load_latest_checkpoint(trainer.setup.run.checkpoints)


def flat(state):
    """Name → tensor or number of a checkpoint."""
    if isinstance(state, dict):
        return {f"{key}.{name}": value for key, part in state.items() for name, value in flat(part).items()}
    if isinstance(state, (list, tuple)):
        return flat(dict(enumerate(state)))
    return {"": state}


def assert_same(found, wanted, bound=0.0):
    found, wanted = flat(found), flat(wanted)
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        if isinstance(value, (torch.Tensor, float)):
            pair = torch.as_tensor(found[name]), torch.as_tensor(value)
            torch.testing.assert_close(*pair, rtol=bound, atol=bound, msg=lambda m, n=name: f"{n}: {m}")
        else:
            assert found[name] == value, name


# On a CPU the learning rate of AdamW is a number of float64 in both. SGD multiplies by the rate and adds in two
# roundings where the rate is a tensor, and in one where it is a number.
OPTIMIZERS = {
    "adamw": (dict(type="adamw", lr=1e-2, warmup_steps=4), 0.0),
    "sgd": (dict(type="sgd", lr=1e-3, nesterov=True, warmup_steps=4), 1e-5),
}


RUNS = [(objective, penalties, "adamw") for objective in OBJECTIVES for penalties in PENALTIES]
RUNS += [("bgrl", "scheduled", "sgd"), ("vicreg", "followed", "sgd")]


@pytest.mark.parametrize(("objective", "penalties", "optimizer"), RUNS)
def test_a_run_of_the_program_has_the_losses_measurements_and_weights_of_the_trainer(
    objective, penalties, optimizer, tmp_path
):
    spec, bound = OPTIMIZERS[optimizer]
    fields = dict(
        objective=OBJECTIVES[objective],
        regularizers=PENALTIES[penalties],
        optim=spec,
        train=dict(steps=STEPS, log_every=3, checkpoint_every=STEPS),
        monitor=dict(every=10),
    )
    eager, static = (trainer_of(tmp_path / str(kind), kind, **fields) for kind in (False, True))
    for trainer in (eager, static):
        trainer.run(False, [])
    assert_same(metrics(static), metrics(eager), bound)
    assert_same(state_of(static), state_of(eager), bound)
    assert static.static._programs == (3 if penalties == "scheduled" else 1)  # one for each set of penalties


def remembered(trainer):
    """What the third step of the program changes on the host, after a step in between that the trainer has taken."""
    batches = trainer._rehearsed(0)
    trainer.wrapped.train()
    trainer.static(0)
    trainer._step(1, batches)
    trainer.hooks.append(Watch(trainer.module, {2}))
    trainer._step(2, batches)
    static = trainer.static
    program = static._program

    def watched():
        with HostMemory(static.remembering) as memory:
            found = program()
        watched.changed = memory.changed
        return found

    static._program = watched
    static(3)
    return watched.changed


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_step_of_the_program_leaves_everything_in_the_memory_where_it_was(objective, optimizer, tmp_path):
    penalties = dict(werank=dict(type="werank"), variance=dict(type="variance", on=["convs.0"]))
    fields = dict(objective=OBJECTIVES[objective], regularizers=penalties, optim=OPTIMIZERS[optimizer][0])
    assert remembered(trainer_of(tmp_path, True, **fields)) == []


def test_a_loss_that_puts_a_new_tensor_in_the_place_of_its_running_covariance_is_found(tmp_path):
    pytest.importorskip("lightly")
    trainer = trainer_of(tmp_path, True, objective=dict(type="lightly", loss="TiCoLoss", projector=[9, 6]))
    assert remembered(trainer) == ["a step changes objective.loss.C, which a replay does not"]


def test_an_optimizer_that_counts_its_steps_in_a_number_of_python_is_found(tmp_path):
    trainer = trainer_of(tmp_path, True)
    step = trainer.static._optimizer.step

    def counting(closure=None):
        step(closure)
        for state in trainer.static._optimizer.state.values():
            state["count"] = state.get("count", 0) + 1

    trainer.static._optimizer.step = counting
    assert "a step changes optimizer.1.count, which a replay does not" in remembered(trainer)


def test_a_run_of_the_program_that_is_resumed_ends_as_one_that_is_not(tmp_path):
    fields = dict(
        regularizers=PENALTIES["scheduled"],
        train=dict(steps=STEPS, log_every=4, checkpoint_every=9, keep_checkpoints=9),
        monitor=dict(every=10),
    )
    eager, static = (trainer_of(tmp_path / str(kind), kind, **fields) for kind in (False, True))
    for trainer in (eager, static):
        trainer.run(False, [])
    assert_same(state_of(static), state_of(eager))
    for path in static.setup.run.checkpoints.glob("step000000[123]*"):
        if "00000018" not in path.name:
            path.unlink()
    (static.setup.run.path / "result.json").unlink()
    resumed = trainer_of(tmp_path / "True", True, **fields)
    resumed.run(True, [])
    assert_same(state_of(resumed), state_of(eager))
    assert_same(metrics(resumed), metrics(eager))


class Watch(Hook):
    """Acts in some steps, and writes down the gradients of the first layer."""

    def __init__(self, module, steps):
        self.weight, self.steps, self.seen = next(module.encoder.parameters()), steps, {}

    def acts(self, step):
        return step in self.steps

    def after_backward(self, step):
        self.seen[step] = self.weight.grad.clone()


def test_a_step_in_which_a_hook_acts_is_taken_outside_of_the_program_on_its_own_batch(tmp_path):
    seen = []
    for kind in (False, True):
        trainer = trainer_of(tmp_path / str(kind), kind, train=dict(steps=12), monitor=dict(every=0))
        watch = Watch(trainer.module, {0, 5, 6, 11})
        trainer.hooks.append(watch)
        trainer.run(False, [])
        seen.append(watch.seen)
    assert list(seen[0]) == list(range(12))  # without a program hooks see every step
    assert list(seen[1]) == [0, 5, 6, 11]
    assert all(torch.equal(gradient, seen[0][step]) for step, gradient in seen[1].items())


def test_a_hook_that_says_nothing_of_itself_sees_every_step(tmp_path):
    trainer = trainer_of(tmp_path, True, train=dict(steps=3))
    steps = []

    class Plain(Hook):
        def after_step(self, step):
            steps.append(step)

    trainer.hooks.append(Plain())
    trainer.run(False, [])
    assert steps == [0, 1, 2]


@pytest.mark.parametrize("static", [False, True])
def test_a_loss_that_is_not_finite_is_refused_at_the_next_logged_step_and_names_step_and_part(static, tmp_path):
    fields = dict(
        objective=OBJECTIVES["vicreg"], optim=dict(type="sgd", lr=1e8), train=dict(steps=STEPS, log_every=5), monitor={}
    )
    trainer = trainer_of(tmp_path, static, **fields)
    with pytest.raises(NonFiniteLossError, match=r"step [2-5]: objective/(covariance|invariance) is (inf|nan)"):
        trainer.run(False, [])


def test_the_program_gives_its_losses_as_numbers_that_the_next_step_does_not_change(tmp_path):
    trainer = trainer_of(tmp_path, True)
    first = trainer.static(0)
    before = {name: value.clone() for name, value in first.items()}
    trainer.static(1)
    assert set(before) == {"loss", "objective/bgrl"}
    assert all(torch.equal(first[name], value) for name, value in before.items())
    assert not any(value.requires_grad for value in first.values())


def test_a_row_is_a_mapping_of_its_names():
    row = Row(["a", "b"], torch.tensor([1.0, 2.0]))
    assert dict(row) == {"a": 1.0, "b": 2.0}
    assert (len(row), "c" in row) == (2, False)
    with pytest.raises(KeyError, match="c"):
        row["c"]


@pytest.mark.parametrize("undirected", [False, True])
@pytest.mark.parametrize("odds", [((0.5, 0.4), (0.3, 0.2)), ((0.0, 0.4), (0.3, 0.0)), ((0.0, 0.0), (0.0, 0.0))])
def test_views_of_draws_in_fixed_tensors_are_those_of_the_batches(odds, undirected):
    base, views = random_graph(), GraphViews(*odds, undirected=undirected)
    context = Context(seed=3, rank=1, world_size=2)
    fixed = FixedViews(base, [0], views, context)
    for step in (7, 2):
        fixed.draw(step)
        for k, view in enumerate(fixed.batch().views):
            rng = generator(CPU, "view", 3, step, 1, k)
            wanted = augment(base, odds[0][k], odds[1][k], rng, undirected=undirected)
            assert torch.equal(view.edge_index, wanted.edge_index)
            assert torch.equal(view.x, wanted.x)


def test_the_fixed_batches_of_a_domain_of_several_graphs_are_its_batches(tmp_path):
    dataset = dict(type="csbm", nodes=60, features=12, train_per_class=2, validation_per_class=2)
    domain = setup_of(tmp_path, domain=dict(type="graph", dataset=dataset, views=dict(undirected=True))).domain
    context = Context(seed=5)
    fixed, batches = domain.fixed_batches(context), domain.batches(0, context)
    for step in range(3):
        fixed.draw(step)
        found, wanted = fixed.batch(), next(batches)
        assert torch.equal(found.index, wanted.index)
        assert (found.labels, found.replicated) == (wanted.labels, wanted.replicated)
        for view, other in zip(found.views, wanted.views, strict=True):
            assert torch.equal(view.edge_index, other.edge_index)
            assert torch.equal(view.x, other.x)


HOST = {
    "optim": (dict(optim=dict(type="timm", name="muon", lr=1e-3)), "optim: 'timm' takes its learning rate"),
    "fp16": (dict(train=dict(steps=2, precision="fp16")), "train.precision: the scaler of 'fp16'"),
    "accumulate": (dict(train=dict(steps=2, accumulate=2)), "train.accumulate"),
    "compile": (dict(train=dict(steps=2, compile=True)), "train.compile"),
    "constraints": (dict(constraints=dict(set=dict(type="orthogonal"))), "constraints: "),
    "domain": (
        dict(domain=dict(type="toy", batch_size=8), encoder=dict(type="mlp", hidden=[8])),
        "domain: 'toy' makes no batches from fixed tensors",
    ),
    "device": (dict(), "it runs on a cpu device, and CUDA alone has graphs"),
}


@pytest.mark.parametrize("part", HOST)
def test_a_recipe_whose_steps_need_the_host_is_refused_by_name_where_it_has_to_be_captured(part, tmp_path):
    fields, reason = HOST[part]
    fields = fields | dict(train=dict(steps=2) | fields.get("train", {}) | dict(capture="always"))
    with pytest.raises(RecipeError, match=f"train.capture: 'always' is not possible here: .*{re.escape(reason)}"):
        Trainer(setup_of(tmp_path, **fields), StopSignals())


def test_what_depends_on_the_number_of_the_step_is_found_without_a_step(tmp_path):
    setup = setup_of(tmp_path, regularizers=dict(sigreg=dict(type="sigreg"), werank=dict(type="werank")))
    before = {name: value.clone() for name, value in setup.module.state_dict().items()}
    found = _readers(setup.module, setup.domain.fixed_batches(setup.context))
    assert len(found) == 1
    assert found[0].startswith("regularizers.sigreg: ")
    assert "number of the step" in found[0]
    assert all(torch.equal(value, before[name]) for name, value in setup.module.state_dict().items())
    assert setup.module.training


READS = [int, bool, float, str, lambda s: s + 1, lambda s: 1 / s, lambda s: s == 3, lambda s: s < 3]


@pytest.mark.parametrize("read", READS)
def test_whoever_reads_the_number_of_a_step_of_the_program_is_told_that_there_is_none(read):
    with pytest.raises(RunError, match=r"number of the step.*train.capture='never'"):
        read(ANY_STEP)


def test_the_environment_says_whether_steps_are_captured_and_why_not(tmp_path):
    for asked, reason in (("auto", "it runs on a cpu device"), ("never", "train.capture is 'never'")):
        recipe = tiny_recipe(asked, optim=dict(type="adamw", lr=1e-2), train=dict(steps=2, capture=asked))
        run = train(recipe, out=tmp_path)
        found = json.loads((run / "environment.json").read_text())["capture"]
        assert (found["asked"], found["captured"]) == (asked, False)
        assert reason in found["why_not"]


def test_a_step_that_turns_out_not_to_be_capturable_is_in_the_environment_and_in_the_log(tmp_path):
    trainer = trainer_of(tmp_path, False)
    trainer.journal.begin(0, False, [])
    trainer.journal.state("capture", {"captured": False, "why_not": "the host waits"})
    environment = json.loads((trainer.setup.run.path / "environment.json").read_text())
    assert environment["capture"]["why_not"] == "the host waits"
    assert environment["streams"]


def test_capture_changes_no_hash():
    hashes = {
        identify(tiny_recipe("a", optim=dict(type="adamw", lr=1e-2), train=dict(steps=2) | train))[1]
        for train in (dict(), dict(capture="auto"), dict(capture="always"), dict(capture="never"))
    }
    assert len(hashes) == 1
