"""What a run measures: ranks on the probe set, after some of its steps, and of two views; and accuracy over time."""

from __future__ import annotations

import time
import traceback
from collections.abc import Mapping
from contextlib import closing
from functools import partial
from typing import Any

import torch

from sslcollapse.core.distributed import meeting
from sslcollapse.core.errors import NonFiniteLossError, RecipeError, SSLCollapseError
from sslcollapse.core.types import MEASURED, Context, Partwise, ProbeSet
from sslcollapse.probes.evaluate import run_probes
from sslcollapse.rank.gradients import gradient_warnings
from sslcollapse.rank.measure import Measurement, low_rank_warnings, measure, represent
from sslcollapse.rank.spectrum import NotFiniteError
from sslcollapse.rank.views import MAX_ROWS, measure_shared
from sslcollapse.runs.directory import read_metrics
from sslcollapse.training.build import checked_batches
from sslcollapse.training.course import CourseProbe, course_of
from sslcollapse.training.features import REPRESENTING, probe_features
from sslcollapse.training.finite import way_out
from sslcollapse.training.hooks import Hook
from sslcollapse.training.journal import Journal
from sslcollapse.training.setup import Setup
from sslcollapse.training.stopping import RunAlarm


class RankMeter:
    """Measures the online network of a run; rank 0 only, the others wait for as long as it takes.

    Args:
        setup: of the run.
        probe_set: its un-augmented inputs, on rank 0.
        journal: takes what is measured.
        probes: name → probe of the recipe; the course of accuracy has the first split of the first.
        alarm: looks for a collapse in what is measured.
    """

    def __init__(
        self, setup: Setup, probe_set: ProbeSet, journal: Journal, probes: Mapping[str, Any], alarm: RunAlarm
    ) -> None:
        self._setup, self._probe_set, self._journal, self._alarm = setup, probe_set, journal, alarm
        self._newest: Measurement | None = None
        if setup.recipe["monitor"]["smoothness"] and setup.main:
            _check_smoothness(probe_set)
        asked = setup.recipe["monitor"]["probe"]
        self._probe = (
            CourseProbe.of(probes, probe_set, asked) if setup.main and setup.recipe["monitor"]["every"] else None
        )

    def is_due(self, done: int) -> bool:
        """Whether ranks are measured after so many completed steps."""
        every: int = self._setup.recipe["monitor"]["every"]
        return every > 0 and (done % every == 0 or done == self._setup.steps)

    def measure(self, done: int, gradients: Mapping[str, Mapping[str, float]]) -> str | None:
        """Measure and write down all ranks after a step, with what was compared of its gradients.

        Returns:
            Why the run has to stop, on every rank; None where it goes on.
        """
        with meeting("measuring ranks") as told:
            if self._setup.main:
                told.result = self._measure(done, gradients)
        why: str | None = told.results[0]
        return why

    def _measure(self, done: int, gradients: Mapping[str, Mapping[str, float]]) -> str | None:
        setup, journal = self._setup, self._journal
        measurement = self._newest = self._measured(done)
        journal.rank = done, measurement.ranks["representation"]["effective_rank"]
        record = measurement.metrics() | self._scores(done)
        warnings = low_rank_warnings(measurement, setup.recipe["monitor"]["rank_warning"]) if done else []
        for layer, values in gradients.items():
            record |= {f"gradient/{layer}/{name}": value for name, value in values.items()}
        for name, layers in setup.module.coefficients(max(done - 1, 0)).items():
            record |= {f"regularizer/{name}/{layer}/coefficient": value for layer, value in layers.items()}
        journal.log(done, record)
        setup.run.write_arrays(f"spectra/{done:08d}.npz", measurement.spectra())
        for line in (*warnings, *gradient_warnings(gradients)):
            journal.warn(done, line)
        return self._alarm.measured(done, measurement.rows, measurement.singular)

    @meeting("measuring ranks")
    def measure_last(self) -> None:
        """Measure the last step, unless that is done. What fails unexpectedly will be tried again after the export."""
        if self._setup.main and self._newest is None:
            try:
                self._newest = self._measured(self._setup.steps)
            except SSLCollapseError:
                raise
            except Exception:
                self._setup.run.log(traceback.format_exc())

    def course(self) -> dict[str, Any]:
        """What was measured on the way, from the first step to the last; on rank 0."""
        records, _ = read_metrics(self._setup.run.path / "metrics.jsonl")
        return course_of(records, None if self._probe is None else self._probe.name)

    def last(self) -> Measurement:
        """The newest measurement, which is that of the last step; on rank 0."""
        return self._newest or self._measured(self._setup.steps)

    def shared(self) -> dict[str, Any]:
        """What two training views share, on the batches that would come after the last step; on rank 0."""
        setup, recipe = self._setup, self._setup.recipe
        # More samples than are measured otherwise would take long, and without end where samples never come again.
        most = min(recipe["monitor"]["samples"] or MEASURED, max(len(self._probe_set.labels), MAX_ROWS))
        context = Context(recipe["seed"], device=setup.accelerator.device)  # rank 0 has all samples of a batch
        start = setup.steps * recipe["train"]["accumulate"]
        with closing(checked_batches(setup.domain, start, context)) as batches:  # ends worker processes
            return measure_shared(setup.module.encoder, batches, most, setup.domain.measurable)

    def _scores(self, done: int) -> dict[str, float]:
        """Accuracy of the representation after so many steps; what fails is a warning, and training goes on."""
        if self._probe is None:
            return {}
        try:
            found = self._probe(represent(self._setup.module.encoder, self._probe_set.only(self._probe.rows)))
        except Exception as error:
            self._setup.run.log(traceback.format_exc())
            self._journal.warn(done, f"the course of accuracy is not measured: {type(error).__name__}: {error}")
            return {}
        return {f"probe/{name}": value for name, value in found.items()}

    def _measured(self, done: int) -> Measurement:
        module = self._setup.module
        heads: dict[str, Any] = dict(projector=module.projector, predictor=module.predictor)
        wanted: Mapping[str, Any] = self._setup.recipe["monitor"]
        views, rows = self._probe_set.measured(wanted["samples"])
        if wanted["smoothness"]:
            heads["neighbours"] = self._setup.domain.neighbours
            views = [view.whole() if isinstance(view, Partwise) else view for view in views]
        try:
            return measure(module.encoder, views, **heads, rows=rows, step=done, overlap=wanted["overlap"])
        except NotFiniteError as error:
            raise NonFiniteLossError(
                f"step {done}: ranks cannot be measured, {error}. {way_out(self._setup.run.checkpoints)}"
            ) from error


def _check_smoothness(probe_set: ProbeSet) -> None:
    for view in probe_set.views if probe_set.partwise else ():
        if isinstance(view, Partwise) and view.whole() is None:
            raise RecipeError(
                "monitor.smoothness: is measured in one forward pass over all nodes, and this graph is stored on disk; "
                "leave it out, or read the graph into memory"
            )


class TimedProbes(Hook):
    """Runs probes while a network trains, and writes down what they find with the time that training took until then.

    A line of ``metrics.jsonl`` has ``timed/<name>/<metric>``, ``seconds`` since the first step of this process began,
    and ``seconds_probing``, how many of them went into lines before it. Their difference is the time of training. On a
    GPU the device is waited for before and after, so that neither time has work of the other.

    Args:
        setup: of the run.
        probes: name → probe, all of the recipe.
        probe_set: labels and splits; on rank 0 also the inputs.
        journal: takes the lines.
    """

    def __init__(self, setup: Setup, probes: Mapping[str, Any], probe_set: ProbeSet, journal: Journal) -> None:
        self._setup, self._probe_set, self._journal = setup, probe_set, journal
        self._probes = {name: probes[name] for name in setup.recipe["monitor"]["timed"]}
        self._began: float | None = None
        self._probing = 0.0

    def acts(self, step: int) -> bool:
        """Where the clock starts, and where the probes are due; nothing is done in other steps."""
        return self._began is None or self._is_due(step + 1)

    def before_forward(self, step: int) -> None:
        """Start the clock, with the first step."""
        if self._began is None:
            self._began = self._now()

    def after_step(self, step: int) -> None:
        """Run the probes where they are due."""
        done = step + 1
        if not self._is_due(done):
            return
        stopped = self._now()
        values: dict[str, float] = {}
        try:
            values = self._found()
        except Exception as error:  # on every rank; the run goes on, and will try again
            if self._setup.main:
                self._setup.run.log(traceback.format_exc())
            self._journal.warn(done, f"monitor.timed: {type(error).__name__}: {error}; the traceback is in train.log")
        seconds = {"seconds": stopped - (self._began or stopped), "seconds_probing": self._probing}
        self._journal.log(done, {**values, **seconds})
        self._probing += self._now() - stopped

    def _is_due(self, done: int) -> bool:
        return done % self._setup.recipe["monitor"]["timed_every"] == 0 or done == self._setup.steps

    def _found(self) -> dict[str, float]:
        """What the probes say of the encoder as it is, on every rank."""
        setup = self._setup
        make, device = partial(represent, setup.module.encoder), setup.accelerator.device
        features, rows = probe_features(REPRESENTING, make, self._probes, self._probe_set, device)
        results, _ = run_probes(self._probes, features, self._probe_set, rows=rows, shared=True)
        return {
            f"timed/{name}/{metric}": found["mean"]
            for name, result in results.items()
            for metric, found in result.items()
            if isinstance(found, Mapping) and "mean" in found
        }

    def _now(self) -> float:
        """The time at which the device has done all that it was given."""
        if self._setup.accelerator.device.type == "cuda":
            torch.cuda.synchronize(self._setup.accelerator.device)
        return time.perf_counter()
