"""What a run writes down while it trains: what is run, losses, metrics and warnings."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from sslcollapse.core.distributed import meeting
from sslcollapse.runs.directory import device_name, environment
from sslcollapse.training.finite import check_losses
from sslcollapse.training.setup import Setup, chosen


class Row(Mapping[str, Tensor]):
    """Named scalars that stand in one vector, where they are looked up.

    Args:
        names: of its entries, each once.
        values: [names], without gradients.
    """

    def __init__(self, names: Sequence[str], values: Tensor) -> None:
        self._names, self._values = names, values

    def __getitem__(self, name: str) -> Tensor:
        try:
            return self._values[self._names.index(name)]
        except ValueError:
            raise KeyError(name) from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


class Journal:
    """The record of one run in ``metrics.jsonl``, in its trackers and on the screen; written by rank 0.

    Losses stay on their device until a step that is logged brings them to the host.

    Args:
        setup: of the run.
        lr_at: step (from 0) → learning rate.

    Attributes:
        last: the newest logged losses.
        rank: the newest effective rank of the representation, with the step that it is of.
    """

    def __init__(self, setup: Setup, lr_at: Callable[[int], float]) -> None:
        self._setup, self._lr_at = setup, lr_at
        self._pending: list[tuple[int, Mapping[str, Tensor]]] = []
        self._warned: set[str] = set()
        self._environment: dict[str, Any] = {}
        self._facts: dict[str, Any] = {}
        self.last: dict[str, float] = {}
        self.rank: tuple[int, float] | None = None

    def begin(self, start: int, resumed: bool, command: list[str]) -> None:
        """Write what is run and by what, and show it."""
        setup, recipe = self._setup, self._setup.recipe
        with meeting("starting the run"):
            if setup.main:
                self._describe(start, resumed, command)
        if recipe["train"]["trackers"]:
            hashed = {"hash": setup.run.hash, "seed": recipe["seed"]}
            setup.accelerator.init_trackers(recipe["name"], config=hashed)

    def state(self, name: str, fact: Any) -> None:
        """Keep in ``environment.json`` how the run is made; also what turns out after its beginning."""
        self._facts[name] = fact
        if self._environment:
            self._setup.run.write_json("environment.json", self._environment | self._facts)

    def log(self, done: int, record: Mapping[str, float]) -> None:
        """Write down numbers after so many completed steps."""
        if self._setup.main:
            self._setup.run.append_metrics({"step": done, **record})
        if self._setup.recipe["train"]["trackers"]:
            self._setup.accelerator.log(dict(record), step=done)

    def warn(self, done: int, line: str) -> None:
        """Show a warning once per subject (the text before its first colon and number)."""
        subject = line.partition(":")[0]
        if subject not in self._warned:
            self._warned.add(subject)
            self._setup.reporter.warn(f"step {done}: {line}")

    def keep(self, done: int, parts: Mapping[str, Tensor]) -> None:
        """Keep the parts of the loss of a step until they are flushed or checked; the host does not wait for them."""
        kept = parts if isinstance(parts, Row) else {name: value.detach() for name, value in parts.items()}
        self._pending.append((done, kept))

    def flush(self, done: int) -> None:
        """Bring the losses that are kept to the host, refuse non-finite ones, log the last, as a mean over ranks."""
        if not self._pending:
            return
        step, parts = self._pending[-1]
        self.check()
        stacked = torch.stack([value.float() for value in parts.values()])
        values = self._setup.accelerator.reduce(stacked, reduction="mean")
        record = dict(zip(parts, values.tolist(), strict=True))
        record["lr"] = self._lr_at(step - 1)
        self.last = record
        self.log(done, record)
        self._setup.reporter.update(done, record["loss"], self.rank)

    def check(self) -> None:
        """Refuse non-finite losses among those that are kept, and forget the others.

        Raises:
            NonFiniteLossError: names the step and the part.
        """
        if not self._pending:
            return
        losses = torch.stack([parts["loss"].float() for _, parts in self._pending])
        if not torch.isfinite(losses).all():
            for step, parts in self._pending:
                check_losses(step, parts, self._setup.run.checkpoints)
        self._pending.clear()

    def rewind(self, step: int) -> None:
        """Forget what was written after a step, before the run goes on from it."""
        run, main = self._setup.run, self._setup.main
        with meeting("reading what was logged"):
            kept, damaged = run.rewind(step or -1) if main else ([], [])
        if main:
            if damaged:
                lines = ", ".join(map(str, damaged))
                self._setup.reporter.print(f"{run.path / 'metrics.jsonl'}: damaged and left out: line {lines}")
            self.last = next((record for record in reversed(kept) if "loss" in record), {})

    def _describe(self, start: int, resumed: bool, command: list[str]) -> None:
        setup, recipe, show = self._setup, self._setup.recipe, self._setup.reporter.print
        ranks: int = setup.accelerator.num_processes
        device = device_name(setup.accelerator.device)
        setup.run.write_json("recipe.json", recipe)
        precision: str = setup.accelerator.mixed_precision
        self._environment = environment(ranks, device, command, chosen(recipe, precision))
        setup.run.write_json("environment.json", self._environment | self._facts)
        show(f"{recipe['name']}  seed {recipe['seed']}  →  {setup.run.path}")
        show(f"data: {setup.domain.describe()}; device: {device}")
        if recipe["train"]["precision"] == "auto":
            show(f"train.precision: 'auto' is {precision!r} on {device}")
        notice = setup.domain.notice(ranks)
        if notice:
            show(notice)
        if resumed:
            show(f"resuming after step {start}" if start else "no checkpoint yet: from the beginning")
