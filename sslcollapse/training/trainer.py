"""The training loop: one recipe in, one complete run directory out."""

from __future__ import annotations

import json
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager, nullcontext
from dataclasses import replace
from itertools import chain
from pathlib import Path
from signal import Signals
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, is_initialized

from sslcollapse.core.distributed import meeting
from sslcollapse.core.errors import NonFiniteLossError, PreemptedError, RunError, SSLCollapseError
from sslcollapse.core.files import run_lock
from sslcollapse.core.memory import keep_freed_memory
from sslcollapse.core.registry import OPTIMIZERS
from sslcollapse.core.seeding import derive_seed, seed_default
from sslcollapse.core.texts import printable
from sslcollapse.core.types import MEASURED, Batch, Context
from sslcollapse.domains.base import Domain
from sslcollapse.optim.base import OptimizerSpec, stepped
from sslcollapse.probes import evaluate
from sslcollapse.rank.gradients import gradient_warnings, penalty_gradients
from sslcollapse.rank.measure import Measurement, low_rank_warnings, measure
from sslcollapse.rank.observation import Observation
from sslcollapse.rank.spectrum import NotFiniteError
from sslcollapse.rank.views import MAX_ROWS, measure_shared
from sslcollapse.recipe import recipe_hash, resolve
from sslcollapse.runs.directory import RunDirectory, device_name, environment
from sslcollapse.runs.export import check_exportable, save_encoder
from sslcollapse.runs.quantities import CUT_SHORT
from sslcollapse.runs.tables import accuracy_table, layer_table, rank_table
from sslcollapse.training.build import (
    build_domain,
    build_encoder,
    build_module,
    check_batch,
    check_probe_views,
    checked_batches,
    prepare_networks,
)
from sslcollapse.training.checkpoint import check_state, load_latest_checkpoint, newest_step, save_checkpoint
from sslcollapse.training.finite import check_losses, check_tensors, way_out
from sslcollapse.training.module import SSLModule
from sslcollapse.training.progress import PlainConsole, Reporter
from sslcollapse.training.stopping import Pace, Stopped, StopSignals
from sslcollapse.training.trackers import check_trackers

COLOURED = 100_000
"""Letters of JSON up to which a dry run colours it; rich takes half a minute for a few million."""


def train(
    recipe: Mapping[str, Any],
    *,
    out: Path = Path("runs"),
    resume: bool = False,
    overwrite: bool = False,
    command: list[str] | None = None,
    lock: bool = True,
) -> Path:
    """Train, measure and evaluate what a recipe describes; return the run directory.

    SIGTERM, SIGUSR1, SIGUSR2 and the first SIGINT let it write a checkpoint after the step in hand, and end it; what a
    program has set for one of them stays. All is put back at the end.

    Args:
        recipe: not necessarily resolved.
        out: folder of all runs.
        resume: go on from the newest sound checkpoint, from the beginning where none was written yet; a finished run
            is left as it is.
        overwrite: start again where a run already is.
        command: what is kept in ``environment.json``.
        lock: False where the caller holds the run's lock (``run_lock``).

    Raises:
        RunError: the run may not start (finished, unfinished without ``resume``, not writable, in use, ...).
        WriteError: a file could not be written on the way; the run can be resumed.
        PreemptedError: a signal ended the run; it can be resumed. SIGINT raises KeyboardInterrupt.
        MissingDataError, DataError: the dataset is absent or damaged.
        RecipeError: the recipe is wrong; no directory was made for it.
        NonFiniteLossError: a part of the loss, the networks or their outputs were not finite; the last good
            checkpoint is kept.
    """
    recipe = resolve(recipe)
    check_trackers(recipe["train"]["trackers"])
    run = RunDirectory.of(recipe, out)
    if resume and not overwrite and run.has_finished(recipe):
        return run.path
    keep_freed_memory()
    try:
        return _train(recipe, run, out, resume=resume, overwrite=overwrite, command=command or [], lock=lock)
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
) -> Path:
    with _accelerator(recipe, run) as accelerator, StopSignals() as signals, ExitStack() as stack:
        with meeting("starting the run"):  # what one rank refuses is told to the others
            if accelerator.is_main_process:
                if lock:
                    with run.startable():
                        stack.enter_context(run_lock(run.path))
                run.check_startable(recipe, out, resume=resume, overwrite=overwrite)
        with meeting("building the networks and reading the data"):
            domain = build_domain(recipe)
            domain.check(accelerator.num_processes)
            module = build_module(recipe, domain)
            check_exportable(module.encoder, recipe["encoder"], domain.in_shape)
            domain.load()
        trainer = Trainer(recipe, run, accelerator, domain, module, signals)  # the last that may refuse the recipe
        accelerator.wait_for_everyone()  # no rank has refused the recipe when the first one makes the directory
        with meeting("making the run directory"):
            if accelerator.is_main_process:
                run.create(overwrite=overwrite)
        return trainer.run(resume, command)


@contextmanager
def _accelerator(recipe: Mapping[str, Any], run: RunDirectory) -> Iterator[Accelerator]:
    """Accelerate for one run; its process-wide settings are let go after it, so that the next may have others."""
    ours, precision = not is_initialized(), recipe["train"]["precision"]
    if not ours and (theirs := AcceleratorState().mixed_precision) != precision:
        raise RunError(
            f"train.precision is {precision!r}, and this process has an Accelerator with mixed_precision={theirs!r}, "
            f"which holds for the whole process; give it {precision!r}, or train in another process"
        )
    try:
        yield Accelerator(
            cpu=not torch.cuda.is_available(),
            mixed_precision=precision,
            log_with=list(recipe["train"]["trackers"]) or None,
            project_dir=str(run.path),
        )
    finally:
        if ours:
            AcceleratorState._reset_state()


def dry_run(recipe: Mapping[str, Any]) -> None:
    """Print the resolved recipe, the layer table, parameter counts and the data that will be read."""
    check_trackers(recipe["train"]["trackers"])
    console = PlainConsole(soft_wrap=True)
    text = json.dumps(recipe, indent=2, ensure_ascii=False)
    if console.is_terminal and len(text) < COLOURED:
        console.print_json(text)
    else:
        print(printable(text, keep="\n"))
    domain = build_domain(recipe)
    module = build_module(recipe, domain)
    check_exportable(module.encoder, recipe["encoder"], domain.in_shape)
    console.print(layer_table(module))
    counts = {
        name: sum(p.numel() for p in part.parameters())
        for name in ("encoder", "projector", "predictor", "target")
        if (part := getattr(module, name)) is not None
    }
    console.print("parameters: " + ", ".join(f"{name} {count:,}" for name, count in counts.items()))
    console.print(f"data: {domain.describe()}")
    console.print(f"run directory: <out>/{recipe['name']}/{recipe_hash(recipe)}/seed{recipe['seed']}")


class Trainer:
    """One run: its loop, its measurements and its files.

    Step k, counted from 0, has learning rate, momentum, coefficients and random draws that depend on (seed, k,
    rank) only, so a resumed run continues as if it had not stopped. Logged steps count completed steps.
    """

    def __init__(
        self,
        recipe: Mapping[str, Any],
        run: RunDirectory,
        accelerator: Accelerator,
        domain: Domain,
        module: SSLModule,
        signals: StopSignals,
    ) -> None:
        self.recipe = recipe
        self.run_directory = run
        self.accelerator = accelerator
        self.domain = domain
        self.module = module
        self.signals = signals
        self.steps: int = recipe["train"]["steps"]
        self.main = accelerator.is_main_process
        self.reporter = Reporter(self.main, run.log)
        self.probes = evaluate.build_probes(recipe["evaluate"])
        probe_set = domain.probe_set()
        evaluate.check_probes(self.probes, probe_set)
        self.optimizer_spec: OptimizerSpec = OPTIMIZERS.build(recipe["optim"])
        prepare_networks(recipe, module, domain, accelerator.num_processes)
        self.optimizer = self.optimizer_spec.build(module)
        self.wrapped, self.optimizer = accelerator.prepare(module, self.optimizer)
        # Other ranks fit probes to the labels, and need no inputs.
        self.probe_set = probe_set.to(accelerator.device) if self.main else replace(probe_set, views=())
        self._pending: list[tuple[int, dict[str, torch.Tensor]]] = []
        self._last: dict[str, float] = {}  # the newest logged losses
        self._measurement: Measurement | None = None  # the newest
        self._newest_rank: tuple[int, float] | None = None  # with its step
        self._warned: set[str] = set()

    def run(self, resume: bool, command: list[str]) -> Path:
        """Train to the last step, then evaluate and write the result."""
        self.signals.hold()  # until the last step is saved
        start = self._resume() if resume else 0
        self._pace = Pace(self.accelerator, self.signals, self.recipe["train"]["checkpoint_minutes"], start)
        batches = self._rehearsed(start)
        self._announce(start, resume, command)
        began = time.perf_counter()
        self._train(start, batches)
        del batches  # and with them worker processes
        trained_seconds = time.perf_counter() - began
        self._measure_last()  # before the checkpoint, which must not be written if outputs overflow
        self._save(self.steps)
        place = "after the last step, which is saved; --resume evaluates it"
        number = self._pace.caught()
        if number is not None:
            self._stop(number, place)
        self.signals.release(place)
        self._finish(trained_seconds, self.steps - start)
        self.accelerator.wait_for_everyone()
        self.accelerator.end_training()
        return self.run_directory.path

    def _context(self) -> Context:
        accelerator = self.accelerator
        return Context(self.recipe["seed"], accelerator.process_index, accelerator.num_processes, accelerator.device)

    def _rehearsed(self, start: int) -> Iterator[Batch]:
        """Batches from a step on, the first of which all that will ever read one has been tried on."""
        batches = checked_batches(self.domain, start * self.recipe["train"]["accumulate"], self._context())
        first = next(batches)
        check_batch(self.module, first)
        with meeting("trying the probe set"):
            if self.main:
                check_probe_views(self.module.encoder, self.probe_set, labelled=bool(self.probes))
        return chain([first], batches)

    def _train(self, start: int, batches: Iterator[Batch]) -> None:
        recipe, monitor = self.recipe, self.recipe["monitor"]["every"]
        context = self._context()
        self.wrapped.train()
        if start == 0 and monitor:
            self._monitor(0)
        self.reporter.start(start, self.steps)
        try:
            for step in range(start, self.steps):
                done = step + 1
                # Dropout and the like draw from here, so that a resumed run repeats them without saved states.
                seed_default(context.device, derive_seed("step", recipe["seed"], step, context.rank))
                measured = bool(monitor) and (done % monitor == 0 or done == self.steps)
                gradients = self._step(step, batches, compare=measured and recipe["monitor"]["gradients"])
                if done % recipe["train"]["log_every"] == 0:
                    self._flush(done)
                due = self._pace.after(done)
                planned = self._is_planned(done)
                saved = done < self.steps and (planned or due.save or due.stop is not None)
                if measured or planned or done == self.steps:
                    self._flush(done)
                elif saved:
                    self._check_losses()  # without a line in metrics.jsonl, which must not depend on the clock
                if measured or saved or done == self.steps:
                    check_tensors(done, self.module, self.run_directory.checkpoints)
                if measured:
                    self._monitor(done, gradients)
                if saved:  # the last one: when it is measured
                    self._save(done)
                    if due.stop is not None:
                        self._stop(due.stop, f"after step {done}, which is saved; --resume goes on from there")
        finally:
            self.reporter.stop()

    def _step(self, step: int, batches: Iterator[Batch], *, compare: bool) -> dict[str, dict[str, float]]:
        """One optimiser step; with ``compare``, the penalties' gradients against the objective's."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.optimizer_spec.lr_at(step, self.steps)
        observation = Observation(self.module, step)
        share = self.recipe["train"]["accumulate"]
        for position in range(share):
            last = position == share - 1
            # Gradients are averaged over ranks once a step, in the last of its backward passes.
            with nullcontext() if last else self.accelerator.no_sync(self.wrapped):
                batch = next(batches)
                with observation:
                    parts = self.wrapped(batch, step)
                self.accelerator.backward(parts["loss"] / share)
        gradients = {}
        if compare and self.module.regularizers:
            if self.accelerator.scaler is not None:
                self.accelerator.unscale_gradients(self.optimizer)
            gradients = penalty_gradients(self.module, step)
        readings = observation.readings()
        if stepped(self.optimizer, self.accelerator.scaler):
            self.module.update_target(step)
        self.optimizer.zero_grad()
        self._pending.append((step + 1, {name: value.detach() for name, value in parts.items()}))
        for name, controller in observation.due.items():
            controller.update(step, readings)
            self._log(step + 1, {f"control/{name}/{key}": value for key, value in controller.metrics().items()})
            for line in controller.warnings():
                self._warn(step + 1, f"{name} on {line}")
        return gradients

    def _flush(self, done: int) -> None:
        """Bring the pending losses to the host, refuse non-finite ones, log the last, as a mean over ranks."""
        if not self._pending:
            return
        step, parts = self._pending[-1]
        self._check_losses()
        values = self.accelerator.reduce(torch.stack([value.float() for value in parts.values()]), reduction="mean")
        record = dict(zip(parts, values.tolist(), strict=True))
        record["lr"] = self.optimizer_spec.lr_at(step - 1, self.steps)
        self._last = record
        self._log(done, record)
        self.reporter.update(done, record["loss"], self._newest_rank)

    def _check_losses(self) -> None:
        """Refuse non-finite pending losses, and forget the others."""
        if not self._pending:
            return
        losses = torch.stack([parts["loss"].float() for _, parts in self._pending])
        if not torch.isfinite(losses).all():
            for step, parts in self._pending:
                check_losses(step, parts, self.run_directory.checkpoints)
        self._pending.clear()

    def _stop(self, number: int, place: str) -> None:
        """End the run on every rank, because of a signal to one of them, after a step that is saved."""
        self.accelerator.wait_for_everyone()  # rank 0 may have the store through which the others hear that it is saved
        if self.recipe["train"]["trackers"]:
            self.accelerator.end_training()
        self.signals.place = place
        if self.main:
            self.run_directory.log(f"stopped by {Signals(number).name} {self.signals.place}\n")
        self.signals.stop(number)

    @meeting("measuring ranks")
    def _monitor(self, done: int, gradients: dict[str, dict[str, float]] | None = None) -> None:
        """Measure ranks on the probe set; rank 0 only, the others wait for as long as it takes."""
        if not self.main:
            return
        measurement = self._measurement = self._measure(done)
        self._newest_rank = done, measurement.ranks["representation"]["effective_rank"]
        record = measurement.metrics()
        warnings = low_rank_warnings(measurement, self.recipe["monitor"]["rank_warning"]) if done else []
        for layer, values in (gradients or {}).items():
            record |= {f"gradient/{layer}/{name}": value for name, value in values.items()}
        for name, layers in self.module.coefficients(max(done - 1, 0)).items():
            record |= {f"regularizer/{name}/{layer}/coefficient": value for layer, value in layers.items()}
        self._log(done, record)
        self.run_directory.write_arrays(f"spectra/{done:08d}.npz", measurement.spectra())
        for line in (*warnings, *gradient_warnings(gradients or {})):
            self._warn(done, line)

    def _warn(self, done: int, line: str) -> None:
        """Show a warning once per subject (the text before its first colon and number)."""
        subject = line.partition(":")[0]
        if subject not in self._warned:
            self._warned.add(subject)
            self.reporter.warn(f"step {done}: {line}")

    def _measure(self, done: int) -> Measurement:
        module, (views, rows) = self.module, self.probe_set.measured(self.recipe["monitor"]["samples"])
        try:
            return measure(module.encoder, views, projector=module.projector, predictor=module.predictor, rows=rows)
        except NotFiniteError as error:
            raise NonFiniteLossError(
                f"step {done}: ranks cannot be measured, {error}. {way_out(self.run_directory.checkpoints)}"
            ) from error

    @meeting("measuring ranks")
    def _measure_last(self) -> None:
        """Measure the last step, unless that is done. What fails unexpectedly will be tried again after the export."""
        if self.main and self._measurement is None:
            try:
                self._measurement = self._measure(self.steps)
            except SSLCollapseError:
                raise
            except Exception:
                self.run_directory.log(traceback.format_exc())

    def _measure_shared(self) -> dict[str, Any]:
        """What two training views share, on the batches that would come after the last step."""
        recipe, start = self.recipe, self.steps * self.recipe["train"]["accumulate"]
        # More samples than are measured otherwise would take long, and without end where samples never come again.
        most = min(recipe["monitor"]["samples"] or MEASURED, max(len(self.probe_set.labels), MAX_ROWS))
        context = Context(recipe["seed"], device=self.accelerator.device)  # rank 0 has all samples of a batch
        with closing(checked_batches(self.domain, start, context)) as batches:  # ends worker processes
            return measure_shared(self.module.encoder, batches, most, self.domain.measurable)

    def _log(self, done: int, record: Mapping[str, float]) -> None:
        if self.main:
            self.run_directory.append_metrics({"step": done, **record})
        if self.recipe["train"]["trackers"]:
            self.accelerator.log(dict(record), step=done)

    @meeting("writing a checkpoint")
    def _save(self, done: int) -> None:
        if self.main:
            scaler = self.accelerator.scaler
            state = {
                "step": done,
                "world_size": self.accelerator.num_processes,
                "module": self.module.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "scaler": None if scaler is None else scaler.state_dict(),
            }
            settings = self.recipe["train"]
            # Without any planned ones all count alike.
            planned = self._is_planned if settings["checkpoint_every"] else lambda step: True
            save_checkpoint(self.run_directory.checkpoints, done, state, settings["keep_checkpoints"], planned)
        self._pace.saved()

    def _is_planned(self, done: int) -> bool:
        """Whether the recipe asks for a checkpoint after so many steps, whatever a clock or a signal asks for."""
        every = self.recipe["train"]["checkpoint_every"]
        return every > 0 and (done % every == 0 or done == self.steps)

    def _resume(self) -> int:
        """Load the newest sound checkpoint on every rank; return its step, 0 where none was written yet."""
        accelerator, run = self.accelerator, self.run_directory
        step = 0
        if newest_step(run.checkpoints) is not None:
            step = load_latest_checkpoint(run.checkpoints, use=self._restore, say=self.reporter.print)["step"]
        steps = accelerator.gather(torch.tensor([step], device=accelerator.device)).tolist()
        if len(set(steps)) > 1:
            raise RunError(f"{run.checkpoints}: ranks read the checkpoints of different steps {steps}; start again")
        with meeting("reading what was logged"):
            kept, damaged = run.rewind(step or -1) if self.main else ([], [])
        if self.main:
            if damaged:
                lines = ", ".join(map(str, damaged))
                self.reporter.print(f"{run.path / 'metrics.jsonl'}: damaged and left out: line {lines}")
            self._last = next((record for record in reversed(kept) if "loss" in record), {})
        return step

    def _restore(self, state: Mapping[str, Any]) -> None:
        """Take everything from a checkpoint; raises whatever the first thing that is wrong with it makes it raise."""
        check_state(state, self.steps, self.module, self.optimizer)
        world_size = self.accelerator.num_processes
        if state["world_size"] != world_size:
            raise RunError(
                f"--resume: {self.run_directory.path} was trained by {state['world_size']} processes and this is "
                f"{world_size}; start {state['world_size']} processes, or start again with --overwrite"
            )
        self.module.load_state_dict(state["module"])
        self.optimizer.load_state_dict(state["optimizer"])
        if state["scaler"] is not None and self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(state["scaler"])

    def _announce(self, start: int, resumed: bool, command: list[str]) -> None:
        recipe = self.recipe
        with meeting("starting the run"):
            if self.main:
                self._describe(start, resumed, command)
        if recipe["train"]["trackers"]:
            hashed = {"hash": recipe_hash(recipe), "seed": recipe["seed"]}
            self.accelerator.init_trackers(recipe["name"], config=hashed)

    def _describe(self, start: int, resumed: bool, command: list[str]) -> None:
        """Write what is run and by what, and show it; on rank 0."""
        accelerator, recipe = self.accelerator, self.recipe
        device = device_name(accelerator.device)
        self.run_directory.write_json("recipe.json", recipe)
        made_by = environment(accelerator.num_processes, device, command, recipe)
        self.run_directory.write_json("environment.json", made_by)
        self.reporter.print(f"{recipe['name']}  seed {recipe['seed']}  →  {self.run_directory.path}")
        self.reporter.print(f"data: {self.domain.describe()}; device: {device}")
        notice = self.domain.notice(accelerator.num_processes)
        if notice:
            self.reporter.print(notice)
        if resumed:
            self.reporter.print(f"resuming after step {start}" if start else "no checkpoint yet: from the beginning")

    def _finish(self, trained_seconds: float, trained_steps: int) -> None:
        """Export, evaluate trained and untrained encoder, write the result, and only then do what is optional.

        Ranks share the probes. Rank 0 does the rest; the others wait for as long as it takes.
        """
        recipe, run = self.recipe, self.run_directory
        began = time.perf_counter()
        with meeting("exporting the encoder"):
            if self.main:
                save_encoder(run.path, self.module.encoder, recipe, self.domain.in_shape, self.steps)
                measurement = self._measurement or self._measure(self.steps)
        untrained = build_encoder(recipe, self.domain).to(self.accelerator.device)
        evaluation, splits = evaluate.evaluate_networks(
            self.probes, {"evaluation": self.module.encoder, "untrained": untrained}, self.probe_set, self.reporter
        )
        with meeting("writing the result"):
            if not self.main:
                return
            result = {
                "status": "finished",
                "recipe": dict(recipe),
                "hash": recipe_hash(recipe),
                "seed": recipe["seed"],
                "steps": self.steps,
                "seconds": {
                    "training": trained_seconds,
                    "steps_trained": trained_steps,
                    "evaluation": time.perf_counter() - began,
                },
                **evaluation,
                "rank": dict(measurement.ranks),
                "regularizers": self._penalty_summary(),
                "warnings": [CUT_SHORT],
            }
            run.write_arrays("splits.npz", splits)
            run.write_json("result.json", result)
            result["warnings"] = []
            self._add_optional(result)
            run.write_json("result.json", result)
            if self.probes:
                self.reporter.print(accuracy_table(result))
            self.reporter.print(rank_table(result))
            self.reporter.print(f"finished in {trained_seconds:.0f} s of training: {run.path / 'result.json'}")

    def _add_optional(self, result: dict[str, Any]) -> None:
        """Measure what the result is complete without; what fails is a warning, its traceback is in the log."""
        try:
            result["rank"] |= self._measure_shared()
        except Exception as error:
            line = f"what two views share is not measured: {type(error).__name__}: {error}"
            result["warnings"].append(line)
            self.run_directory.log(traceback.format_exc())
            self.reporter.warn(f"{line}; the traceback is in train.log")

    @torch.no_grad()
    def _penalty_summary(self) -> dict[str, dict[str, dict[str, float]]]:
        regularizers: Any = self.module.regularizers
        summary: dict[str, dict[str, dict[str, float]]] = {name: {} for name in regularizers}
        for name, layer, penalty, coefficient in self.module.weight_penalties(self.steps - 1, inactive=True):
            floor = regularizers[name].floor(self.module.layers[layer])
            value = float(penalty)
            summary[name][layer] = {
                "penalty": value,
                "floor": floor,
                "excess": value - floor,
                "coefficient": coefficient,
            }
        for name, coefficients in self.module.coefficients(self.steps - 1).items():
            for place, coefficient in coefficients.items():
                last = self._last.get(f"regularizer/{name}/{place}/penalty")  # of features: of the last batch
                if place not in summary[name] and last is not None:
                    summary[name][place] = {"penalty": last, "floor": 0.0, "excess": last, "coefficient": coefficient}
        return summary
