"""Exact save and resume: one file a checkpoint, atomic and checksummed."""

from __future__ import annotations

import hashlib
import io
import re
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sslcollapse.core.distributed import made_by_rank_0, meeting
from sslcollapse.core.errors import RunError, SSLCollapseError
from sslcollapse.core.files import write_atomic, writing
from sslcollapse.training.setup import Setup
from sslcollapse.training.stopping import RunAlarm


def save_checkpoint(
    folder: Path,
    step: int,
    state: dict[str, Any],
    keep: int,
    planned: Callable[[int], bool] = lambda step: True,
    spared: Collection[int] = (),
) -> Path:
    """Write ``state`` as the checkpoint of ``step`` completed steps and delete those that are not to be kept.

    Kept are the newest ``keep`` of the planned ones, and the newest of the others, which a clock or a signal asked for
    (more of them while there are fewer planned ones than ``keep``); and those of the steps ``spared``.

    The file is written under a temporary name and renamed, its SHA-256 beside it first; a crash at any moment
    leaves the previous checkpoint usable. Checkpoints of later steps are deleted too: a run that writes this one has
    passed them over as damaged.

    Raises:
        WriteError: it cannot be written; the previous ones are still there.
    """
    buffer = io.BytesIO()
    torch.save(state, buffer)
    data = buffer.getvalue()
    path = folder / f"step{step:08d}.pt"
    with writing(path):
        folder.mkdir(parents=True, exist_ok=True)
        for place, content in ((_checksum(path), hashlib.sha256(data).hexdigest().encode()), (path, data)):
            if place.is_dir() and not place.is_symlink():
                shutil.rmtree(place)
            write_atomic(place, content)
        found = dict(_checkpoints(folder))
        older = sorted(number for number in found if number <= step)
        wanted = [number for number in older if planned(number)]
        others = [number for number in older if not planned(number)]
        for number in found.keys() - {*wanted[-keep:], *others[-max(1, keep - len(wanted)) :], *spared}:
            for place in (found[number], _checksum(found[number])):
                if place.is_dir() and not place.is_symlink():
                    shutil.rmtree(place)
                else:
                    place.unlink(missing_ok=True)
    return path


def newest_step(folder: Path) -> int | None:
    """Of the newest checkpoint, sound or not; None where there is none."""
    return max((step for step, _ in _checkpoints(folder)), default=None)


def load_latest_checkpoint(
    folder: Path,
    *,
    use: Callable[[dict[str, Any]], None] | None = None,
    say: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """The newest checkpoint that is sound; tensors only, no code is unpickled.

    Args:
        folder: of checkpoints.
        use: is given the state; where it raises, the checkpoint counts as damaged and the one before is tried. An error
            meant for people is raised on.
        say: is told which newer ones are damaged, and why.

    Raises:
        RunError: when there is none, naming those that are damaged.
    """
    damaged = []
    for step, path in sorted(_checkpoints(folder), reverse=True):
        try:
            state = _read(path, step)
            if use is not None:
                use(state)
        except (SSLCollapseError, MemoryError, torch.OutOfMemoryError):
            raise
        except Exception as error:  # whatever a damaged file makes torch raise
            reason = " ".join(str(error).split()) or type(error).__name__
            damaged.append(f"{path.name}: {reason[:200]}")
            continue
        if damaged and say is not None:
            say(f"{folder}: passed over as damaged, for the one of step {step} ({'; '.join(damaged)})")
        return state
    if damaged:
        raise RunError(
            f"{folder}: every checkpoint is damaged ({'; '.join(damaged)}); start again with --overwrite, or "
            f"delete {folder.parent}"
        )
    raise RunError(f"{folder}: no checkpoint was written yet; `train` with --resume starts this run from its beginning")


def check_state(state: Mapping[str, Any], steps: int, module: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Refuse what is no state of this run, before anything is taken from it.

    Args:
        state: as a checkpoint has it.
        steps: of the whole run.
        module: what its tensors have to fit.
        optimizer: likewise.

    Raises:
        ValueError: something is absent, or of another kind, shape or type.
    """
    missing = [name for name in ("step", "world_size", "module", "optimizer", "scaler") if name not in state]
    if missing:
        raise ValueError(f"it has no {', '.join(missing)}")
    if not 1 <= state["step"] <= steps:
        raise ValueError(f"it is of step {state['step']}, of {steps}")
    if not _is_count(state["world_size"]):
        raise ValueError(f"its world size is {state['world_size']!r}")
    ours, theirs = module.state_dict(), state["module"]
    if not isinstance(theirs, Mapping) or theirs.keys() != ours.keys():
        raise ValueError("it has other parameters than this recipe's networks")
    for name, value in ours.items():
        if _kind(value) != _kind(theirs[name]):
            raise ValueError(f"{name} is {_kind(theirs[name])} in it and {_kind(value)} here")
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for index, entry in state["optimizer"]["state"].items():
        for name, value in entry.items():
            if isinstance(value, Tensor) and value.numel() not in _sizes(parameters[index]):
                raise ValueError(f"the optimizer's {name} of parameter {index} has shape {list(value.shape)}")


def _sizes(parameter: Tensor) -> set[int]:
    """How many numbers an optimizer may keep of a parameter: one, all, or a mean over some dimensions (Adafactor)."""
    sizes = {1}
    for size in parameter.shape:
        sizes |= {size * other for other in sizes}
    return sizes


def _read(path: Path, step: int) -> dict[str, Any]:
    checksum = _checksum(path)
    for place in (path, checksum):
        if not place.is_file():
            raise ValueError(f"{place.name} is no file")
    data = path.read_bytes()
    if checksum.read_bytes() != hashlib.sha256(data).hexdigest().encode():
        raise ValueError("its checksum is another one")
    state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    if not isinstance(state, dict):
        raise ValueError(f"it holds a {type(state).__name__}")
    if not _is_count(state.get("step")) or state["step"] != step:
        raise ValueError(f"the step in it is {state.get('step')!r}")
    return state


def _checkpoints(folder: Path) -> Iterator[tuple[int, Path]]:
    """Step and path of each, in no order."""
    for path in folder.glob("step*.pt"):
        if found := re.fullmatch(r"step(\d+)\.pt", path.name):
            yield int(found[1]), path


def _checksum(path: Path) -> Path:
    return path.with_suffix(".sha256")


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _kind(value: Any) -> str:
    return f"{value.dtype} {list(value.shape)}" if isinstance(value, Tensor) else type(value).__name__


class RunState:
    """The state of a run: networks, optimizer and gradient scaler. Draws and schedules follow from the step.

    Args:
        setup: of the run.
        optimizer: as Accelerate prepared it.
        alarm: says which checkpoint is the last healthy one, which is kept.
    """

    def __init__(self, setup: Setup, optimizer: Any, alarm: RunAlarm) -> None:
        self._setup, self._optimizer, self._alarm = setup, optimizer, alarm

    def is_planned(self, done: int) -> bool:
        """Whether the recipe asks for a checkpoint after so many steps, whatever a clock or a signal asks for."""
        every: int = self._setup.recipe["train"]["checkpoint_every"]
        return every > 0 and (done % every == 0 or done == self._setup.steps)

    @meeting("writing a checkpoint")
    def save(self, done: int) -> None:
        """Write the checkpoint of so many completed steps; on rank 0, for which the others wait."""
        setup = self._setup
        if not setup.main:
            return
        scaler = setup.accelerator.scaler
        state = {
            "step": done,
            "world_size": setup.accelerator.num_processes,
            "module": setup.module.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "scaler": None if scaler is None else scaler.state_dict(),
            **self._alarm.state(),
        }
        settings = setup.recipe["train"]
        # Without any planned ones all count alike.
        planned = self.is_planned if settings["checkpoint_every"] else lambda step: True
        spared = self._alarm.saved(done)
        save_checkpoint(setup.run.checkpoints, done, state, settings["keep_checkpoints"], planned, spared)

    def load(self) -> int:
        """Take the newest sound checkpoint on every rank; return its step, 0 where none was written yet.

        Rank 0 reads it, and the others have it from there: they may be on hosts that do not see its files, and what one
        has taken is what all have.

        Raises:
            RunError: all are damaged, of other networks or another number of processes.
        """
        setup, folder = self._setup, self._setup.run.checkpoints
        device, state = setup.accelerator.device, {"step": 0}

        def packed() -> Tensor:
            if newest_step(folder) is not None:
                state.update(load_latest_checkpoint(folder, use=self._restore, say=setup.reporter.print))
            buffer = io.BytesIO()
            torch.save(state if setup.accelerator.num_processes > 1 else None, buffer)
            return torch.frombuffer(bytearray(buffer.getvalue()), dtype=torch.uint8).to(device)

        told = made_by_rank_0("reading the checkpoint", packed, device, torch.uint8)
        if not setup.main:
            state = torch.load(io.BytesIO(told.cpu().numpy().tobytes()), map_location="cpu", weights_only=True)
            if state["step"]:
                self._restore(state)
        self._alarm.load(state, [step for step, _ in _checkpoints(folder) if step <= state["step"]])
        return int(state["step"])

    def _restore(self, state: Mapping[str, Any]) -> None:
        """Take everything from a checkpoint; raises whatever the first thing that is wrong with it makes it raise."""
        setup = self._setup
        check_state(state, setup.steps, setup.module, self._optimizer)
        world_size = setup.accelerator.num_processes
        if state["world_size"] != world_size:
            raise RunError(
                f"--resume: {setup.run.path} was trained by {state['world_size']} processes and this is "
                f"{world_size}; start {state['world_size']} processes, or start again with --overwrite"
            )
        setup.module.load_state_dict(state["module"])
        self._optimizer.load_state_dict(state["optimizer"])
        if state["scaler"] is not None and setup.accelerator.scaler is not None:
            setup.accelerator.scaler.load_state_dict(state["scaler"])
