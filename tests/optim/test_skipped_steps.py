"""A step that a gradient scaler skips, for an optimizer that looks at the overflow itself and for one that does not."""

from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from accelerate.optimizer import AcceleratedOptimizer
from tiny import tiny_recipe

from sslcollapse.core.types import Context
from sslcollapse.optim.base import stepped
from sslcollapse.recipe import resolve
from sslcollapse.runs.directory import RunDirectory
from sslcollapse.training.build import build_domain, build_module
from sslcollapse.training.setup import Setup
from sslcollapse.training.stopping import StopSignals
from sslcollapse.training.trainer import Trainer


def prepared(fused, scaler):
    Accelerator(cpu=True)
    weight = torch.nn.Parameter(torch.ones(3))
    return weight, AcceleratedOptimizer(torch.optim.Adam([weight], lr=0.1, fused=fused), scaler=scaler)


@pytest.mark.parametrize("fused", [True, False])
def test_a_step_counts_only_where_the_weights_moved(fused):
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0)
    weight, optimizer = prepared(fused, scaler)
    for gradient, moved in ((1.0, True), (torch.inf, False), (torch.nan, False), (1.0, True)):
        before = weight.detach().clone()
        scaler.scale(weight.sum() * gradient).backward()
        assert stepped(optimizer, scaler) is moved
        assert torch.equal(weight, before) is not moved
        optimizer.zero_grad()


def test_without_a_scaler_every_step_counts():
    weight, optimizer = prepared(fused=True, scaler=None)
    weight.grad = torch.ones(3)
    assert stepped(optimizer, None) is True


@pytest.mark.parametrize("optim", [{"type": "adamw", "lr": 0.1}, {"type": "sgd", "lr": 0.1}])
def test_the_target_stays_where_it_is_when_the_scaler_skips_a_step(optim, tmp_path):
    recipe = resolve(tiny_recipe("skipped", optim=optim, train=dict(steps=4), monitor=dict(every=0)))
    accelerator = Accelerator(cpu=True)
    accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=2.0)
    domain = build_domain(recipe)
    domain.load()
    module = build_module(recipe, domain)
    setup = Setup(recipe, RunDirectory.of(recipe, Path(tmp_path)), accelerator, domain, module)
    trainer = Trainer(setup, StopSignals())
    batches = domain.batches(0, Context())
    moved = []
    factors = iter([torch.inf, 1.0])
    next(module.encoder.parameters()).register_hook(lambda gradient: gradient * next(factors))
    for _ in range(2):
        before = [p.detach().clone() for p in module.target.parameters()]
        trainer._step(0, batches)
        moved.append(not all(map(torch.equal, before, module.target.parameters())))
    assert moved == [False, True]
