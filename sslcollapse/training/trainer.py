"""The training loop: one recipe in, one complete run directory out."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, nullcontext
from dataclasses import replace
from itertools import chain
from pathlib import Path
from signal import Signals
from typing import Any

from sslcollapse.core.distributed import meeting
from sslcollapse.core.errors import CollapsedError, PreemptedError, RunError
from sslcollapse.core.files import run_lock
from sslcollapse.core.memory import keep_freed_memory
from sslcollapse.core.registry import OPTIMIZERS
from sslcollapse.core.seeding import derive_seed, seed_default
from sslcollapse.core.texts import launched, say
from sslcollapse.core.types import Batch
from sslcollapse.optim.base import OptimizerSpec, stepped
from sslcollapse.probes.evaluate import build_probes, check_probes
from sslcollapse.recipe import identify
from sslcollapse.runs.directory import RunDirectory
from sslcollapse.runs.export import check_exportable
from sslcollapse.training.build import (
    Datasets,
    build_domain,
    build_module,
    check_batch,
    check_probe_views,
    checked_batches,
    prepare_networks,
)
from sslcollapse.training.checkpoint import RunState
from sslcollapse.training.finite import check_tensors
from sslcollapse.training.hooks import Controllers, Hook, PenaltyGradients
from sslcollapse.training.journal import Journal
from sslcollapse.training.measuring import RankMeter, TimedProbes
from sslcollapse.training.result import finish
from sslcollapse.training.setup import Setup, accelerated, check_alike, check_trackers
from sslcollapse.training.static import StaticStep
from sslcollapse.training.stopping import Pace, RunAlarm, Stopped, StopSignals, check_collapse


def train(
    recipe: Mapping[str, Any],
    *,
    out: Path = Path("runs"),
    resume: bool = False,
    overwrite: bool = False,
    command: list[str] | None = None,
    lock: bool = True,
    hash_: str | None = None,
    datasets: Datasets | None = None,
    past_collapse: bool = False,
) -> Path:
    """Train, measure and evaluate what a recipe describes; return the run directory.

    SIGTERM, SIGUSR1, SIGUSR2 and the first SIGINT let it write a checkpoint after the step in hand, and end it; what a
    program has set for one of them stays. All is put back at the end.

    Args:
        recipe: resolved or not.
        out: folder of all runs.
        resume: go on from the newest sound checkpoint, from the beginning where none was written yet; a finished run
            is left as it is.
        overwrite: start again where a run already is.
        command: what is kept in ``environment.json``.
        lock: False where the caller holds the run's lock (``run_lock``).
        hash_: given by a caller who has both from ``recipe.identify``, so that nothing is resolved or hashed again.
        datasets: data that earlier runs of this process have read; by default the run reads its own.
        past_collapse: resume a run that a collapse has stopped, under the settings that stopped it.

    Raises:
        RunError: the run may not start (finished, unfinished without ``resume``, not writable, in use, ...).
        WriteError: a file could not be written on the way; the run can be resumed.
        PreemptedError: a signal ended the run; it can be resumed. SIGINT raises KeyboardInterrupt.
        CollapsedError: a layer has collapsed, and ``monitor.on_collapse`` is ``"stop"``; or that has stopped the run
            which is to be resumed.
        MissingDataError, DataError: the dataset is absent or damaged.
        RecipeError: the recipe is wrong; no directory was made for it.
        NonFiniteLossError: a part of the loss, the networks or their outputs were not finite; the last good
            checkpoint is kept.
    """
    if hash_ is None:
        recipe, hash_ = identify(recipe)
    check_trackers(recipe["train"]["trackers"])
    if past_collapse and not resume:
        raise RunError("--past-collapse is for a run that a collapse has stopped; give it together with --resume")
    run = RunDirectory.of(recipe, out, hash_)
    if resume and not overwrite and launched() == 1 and run.has_finished(recipe):
        return run.path
    keep_freed_memory()
    try:
        return _train(
            recipe,
            run,
            out,
            resume=resume,
            overwrite=overwrite,
            command=command or [],
            lock=lock,
            datasets=datasets,
            past_collapse=past_collapse,
        )
    except Stopped as stopped:
        raise PreemptedError(str(stopped), stopped.number) from stopped


def _train(
    recipe: Mapping[str, Any],
    run: RunDirectory,
    out: Path,
    *,
    resume: bool,
    overwrite: bool,
    command: list[str],
    lock: bool,
    datasets: Datasets | None,
    past_collapse: bool,
) -> Path:
    with accelerated(recipe, run) as accelerator, StopSignals() as signals, ExitStack() as stack:
        with meeting("starting the run") as start:  # what one rank refuses is told to the others
            finished = False
            if accelerator.is_main_process:
                if lock:
                    with run.startable():
                        stack.enter_context(run_lock(run.path))
                finished = resume and not overwrite and run.has_finished(recipe)
                if not finished:
                    run.check_startable(recipe, out, resume=resume, overwrite=overwrite)
                    if resume:
                        check_collapse(run, recipe["monitor"], anyway=past_collapse)
            start.result = (finished, recipe) if accelerator.num_processes > 1 else (finished, {})
        check_alike([theirs for _, theirs in start.results])
        if start.results[0][0]:  # rank 0 says so: another host may not have its folder
            say(f"{run.path}: this run is finished; there is nothing to do")
            accelerator.end_training()
            return run.path
        with meeting("building the networks and reading the data"):
            domain = build_domain(recipe)
            domain.check(accelerator.num_processes)
            module = build_module(recipe, domain)
            check_exportable(module.plain_encoder(), recipe["encoder"], domain.in_shape)
            if datasets is None:
                domain.load()
            else:
                datasets.load(domain)
        setup = Setup(recipe, run, accelerator, domain, module)
        trainer = Trainer(setup, signals, past_collapse=past_collapse)  # the last that may refuse
        accelerator.wait_for_everyone()  # no rank has refused the recipe when the first one makes the directory
        with meeting("making the run directory"):
            if accelerator.is_main_process:
                run.create(overwrite=overwrite)
        return trainer.run(resume, command)


class Trainer:
    """The loop of one run.

    Step k, counted from 0, has learning rate, momentum, coefficients and random draws that depend on (seed, k,
    rank) only, so a resumed run continues as if it had not stopped. Logged steps count completed steps.

    Args:
        setup: the parts of the run.
        signals: what may stop it.
        past_collapse: whether low measurements from before a resumption count no more.

    Attributes:
        hooks: what watches a step, or acts after it.
        static: the step as one program, which is replayed on a GPU; None where each step is made anew.
    """

    def __init__(self, setup: Setup, signals: StopSignals, *, past_collapse: bool = False) -> None:
        recipe, accelerator, module = setup.recipe, setup.accelerator, setup.module
        self.setup, self.signals = setup, signals
        self.recipe, self.accelerator, self.module, self.steps = recipe, accelerator, module, setup.steps
        self.probes = build_probes(recipe["evaluate"])
        probe_set = setup.domain.probe_set()
        check_probes(self.probes, probe_set)
        self.optimizer_spec: OptimizerSpec = OPTIMIZERS.build(recipe["optim"])
        prepare_networks(recipe, module, setup.domain, accelerator.num_processes)
        self.wrapped, self.optimizer = accelerator.prepare(module, self.optimizer_spec.build(module))
        # Other ranks fit probes to the labels, and need no inputs.
        self.probe_set = probe_set.to(accelerator.device) if setup.main else replace(probe_set, views=())
        self.journal = Journal(setup, self.lr_at)
        self.alarm = RunAlarm(
            setup.run, recipe["monitor"], self.steps, self.journal.warn, main=setup.main, anew=past_collapse
        )
        self.state = RunState(setup, self.optimizer, self.alarm)
        self.ranks = RankMeter(setup, self.probe_set, self.journal, self.probes, self.alarm)
        self.static = StaticStep.of(setup, self.wrapped, self.optimizer, self.optimizer_spec, self.journal)
        self.gradients = PenaltyGradients(module, accelerator, self.optimizer, self.ranks.is_due)
        self.hooks: list[Hook] = []
        if module.regularizers and recipe["monitor"]["gradients"]:
            self.hooks.append(self.gradients)
        if module.controllers:
            self.hooks.append(Controllers(module, self.journal, self.alarm))
        if recipe["monitor"]["timed"]:
            self.hooks.append(TimedProbes(setup, self.probes, self.probe_set, self.journal))

    def run(self, resume: bool, command: list[str]) -> Path:
        """Train to the last step, then evaluate and write the result."""
        self.signals.hold()  # until the last step is saved
        start = self._resumed() if resume else 0
        self.pace = Pace(self.accelerator, self.signals, self.recipe["train"]["checkpoint_minutes"], start)
        batches = self._rehearsed(start)
        self.journal.begin(start, resume, command)
        began = time.perf_counter()
        self._loop(start, batches)
        del batches  # and with them worker processes
        seconds = {"training": time.perf_counter() - began, "steps_trained": self.steps - start}
        self.ranks.measure_last()  # before the checkpoint, which must not be written if outputs overflow
        self._save(self.steps)
        place = "after the last step, which is saved; --resume evaluates it"
        number = self.pace.caught()
        if number is not None:
            self._stop(number, place)
        self.signals.release(place)
        finish(self.setup, self.probes, self.probe_set, self.ranks, self.journal.last, seconds)
        self.accelerator.wait_for_everyone()
        self.accelerator.end_training()
        return self.setup.run.path

    def lr_at(self, step: int) -> float:
        """Learning rate of a step, from 0."""
        return self.optimizer_spec.lr_at(step, self.steps)

    def _loop(self, start: int, batches: Iterator[Batch]) -> None:
        """All steps from ``start`` on; between them losses are logged, ranks measured and checkpoints written."""
        context, journal = self.setup.context, self.journal
        self.wrapped.train()
        if start == 0 and self.recipe["monitor"]["every"]:
            self.ranks.measure(0, {})
        self.setup.reporter.start(start, self.steps)
        try:
            for step in range(start, self.steps):
                # Dropout and the like draw from here, so that a resumed run repeats them without saved states.
                seed_default(context.device, derive_seed("step", context.seed, step, context.rank))
                self._step(step, batches)

                done = step + 1
                if done % self.recipe["train"]["log_every"] == 0:
                    journal.flush(done)
                due, collapsed = self.pace.after(done), self.alarm.take()
                measured, planned, last = self.ranks.is_due(done), self.state.is_planned(done), done == self.steps
                saved = not last and (planned or due.save or due.stop is not None or collapsed is not None)
                if measured or planned or last:
                    journal.flush(done)
                elif saved:
                    journal.check()  # without a line in metrics.jsonl, which must not depend on the clock
                if measured or saved or last:
                    check_tensors(done, self.module, self.setup.run.checkpoints)
                if measured:
                    collapsed = self.ranks.measure(done, self.gradients.newest) or collapsed
                if saved or collapsed is not None:  # the last one: when it is measured
                    self._save(done)
                    if collapsed is not None:
                        self._end_collapsed(done, collapsed)
                    if due.stop is not None:
                        self._stop(due.stop, f"after step {done}, which is saved; --resume goes on from there")
        finally:
            self.setup.reporter.stop()
            for hook in self.hooks:
                hook.close()
            if self.static is not None:
                self.static.close()

    def _step(self, step: int, batches: Iterator[Batch]) -> None:
        """One optimiser step: forward, backward, step, target."""
        if self.static is not None and not any(hook.acts(step) for hook in self.hooks):
            self.journal.keep(step + 1, self.static(step))  # the same four, replayed
            return
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr_at(step)
        for hook in self.hooks:
            hook.before_forward(step)

        share = self.recipe["train"]["accumulate"]
        for position in range(share):
            # Gradients are averaged over ranks once a step, in the last of its backward passes.
            with nullcontext() if position == share - 1 else self.accelerator.no_sync(self.wrapped):
                parts = self.wrapped(next(batches), step)
                self.accelerator.backward(parts["loss"] / share)
        for hook in self.hooks:
            hook.after_backward(step)

        if stepped(self.optimizer, self.accelerator.scaler):
            self.module.constrained.after_step()
            self.module.update_target(step)
        self.optimizer.zero_grad()
        self.journal.keep(step + 1, parts)
        for hook in self.hooks:
            hook.after_step(step)

    def _rehearsed(self, start: int) -> Iterator[Batch]:
        """Batches from a step on, the first of which all that will ever read one has been tried on."""
        setup = self.setup
        batches: Iterator[Batch]
        if self.static is None:
            made = checked_batches(setup.domain, start * self.recipe["train"]["accumulate"], setup.context)
            first = next(made)
            batches = chain([first], made)
        else:
            first, batches = self.static.batch(start), self.static.batches(start)
        check_batch(self.module, first)
        with meeting("trying the probe set"):
            if setup.main:
                check_probe_views(self.module.encoder, self.probe_set, labelled=bool(self.probes))
        return batches

    def _resumed(self) -> int:
        """Completed steps of the checkpoint that was taken back; what was written after it is forgotten."""
        start = self.state.load()
        self.journal.rewind(start)
        return start

    def _save(self, done: int) -> None:
        self.state.save(done)
        self.pace.saved()

    def _stop(self, number: int, place: str) -> None:
        """End the run on every rank, because of a signal to one of them, after a step that is saved."""
        self._take_leave()
        self.signals.place = place
        if self.setup.main:
            self.setup.run.log(f"stopped by {Signals(number).name} {self.signals.place}\n")
        self.signals.stop(number)

    def _end_collapsed(self, done: int, why: str) -> None:
        """End the run on every rank, because of a collapse, after a step that is saved."""
        self._take_leave()
        message = f"stopped after step {done}, which is saved: {why}"
        if self.setup.main:
            self.setup.run.log(f"{message}\n")
        raise CollapsedError(message)

    def _take_leave(self) -> None:
        self.accelerator.wait_for_everyone()  # rank 0 may have the store through which the others hear that it is saved
        if self.recipe["train"]["trackers"]:
            self.accelerator.end_training()
