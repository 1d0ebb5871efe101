"""What a monitor has measured so far: rows and spectra of every summary, as tables, as pictures and for loggers."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from torch import Tensor

from sslcollapse.core.distributed import rank
from sslcollapse.core.errors import SSLCollapseError
from sslcollapse.nn.wrappers import check_count
from sslcollapse.rank.record import LayerRank

MEASURES = ("effective_rank", "fraction")
"""What ``flat`` has of each row, by default."""


class MonitorError(SSLCollapseError, RuntimeError):
    """A monitor has nothing to tell, or cannot watch what it was given."""


class SummaryRecord(NamedTuple):
    """One summary: after how many measured forwards, what it is called, its rows, and key of a point → spectrum."""

    measured: int
    step: int
    rows: list[LayerRank]
    spectra: dict[str, Tensor]


class SummaryHistory:
    """The summaries of a monitor, oldest first."""

    def __init__(self) -> None:
        self._records: list[SummaryRecord] = []
        self._logged = 0

    def summary(self, step: int | None = None) -> list[LayerRank]:
        """A row for each layer's weight and output; also kept in ``history``."""
        raise NotImplementedError

    @property
    def history(self) -> list[LayerRank]:
        """The rows of every summary, oldest first."""
        return [row for record in self._records for row in record.rows]

    @property
    def spectra(self) -> dict[str, Tensor]:
        """``"weight/<layer>"`` and ``"output/<layer>"`` → singular values, descending, at the latest summary."""
        return dict(self._records[-1].spectra) if self._records else {}

    def spectra_over_time(self, name: str) -> dict[int, Tensor]:
        """Step of each summary → singular values, descending, of ``"weight/<layer>"`` or ``"output/<layer>"`` then.

        Raises:
            MonitorError: no summary has that name.
        """
        course = {record.step: record.spectra[name] for record in self._records if name in record.spectra}
        if not course:
            known = ", ".join(self.spectra) or "none, since there was no summary"
            raise MonitorError(f"there is no spectrum {name!r} (spectra: {known})")
        return course

    def to_pandas(self) -> Any:
        """``history`` as a data frame, a column for each attribute of ``LayerRank``; makes a summary if there is none.

        Raises:
            ImportError: pandas is not installed.
        """
        try:
            import pandas
        except ImportError as error:
            raise ImportError(
                "to_pandas needs pandas, which is not installed: pip install pandas. Without it, "
                "[dataclasses.asdict(row) for row in monitor.history] is the same table"
            ) from error
        return pandas.DataFrame([asdict(row) for row in self._known()])

    def plot(
        self, path: str | Path, kind: Literal["overview", "heatmap", "spectrum"] = "overview", layer: str | None = None
    ) -> None:
        """Write a picture; makes a summary if there is none.

        Args:
            path: of the picture; the ending says which format.
            kind: ``"overview"`` is rank by depth, its course over the summaries, and all spectra at the last one;
                ``"heatmap"`` the rank of outputs by depth and summary; ``"spectrum"`` the singular values of the
                outputs of one layer, a line a summary.
            layer: whose spectrum; by default the last layer's that has put something out.

        Raises:
            MonitorError: no such layer has a spectrum.
            ValueError: for another ``kind``, or a ``layer`` for a picture of all.
        """
        if kind not in ("overview", "heatmap", "spectrum"):
            raise ValueError(f"kind must be 'overview', 'heatmap' or 'spectrum', got {kind!r}")
        if layer is not None and kind != "spectrum":
            raise ValueError(f"layer={layer!r}: kind={kind!r} shows all layers; use kind='spectrum'")
        self._draw(path, kind, layer)

    def _draw(self, path: Any, kind: str, layer: str | None = None) -> None:
        from sslcollapse.rank.plots import attainable_over_time, plot_record, rank_heat_map, spectrum_fan

        rows = self._known()
        if kind == "overview":
            plot_record(rows, self.spectra, Path(path))
        elif kind == "heatmap":
            rank_heat_map({"rank by depth over time": rows}, path)
        else:
            last = [row.layer for row in rows if row.kind == "output"][-1:]
            name = layer if layer is not None else "".join(last)
            spectra = self.spectra_over_time(f"output/{name}")
            limits = attainable_over_time(self.history, f"output/{name}")
            spectrum_fan({(title := f"outputs of {name}"): spectra}, path, attainable={title: limits})

    @property
    def latest(self) -> list[LayerRank]:
        """The rows of the latest summary; none before the first."""
        return list(self._records[-1].rows) if self._records else []

    def flat(self, measures: Sequence[str] = MEASURES) -> dict[str, float]:
        """``{"effective_rank/output/<layer>": 12.3, ...}`` of the latest summary; makes one if there is none.

        Args:
            measures: attributes of ``LayerRank`` that are numbers; a row that has none of it is left out.

        Raises:
            ValueError: for a measure that rows do not have.
        """
        self._known()
        rows = self._records[-1].rows
        if unknown := [name for name in measures if not hasattr(rows[0], name)]:
            known = ", ".join(name for name, value in asdict(rows[0]).items() if not isinstance(value, str))
            raise ValueError(f"rows have no measure {unknown[0]!r} (measures: {known})")
        found = ((f"{name}/{row.kind}/{row.layer}", getattr(row, name)) for name in measures for row in rows)
        return {key: float(value) for key, value in found if value is not None}

    def log(
        self,
        logger: Any,
        step: int | None = None,
        *,
        measures: Sequence[str] = MEASURES,
        picture: Callable[[str, np.ndarray, int], object] | None = None,
        pictures_every: int = 10,
        **how: Any,
    ) -> list[LayerRank]:
        """Make a summary and hand it to a logger; return its rows. Of several processes rank 0 alone logs.

            monitor.log(wandb.log, step)            trackio.log, mlflow.log_metrics and accelerator.log alike
            monitor.log(writer, step)               a SummaryWriter of TensorBoard

        Args:
            logger: called with what ``flat`` gives and the step; or an object with ``add_scalar`` and ``add_image``.
            step: what the summary is called; by default the number of training forwards seen.
            measures: see ``flat``.
            picture: called with a name, a picture [H, W, 3] of whole numbers from 0 to 255, and the step; by default a
                ``SummaryWriter`` has its ``add_image``, and others have no pictures.
            pictures_every: calls of this method from one that has pictures to the next; the first has them.
            how: as ``summary`` takes it, such as ``all_reduce=True``.

        Raises:
            MonitorError: no forward was seen.
            ValueError: for an unknown measure, or a ``pictures_every`` that is no whole number of at least 1.
        """
        check_count("pictures_every", pictures_every)
        rows = self.summary(step, **how)
        called = self._records[-1].step
        due, self._logged = self._logged % pictures_every == 0, self._logged + 1
        if rank():
            return rows
        values = self.flat(measures)
        if hasattr(logger, "add_scalar"):
            for name, value in values.items():
                logger.add_scalar(name, value, called)
            if picture is None:
                picture = _add_image(logger)
        else:
            logger(values, called)
        if picture is not None and due:
            for name, pixels in self.pictures().items():
                picture(name, pixels, called)
        return rows

    def pictures(self) -> dict[str, np.ndarray]:
        """``heatmap`` of outputs, and ``spectrum`` of the last layer that put something out, as [H, W, 3] in bytes."""
        from matplotlib.image import imread

        self._known()
        found: dict[str, np.ndarray] = {}
        if any(row.kind == "output" for row in self.history):
            for kind in ("heatmap", "spectrum"):
                self._draw(drawn := io.BytesIO(), kind)
                drawn.seek(0)
                found[kind] = (imread(drawn, format="png")[..., :3] * 255).round().astype(np.uint8)
        return found

    def _known(self) -> list[LayerRank]:
        return self.history or self.summary()


def _add_image(writer: Any) -> Callable[[str, np.ndarray, int], object]:
    return lambda name, pixels, step: writer.add_image(name, pixels, step, dataformats="HWC")
