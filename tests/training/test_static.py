"""The step as one program on fixed tensors does what the trainer's step does; on a CPU it runs without capture."""

import json

import pytest
import torch
from accelerate import Accelerator
from tiny import random_graph, tiny_recipe

from sslcollapse.core.errors import NonFiniteLossError, RecipeError, RunError
from sslcollapse.core.types import Context
from sslcollapse.domains.graph.domain import FixedViews, GraphViews, augment
from sslcollapse.core.seeding import generator
from sslcollapse.recipe import identify
from sslcollapse.runs.directory import RunDirectory
from sslcollapse.training.build import build_domain, build_module
from sslcollapse.training.checkpoint import load_latest_checkpoint
from sslcollapse.training.hooks import Hook
from sslcollapse.training.journal import Row
from sslcollapse.training.setup import Setup
from sslcollapse.training.static import ANY_STEP, StaticStep, why_not
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
            torch.testing.assert_close(
                torch.as_tensor(found[name]), torch.as_tensor(value), rtol=bound, atol=bound, msg=lambda m, n=name: f"{n}: {m}"
            )
        else:
            assert found[name] == value, name


# On a CPU the learning rate of AdamW is a number of float64 in both. SGD multiplies by the rate and adds in two
# roundings where the rate is a tensor, and in one where it is a number.
OPTIMIZERS = {"adamw": (dict(type="adamw", lr=1e-2, warmup_steps=4), 0.0)}
OPTIMIZERS["sgd"] = (dict(type="sgd", lr=1e-1, nesterov=True, warmup_steps=4), 1e-5)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("penalties", PENALTIES)
@pytest.mark.parametrize("objective", OBJECTIVES)
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
