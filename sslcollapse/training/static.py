"""The optimiser step as one program on tensors that stay where they are, and as a CUDA graph where it can be one.

What differs from step to step is written into such tensors before: the draws of the views (by the domain), learning
rate, momentum of the target, coefficients. What it puts out is one vector, with the parts of the loss. Without capture
the same program does the same on any device, which is how its arithmetic is tested.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from sslcollapse.core.capture import Captured
from sslcollapse.core.distributed import Gather
from sslcollapse.core.errors import RecipeError, RunError, in_words
from sslcollapse.core.types import Batch
from sslcollapse.domains.base import FixedBatches
from sslcollapse.optim.base import OptimizerSpec, rated
from sslcollapse.rank.recorder import evaluating
from sslcollapse.training.journal import Journal, Row
from sslcollapse.training.module import SSLModule
from sslcollapse.training.setup import Setup

MOST_PROGRAMS = 8
"""Sets of penalties, one after the other, that steps are captured for; each takes a moment, and memory."""


class _AnyStep:
    """Stands for the number of the step where all steps are one program; reading it is an error."""


def _refuse(self: Any, *others: Any) -> Any:
    raise RunError("it reads the number of the step, which a captured step does not have; set train.capture='never'")


_READ = "bool int float index str repr format hash eq ne lt le gt ge neg pos abs round trunc floor ceil"
_COMBINED = "add sub mul truediv floordiv mod divmod pow"
for _name in (*_READ.split(), *_COMBINED.split(), *(f"r{word}" for word in _COMBINED.split())):
    setattr(_AnyStep, f"__{_name}__", _refuse)

ANY_STEP: Any = _AnyStep()


class StaticStep:
    """Forward, backward, optimiser step and target, the same program at every step of a run.

    Args:
        module: the networks, in train mode.
        forward: the module as it is called, in its precision.
        optimizer: torch's own, of a spec with ``rate_on_device``.
        lr_at: step, from 0 → learning rate.
        source: of batches.
        device: of all of them.
        refused: is told after how many steps it turned out that they cannot be captured, and why; the run goes on with
            the program as it is.

    Attributes:
        why_not: what was told; None before that is known, and where the step is captured.
    """

    def __init__(
        self,
        module: SSLModule,
        forward: Callable[..., Mapping[str, Tensor]],
        optimizer: torch.optim.Optimizer,
        lr_at: Callable[[int], float],
        source: FixedBatches,
        device: torch.device,
        refused: Callable[[int, str], None] = lambda done, why: None,
    ) -> None:
        self._module, self._forward, self._optimizer, self._lr_at = module, forward, optimizer, lr_at
        self._source, self._device, self._refused = source, device, refused
        self._graph: Captured | None = None
        self._places: tuple[tuple[str, str], ...] | None = None
        self._names: tuple[str, ...] = ()
        self._programs = self._next = 0
        self.why_not: str | None = None

    @classmethod
    def of(
        cls, setup: Setup, forward: Callable[..., Any], optimizer: Any, spec: OptimizerSpec, journal: Journal
    ) -> StaticStep | None:
        """That of a run whose steps are to be captured; None where they are not. The journal keeps why.

        Raises:
            RecipeError: ``train.capture="always"`` where something needs the host in each step.
        """
        asked = setup.recipe["train"]["capture"]
        why = ["train.capture is 'never'"] if asked == "never" else why_not(setup, spec)

        def record(reason: str | None) -> None:
            journal.state("capture", {"asked": asked, "captured": reason is None, "why_not": reason})

        def refused(done: int, reason: str) -> None:
            if asked == "always":
                raise RunError(f"train.capture: the step cannot be captured: {reason}; leave it out")
            record(reason)
            journal.warn(done, f"steps are not captured as a CUDA graph: {reason}")

        if not why:
            source = setup.domain.fixed_batches(setup.context)  # type: ignore[attr-defined]  # asked by why_not
            why = _readers(setup.module, source)
        if asked == "always" and why:
            raise RecipeError(f"train.capture: 'always' is not possible here: {'; '.join(why)}; leave it out")
        if why:
            record("; ".join(why))
            return None
        record(None)
        own = getattr(optimizer, "optimizer", optimizer)  # which Accelerate has wrapped

        def lr_at(step: int) -> float:
            return spec.lr_at(step, setup.steps)

        return cls(setup.module, forward, own, lr_at, source, setup.accelerator.device, refused)

    @property
    def replays(self) -> bool:
        """Whether the next step of the same penalties replays a graph."""
        return self._graph is not None and self._graph.replays

    def __call__(self, step: int) -> Row:
        """Do a step (from 0); its named parts of the loss."""
        self._next = step + 1
        self._source.draw(step)
        self._write(step)
        self._module.objective.step = ANY_STEP  # before, or a step by the trainer in between would look like a change
        output = self._program() if self._graph is None else self._graph()
        if self._graph is not None and self._graph.why_not is not None:
            self._give_up(self._graph.why_not)
        return Row(self._names, output.clone())  # the next replay writes to the same place

    def batch(self, step: int) -> Batch:
        """The batch of a step."""
        self._source.draw(step)
        return self._source.batch()

    def batches(self, start: int) -> Iterator[Batch]:
        """Batches for steps that something else does, beginning with ``start``: each is of the step that is next."""
        self._next = start

        def following() -> Iterator[Batch]:
            while True:
                self._next += 1
                yield self.batch(self._next - 1)

        return following()

    def remembering(self) -> dict[str, Any]:
        """What may remember something from step to step, by name."""
        optimizer = self._optimizer
        return {"": self._module, "optimizer": [*optimizer.param_groups, *optimizer.state.values()]}

    def close(self) -> None:
        """Give the memory of the graph back."""
        if self._graph is not None:
            self._graph.close()

    def _write(self, step: int) -> None:
        """Write the numbers of a step; another set of penalties is another program."""
        active = self._module.active(step)
        places = tuple((name, place) for name, values in active.items() for place in values)
        if places != self._places:
            self._begin(places)
        rate = self._lr_at(step)
        for group in self._optimizer.param_groups:
            group["lr"] = rate  # for checkpoints; what the program reads is written below
        numbers = [rate, self._module.target_weight(step), *(active[name][at] for name, at in places)]
        pinned = self._device.type == "cuda"  # of other memory the host might wait until it is read
        self._values.copy_(torch.tensor(numbers, dtype=torch.float64, pin_memory=pinned), non_blocking=pinned)

    def _begin(self, places: tuple[tuple[str, str], ...]) -> None:
        self.close()
        self._places, self._graph = places, None
        self._values = torch.zeros(2 + len(places), dtype=torch.float64, device=self._device)
        self._programs += 1
        if self._device.type != "cuda" or self.why_not is not None:
            return
        if self._programs > MOST_PROGRAMS:
            self._give_up(f"penalties are switched on and off more than {MOST_PROGRAMS} times")
        else:
            self._graph = Captured(self._program, self._device, self.remembering)

    def _program(self) -> Tensor:
        """What is the same at every step: the parts of the loss, in float32."""
        self._optimizer.zero_grad()  # gradients are made anew, in a capture in the memory of the graph
        values = self._values.float()
        rate, weight, *numbers = values.unbind()
        coefficients: dict[str, dict[str, Tensor]] = {name: {} for name in self._module.coefficients(0)}
        for (name, place), number in zip(self._places or (), numbers, strict=True):
            coefficients[name][place] = number
        parts = self._forward(self._source.batch(), ANY_STEP, coefficients)
        parts["loss"].backward()
        # A GPU's kernel reads float32; on a CPU the rate is a number of float64, as it is without this program.
        with rated(self._optimizer, self._values[0] if self._device.type == "cpu" else rate):
            self._optimizer.step()
        self._module.update_target(ANY_STEP, weight)
        self._optimizer.zero_grad()
        self._names = tuple(parts)
        return torch.stack([value.detach().float() for value in parts.values()])

    def _give_up(self, reason: str) -> None:
        self.why_not, self._graph = reason, None
        self._refused(self._next, reason)


def why_not(setup: Setup, spec: OptimizerSpec) -> list[str]:
    """What needs the host in each step of a run, by its place in the recipe; empty where nothing is known to."""
    recipe, device, ranks = setup.recipe, setup.accelerator.device, setup.accelerator.num_processes
    settings = recipe["train"]
    fixed = getattr(setup.domain, "fixed_batches", None)
    found = {
        f"it runs on a {device.type} device, and CUDA alone has graphs": device.type != "cuda",
        f"{ranks} processes average their gradients in each step": ranks > 1,
        f"domain: {recipe['domain']['type']!r} makes no batches from fixed tensors, as full-batch graphs are made": (
            fixed is None or not setup.domain.replicated
        ),
        f"optim: {recipe['optim']['type']!r} takes its learning rate from the host": not spec.rate_on_device,
        "train.precision: the scaler of 'fp16' asks whether gradients overflowed": settings["precision"] == "fp16",
        "train.accumulate: a captured step has one batch": settings["accumulate"] > 1,
        "train.compile: compiled networks decide on the host what they run": settings["compile"],
        "constraints: some of their decompositions are waited for": bool(recipe.get("constraints")),
    }
    return [reason for reason, holds in found.items() if holds]


@torch.no_grad()
def _readers(module: SSLModule, source: FixedBatches) -> list[str]:
    """Parts whose loss depends on the number of the step, found by trying them without one; the module stays as it is.

    What fails for another reason is among them, so that it fails in a step that is not captured, which says it better.
    """
    source.draw(0)
    batch, gather, found = source.batch(), Gather(enabled=False), []
    observed = list(module.observed())
    trials: list[tuple[str, Callable[[], Any]]] = []
    with evaluating(module):
        try:
            with module.outputs_of((kind for _, kind in observed), gather) as outputs:
                online = [module.branch(view) for view in batch.views]
            target = None if module.target is None else [module.target(view) for view in batch.views]
            objective = copy.deepcopy(module.objective)
            objective.step, objective.total_steps = ANY_STEP, module.total_steps
            trials.append(("objective", partial(objective, online, target, gather)))
            for name, kind in observed:
                features = module.features(kind, online, outputs)
                trials.append((f"regularizers.{name}", partial(module.regularizers[name], features, gather, ANY_STEP)))
        except Exception as error:
            return [f"a batch cannot be tried: {in_words(error)}"]
        for place, trial in trials:
            try:
                trial()
            except Exception as error:
                found.append(f"{place}: {in_words(error)}")
    return found
