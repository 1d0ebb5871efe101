"""Hooks of a training step: when they are called, and what is left of them when training ends."""

import pytest
import torch
from accelerate import Accelerator
from tiny import tiny_recipe
from torch.utils.checkpoint import checkpoint

from sslcollapse.core.types import Context
from sslcollapse.recipe import identify
from sslcollapse.runs.directory import RunDirectory
from sslcollapse.training.build import build_domain, build_module
from sslcollapse.training.hooks import Controllers, Hook, PenaltyGradients
from sslcollapse.training.setup import Setup
from sslcollapse.training.stopping import StopSignals
from sslcollapse.training.trainer import Trainer

FLOOR = dict(type="werank", coefficient=dict(type="rank_floor", every=1, start=1e-2, smoothing=0.0))


def trainer_of(folder, regularizer=FLOOR, overrides=(), **fields):
    fields = dict(optim=dict(type="adamw", lr=1e-2), train=dict(steps=4)) | fields
    recipe, hash_ = identify(tiny_recipe("hooks", regularizers=dict(werank=regularizer), **fields), overrides)
    domain = build_domain(recipe)
    domain.load()
    setup = Setup(
        recipe, RunDirectory.of(recipe, folder, hash_), Accelerator(cpu=True), domain, build_module(recipe, domain)
    )
    setup.run.create(overwrite=False)
    return Trainer(setup, StopSignals())


def batches_of(trainer):
    return trainer.setup.domain.batches(0, Context(0))


class Diary(Hook):
    """Writes down each moment, with the state that the network is in."""

    def __init__(self, module):
        self.module, self.lines = module, []
        self.start = next(module.encoder.parameters()).detach().clone()

    def note(self, moment, step):
        weight = next(self.module.encoder.parameters())
        self.lines.append((moment, step, weight.grad is not None, not torch.equal(weight, self.start)))
        self.start = weight.detach().clone()

    def before_forward(self, step):
        self.note("before", step)

    def after_backward(self, step):
        self.note("backward", step)

    def after_step(self, step):
        self.note("after", step)


@pytest.mark.parametrize("accumulate", [1, 3])
def test_a_step_has_three_moments_whose_gradients_and_weights_are_those_that_they_promise(accumulate, tmp_path):
    trainer = trainer_of(tmp_path, train=dict(steps=2, accumulate=accumulate))
    diary = Diary(trainer.module)
    trainer.hooks.append(diary)
    batches = batches_of(trainer)
    for step in range(2):
        trainer._step(step, batches)
    expected = [("before", False, False), ("backward", True, False), ("after", False, True)]
    assert diary.lines == [(moment, step, grad, moved) for step in range(2) for moment, grad, moved in expected]


def test_a_run_has_the_hooks_that_its_recipe_needs_and_no_other(tmp_path):
    fixed = dict(type="werank", coefficient=1e-2)
    for regularizer, monitor, expected in (
        (fixed, dict(gradients=False), []),
        (fixed, dict(), [PenaltyGradients]),
        (FLOOR, dict(), [PenaltyGradients, Controllers]),
    ):
        trainer = trainer_of(tmp_path / str(len(expected)), regularizer, monitor=monitor)
        assert [type(hook) for hook in trainer.hooks] == expected


def test_a_step_that_fails_leaves_no_hook_on_the_network(tmp_path, monkeypatch):
    trainer = trainer_of(tmp_path, monitor=dict(every=0))
    modules = list(trainer.module.modules())
    before = [len(module._forward_hooks) for module in modules]
    watched = []

    def fails(*branches):
        watched.append([len(module._forward_hooks) for module in modules])
        raise ZeroDivisionError

    monkeypatch.setattr(trainer.module.objective, "forward", fails)
    with pytest.raises(ZeroDivisionError):
        trainer._loop(0, batches_of(trainer))
    assert watched[0] != before, "the step was watched"
    assert [len(module._forward_hooks) for module in modules] == before


def test_a_forward_pass_that_is_repeated_in_the_backward_pass_is_read_once(tmp_path):
    readings = []
    for repeated in (False, True):
        trainer = trainer_of(tmp_path / str(repeated), overrides=["encoder.hidden=[300, 300]"])
        encoder = trainer.module.encoder
        if repeated:
            forward = encoder.forward
            encoder.forward = lambda view, forward=forward: checkpoint(forward, view, use_reentrant=False)
        trainer._step(0, batches_of(trainer))
        (controller,) = trainer.module.controllers.values()
        readings.append({name: (loop.rank, loop.attainable) for name, loop in controller.loops.items()})
    assert readings[0] == readings[1]
    assert readings[0]["convs.1"][1] == 2 * 120, "two views of 120 nodes"
