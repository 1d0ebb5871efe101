"""Steps that are captured as a CUDA graph do what the same steps do that are not.

On a CPU nothing is captured, so that there the tests compare the trainer's step with the program, or with itself.
"""

import json
import random
import shutil
from itertools import pairwise

import pytest
import torch
from on_device import CPU, DEVICE, assert_near, on_gpu
from safetensors.torch import load_file
from tiny import tiny_recipe
from torch import nn

from sslcollapse.core.capture import WARM_UP, Captured
from sslcollapse.core.errors import RunError
from sslcollapse.core.registry import ENCODERS, OBJECTIVES, OPTIMIZERS
from sslcollapse.core.types import Context
from sslcollapse.encoders.gcn import GCN
from sslcollapse.objectives.base import Objective
from sslcollapse.recipe import identify
from sslcollapse.training.build import build_domain, build_module
from sslcollapse.training.static import StaticStep
from sslcollapse.training.trainer import train

pytestmark = on_gpu
needs_cuda = pytest.mark.skipif(DEVICE.type != "cuda", reason="a CPU has no graphs")

STEPS = 24
SAME = 1e-3
"""Relative distance after so many steps of what adds in another order each time."""
OBJECTIVES_HERE = {
    "bgrl": dict(type="bgrl", predictor_hidden=7),
    "grace": dict(type="simclr", projector=[9, 6]),
    "cca_ssg": dict(type="cca_ssg"),
    "vicreg": dict(type="vicreg", projector=[9, 6]),
}
SWITCHED = dict(type="schedule", base=1e-2, start=8, warmup=2, schedule="cosine", stop=20)
"""A coefficient that is 0, then changes at every step, then is 0 again."""


def recipe_of(name="captured", capture="auto", **fields):
    base = dict(
        regularizers=dict(werank=dict(type="werank", coefficient=SWITCHED)),
        optim=dict(type="adamw", lr=1e-3, warmup_steps=3),
        train=dict(steps=STEPS, log_every=1, checkpoint_every=12, keep_checkpoints=5) | dict(capture=capture),
        monitor=dict(every=10),
    )
    return tiny_recipe(name) | base | fields


def always():
    """What asks for capture where there is a GPU."""
    return "always" if DEVICE.type == "cuda" else "auto"


def learnt(run):
    """Metrics by step and name, and the weights of the encoder."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    values = {f"{key} after step {x['step']}": v for x in lines for key, v in x.items() if isinstance(v, float)}
    weights = {f"weight {name}": value for name, value in load_file(run / "encoder.safetensors").items()}
    return {**{key: torch.tensor(v, dtype=torch.float64) for key, v in values.items()}, **weights}


def capture_of(run):
    return json.loads((run / "environment.json").read_text())["capture"]


def static_of(device=DEVICE, optimizer=None, **fields):
    """A module and its step as one program."""
    recipe, _ = identify(recipe_of(**fields))
    domain = build_domain(recipe)
    domain.load()
    module = build_module(recipe, domain).to(device).train()
    spec = OPTIMIZERS.build(optimizer or recipe["optim"])
    source = domain.fixed_batches(Context(seed=0, device=device))
    return module, StaticStep(module, module, spec.build(module), lambda k: spec.lr_at(k, STEPS), source, device)


@pytest.mark.parametrize(("objective", "precision"), [*((name, "no") for name in OBJECTIVES_HERE), ("bgrl", "bf16")])
def test_a_captured_run_has_the_losses_measurements_and_weights_of_one_that_is_not(objective, precision, tmp_path):
    found = {}
    for capture in ("never", always()):
        recipe = recipe_of(capture=capture, objective=OBJECTIVES_HERE[objective])
        recipe["train"]["precision"] = precision
        run = train(recipe, out=tmp_path / capture)
        assert capture_of(run)["captured"] == (capture == "always")
        found[capture] = learnt(run)
    first = {key: value for key, value in found["never"].items() if key.endswith(" step 1")}
    assert first  # of the same draws and weights
    assert_near({key: found[always()][key] for key in first}, first, 1e-5 if precision == "no" else 1e-3)
    assert_near(found[always()], found["never"], SAME if precision == "no" else 5e-2)


@pytest.mark.parametrize("spec", [dict(type="adamw", lr=1e-3), dict(type="sgd", lr=1e-2, nesterov=True)])
def test_replayed_steps_have_the_losses_and_weights_of_the_same_program_on_the_cpu_given_the_same_views(spec):
    found = []
    for device in (CPU, DEVICE):
        module, static = static_of(device, spec)
        draws = torch.Generator().manual_seed(1)

        def draw(step, source=static._source, rng=draws):
            for values in (each for view in source._draws for each in view):
                values.copy_(torch.rand(values.shape, generator=rng))

        static._source.draw = draw
        rows = [{name: value.clone() for name, value in static(step).items()} for step in range(STEPS)]
        assert static.replays == (device.type == "cuda")
        values = {f"{name} {step}": value for step, row in enumerate(rows) for name, value in row.items()}
        found.append(values | dict(module.state_dict()))
    floats = [{key: value for key, value in each.items() if value.is_floating_point()} for each in found]
    assert_near(floats[1], floats[0], SAME)


def test_draws_rates_and_coefficients_change_from_replay_to_replay():
    module, static = static_of()
    masks, losses, moved = [], [], []
    for step in range(STEPS):
        before = module.encoder.convs[0].weight.detach().clone()
        losses.append(float(static(step)["loss"]))
        masks.append(static._source.batch().views[0].keep.clone())
        moved.append(float((module.encoder.convs[0].weight.detach() - before).abs().max()))
    assert moved[0] == 0  # the rate begins with 0; AdamW moves entries by about the rate
    assert all(0.3 < distance / static._lr_at(step) < 3 for step, distance in enumerate(moved) if step)
    assert len(set(losses)) == STEPS
    assert not any(torch.equal(a, b) for a, b in pairwise(masks))


def test_a_captured_run_that_is_resumed_ends_as_one_that_is_not(tmp_path):
    whole = train(recipe_of(capture=always()), out=tmp_path / "whole")
    again = tmp_path / "again"
    shutil.copytree(tmp_path / "whole", again)
    (run,) = again.glob("*/*/seed0")
    (run / "result.json").unlink()
    for path in (run / "checkpoints").glob(f"step{STEPS:08d}*"):
        path.unlink()
    resumed = train(recipe_of(capture=always()), out=again, resume=True)
    assert_near(learnt(resumed), learnt(whole), SAME)


def test_a_run_goes_from_captured_to_not_and_back_at_a_checkpoint(tmp_path):
    whole = learnt(train(recipe_of(capture="never"), out=tmp_path / "never"))
    (run,) = (tmp_path / "never").glob("*/*/seed0")
    (run / "result.json").unlink()
    for path in (run / "checkpoints").glob(f"step{STEPS:08d}*"):
        path.unlink()
    resumed = train(recipe_of(capture=always()), out=tmp_path / "never", resume=True)  # one hash
    assert capture_of(resumed)["asked"] == always()
    assert_near(learnt(resumed), whole, SAME)


def test_dropout_draws_in_replays_what_it_draws_without(tmp_path, own_components):
    class Dropped(GCN):
        def __init__(self, in_shape, *, hidden):
            super().__init__(in_shape, hidden=hidden)
            self.drop = nn.Dropout(0.3)

        def forward(self, view):
            return self.drop(super().forward(view))

    ENCODERS.register("dropped")(Dropped)
    found = {}
    for capture in ("never", always()):
        recipe = recipe_of(capture=capture, encoder=dict(type="dropped", hidden=[16, 8]))
        found[capture] = learnt(train(recipe, out=tmp_path / capture))
    assert_near(found[always()], found["never"], SAME)


@needs_cuda
def test_memory_does_not_grow_while_steps_are_replayed():
    _, static = static_of(regularizers=dict(werank=dict(type="werank", coefficient=1e-2)))
    for step in range(WARM_UP + 3):
        static(step)
    assert static.replays
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated(), torch.cuda.memory_reserved()
    for step in range(WARM_UP + 3, 300):
        static(step)
    torch.cuda.synchronize()
    assert (torch.cuda.memory_allocated(), torch.cuda.memory_reserved()) == before
    static.close()
    assert torch.cuda.memory_allocated() <= before[0]


@needs_cuda
def test_memory_does_not_grow_with_the_programs_of_a_process():
    matrix, held = torch.eye(64, device=DEVICE), []
    for _ in range(6):
        captured = Captured(lambda: matrix @ matrix, DEVICE)
        for _ in range(WARM_UP + 2):
            captured()
        assert captured.replays
        captured.close()
        del captured
        torch.cuda.empty_cache()
        held.append(torch.cuda.memory_allocated())
    assert held[-1] == held[0], "a workspace of cuBLAS for each program"


class Asks(Objective):
    """A loss that the host has to know."""

    couples_batch = False

    def forward(self, online, target, gather):
        loss = (online[0].z - online[1].z).square().mean()
        return {"asks": loss * (2.0 if loss.item() > 1.0 else 1.0)}


class Gives(Objective):
    """A loss with a number that the host draws anew each time."""

    couples_batch = False

    def forward(self, online, target, gather):
        weight = torch.rand(1).to(online[0].z.device, non_blocking=True)
        return {"gives": weight[0] * (online[0].z - online[1].z).square().mean()}


class Counts(Objective):
    """A loss with a weight that it counts itself."""

    couples_batch = False
    calls = 0

    def forward(self, online, target, gather):
        self.calls += 1
        return {"counts": 0.9**self.calls * (online[0].z - online[1].z).square().mean()}


class Replaces(Objective):
    """A loss with a running mean, each in a new tensor."""

    couples_batch = False

    def __init__(self):
        super().__init__()
        self.register_buffer("center", torch.zeros(()))

    def forward(self, online, target, gather):
        loss = (online[0].z - online[1].z).square().mean()
        self.center = 0.9 * self.center + 0.1 * loss.detach()
        return {"replaces": loss + (loss - self.center) ** 2}


class Mixes(Objective):
    """A loss with a number of the host as an operand."""

    couples_batch = False

    def forward(self, online, target, gather):
        weight = torch.rand((), generator=torch.Generator().manual_seed(int(1e6 * random.random())))
        return {"mixes": weight * (online[0].z - online[1].z).square().mean()}


class Breaks(Objective):
    """A loss that fails while it is captured, and not before."""

    couples_batch = False

    def forward(self, online, target, gather):
        if DEVICE.type == "cuda" and torch.cuda.is_current_stream_capturing():
            raise ValueError("not while it is captured")
        noise = torch.rand_like(online[0].z)  # of the stream that a failed capture must leave as it was
        return {"breaks": (online[0].z + 0.0 * noise - online[1].z).square().mean()}


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (Asks, "waits"),
        (Gives, "gives the device numbers"),
        (Mixes, "gives the device numbers"),
        (Counts, "a step changes objective.calls"),
        (Replaces, "a step changes objective.center"),
        (Breaks, "not while it is captured"),
    ],
)
def test_a_step_that_cannot_be_captured_goes_on_without_with_one_warning(kind, reason, tmp_path, own_components):
    name = kind.__name__.lower()
    OBJECTIVES.register(name)(kind)
    found = {}
    for capture in ("never", "auto"):
        run = train(recipe_of(capture=capture, objective=dict(type=name)), out=tmp_path / capture)
        found[capture] = learnt(run)
    assert capture_of(run)["captured"] is False
    if DEVICE.type == "cuda":
        assert reason in capture_of(run)["why_not"]
        log = " ".join((run / "train.log").read_text().split())
        assert log.count("steps are not captured as a CUDA graph") == 1
        with pytest.raises(RunError, match=reason):
            train(recipe_of(capture="always", objective=dict(type=name)), out=tmp_path / "always")
    if kind not in (Gives, Mixes):
        assert_near(found["auto"], found["never"], SAME)


@needs_cuda
def test_a_function_is_replayed_with_what_its_tensors_then_have_and_once_a_call():
    given, count = torch.zeros(4, device=DEVICE), torch.zeros((), device=DEVICE)

    def function():
        count.add_(1)
        return given * 2 + torch.ones(4, device=DEVICE)

    captured = Captured(function, DEVICE)
    for call in range(8):
        given.fill_(float(call))
        assert captured().tolist() == [2.0 * call + 1] * 4
        assert captured.replays == (call >= WARM_UP)
    assert int(count) == 8
    assert captured.why_not is None


@needs_cuda
def test_random_numbers_go_on_after_a_capture_that_failed():
    def function():
        drawn = torch.rand(3, device=DEVICE)
        if torch.cuda.is_current_stream_capturing():
            drawn.sum().item()
        return drawn

    captured = Captured(function, DEVICE)
    for _ in range(WARM_UP + 2):
        torch.cuda.manual_seed(7)
        drawn = captured()
        torch.cuda.manual_seed(7)
        assert torch.equal(drawn, torch.rand(3, device=DEVICE))
    assert captured.why_not is not None
    assert torch.cuda.current_stream() == torch.cuda.default_stream()
