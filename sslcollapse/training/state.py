"""All that a run goes on from: written as a checkpoint, and taken back on every rank."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from sslcollapse.core.distributed import meeting
from sslcollapse.core.errors import RunError
from sslcollapse.training.checkpoint import check_state, load_latest_checkpoint, newest_step, save_checkpoint
from sslcollapse.training.setup import Setup


class RunState:
    """The state of a run: networks, optimizer and gradient scaler. Draws and schedules follow from the step.

    Args:
        setup: of the run.
        optimizer: as Accelerate prepared it.
    """

    def __init__(self, setup: Setup, optimizer: Any) -> None:
        self._setup, self._optimizer = setup, optimizer

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
        }
        settings = setup.recipe["train"]
        # Without any planned ones all count alike.
        planned = self.is_planned if settings["checkpoint_every"] else lambda step: True
        save_checkpoint(setup.run.checkpoints, done, state, settings["keep_checkpoints"], planned)

    def load(self) -> int:
        """Take the newest sound checkpoint on every rank; return its step, 0 where none was written yet.

        Raises:
            RunError: all are damaged, of other networks or another number of processes, or ranks read different ones.
        """
        setup, accelerator = self._setup, self._setup.accelerator
        step = 0
        if newest_step(setup.run.checkpoints) is not None:
            state = load_latest_checkpoint(setup.run.checkpoints, use=self._restore, say=setup.reporter.print)
            step = state["step"]
        steps = accelerator.gather(torch.tensor([step], device=accelerator.device)).tolist()
        if len(set(steps)) > 1:
            raise RunError(
                f"{setup.run.checkpoints}: ranks read the checkpoints of different steps {steps}; start again"
            )
        return step

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
