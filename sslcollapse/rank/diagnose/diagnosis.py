"""Every layer of a target with its verdict, and the forms in which it can be had."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sslcollapse.core.errors import SSLCollapseError
from sslcollapse.core.files import write_atomic
from sslcollapse.core.memory import map_on_threads
from sslcollapse.core.texts import csv_text
from sslcollapse.layers.layer import Coverage
from sslcollapse.rank.diagnose.columns import columns_of
from sslcollapse.rank.diagnose.matrices import Matrix, StoredMatrices, kind_of_layer
from sslcollapse.rank.diagnose.networks import Target
from sslcollapse.rank.diagnose.verdicts import COLLAPSED, VERDICTS, Judged, weigh, worst

if TYPE_CHECKING:
    import pandas as pd

    from sslcollapse.rank.diagnose.compare import Change
    from sslcollapse.rank.diagnose.series import Fall


@dataclass(frozen=True)
class LayerReport:
    """One layer: its weight, its output where there were data, and the worse verdict of both."""

    weight: Judged
    output: Judged | None = None

    @property
    def name(self) -> str:
        """Of the layer."""
        return self.weight.rank.layer

    @property
    def depth(self) -> int:
        """Of the layer."""
        return self.weight.rank.depth

    @property
    def verdict(self) -> str:
        """The worse of the two."""
        return worst(part.verdict for part in (self.weight, self.output) if part is not None)


@dataclass(frozen=True)
class DiagnosisRow:
    """One weight or output of a diagnosis, in plain numbers; NaN and None stand for what was not measured.

    Attributes:
        layer: name.
        part: ``weight``, ``output``, or ``representation``.
        depth: of the layer.
        kind: ``attention``, ``MLP``, ``experts``, ``router``, ``output map`` or ``other``, by the layer's name.
        shape: [out, in] of a weight; empty of an output.
        n: rows that an output's rank is of; None of a weight.
        attainable: the largest rank that there can be.
        effective_rank, stable_rank, numerical_rank: see ``sslcollapse.effective_rank`` and the others.
        reference: the effective rank of a random weight, or of an untrained network's output; 0 for none.
        share: effective rank over that.
        condition, orthogonality_defect: of a weight; None where there is none.
        verdict: ``healthy``, ``degrading`` or ``collapsed``.
        reason: one line.
        columns: what else was asked for.
    """

    layer: str
    part: str
    depth: int
    kind: str
    shape: tuple[int, ...]
    n: int | None
    attainable: int
    effective_rank: float
    stable_rank: float
    numerical_rank: float
    reference: float
    share: float
    condition: float | None
    orthogonality_defect: float | None
    verdict: str
    reason: str
    columns: Mapping[str, float]


@dataclass(frozen=True)
class Diagnosis:
    """Every layer of a target, and its representation where there were data.

    Attributes:
        title: one line on what was diagnosed.
        layers: weight and output of each.
        coverage: how much of the parameters they hold, and what is left out, with the reason.
        representation: where there were data.
        data: what they were.
        unmeasured: why outputs could not be measured.
        changes: against another target, the layers that both have, the most changed one first (``compare.py``).
        unmatched: against another target, names of layers that only one has, or in another shape, with the reason.
        falls: when layers have lost rank, the earliest first, where a run's records say it (``series.py``).
    """

    title: str
    layers: Sequence[LayerReport]
    coverage: Coverage
    representation: Judged | None = None
    data: str | None = None
    unmeasured: str | None = None
    changes: Sequence[Change] = ()
    unmatched: Sequence[str] = ()
    against: str | None = None
    falls: Sequence[Fall] | None = None

    @property
    def verdict(self) -> str:
        """The worst of all; collapsed where outputs could not be measured because they are not finite."""
        verdicts = [layer.verdict for layer in self.layers]
        verdicts += [self.representation.verdict] if self.representation else []
        return worst([*verdicts, COLLAPSED] if self.unmeasured else verdicts)

    @property
    def rows(self) -> list[DiagnosisRow]:
        """Every weight and output by depth, the representation last."""
        parts = [
            (layer.name, word, part)
            for layer in self.layers
            for word, part in (("weight", layer.weight), ("output", layer.output))
        ]
        parts.append(("representation", "representation", self.representation))
        return [_row(name, word, part) for name, word, part in parts if part is not None]

    def count(self, verdict: str) -> int:
        """Number of layers with a verdict."""
        return sum(layer.verdict == verdict for layer in self.layers)

    def fails(self, at: str) -> bool:
        """Whether the worst verdict is ``at`` or worse."""
        return VERDICTS.index(self.verdict) >= VERDICTS.index(at)

    def worst(self) -> DiagnosisRow:
        """The row with the worst verdict, and of several the one with the smallest share of its reference."""
        return min(self.rows, key=lambda row: (-VERDICTS.index(row.verdict), row.share))

    def to_pandas(self) -> pd.DataFrame:
        """``rows`` as a data frame, each of ``columns`` a column.

        Raises:
            DiagnosisError: pandas is not installed.
        """
        try:
            import pandas as pd
        except ImportError:
            raise DiagnosisError(
                "a data frame needs pandas, which is not installed: pip install pandas; .rows has the same, and "
                ".to_csv(path) writes it"
            ) from None
        return pd.DataFrame([_flat(row) for row in self.rows])

    def to_csv(self, path: str | Path) -> None:
        """Write ``rows``, a line each."""
        rows = [_flat(row) for row in self.rows]
        heads = list(dict.fromkeys(key for row in rows for key in row))
        lines = [[_plain(row.get(head)) for head in heads] for row in rows]
        write_atomic(Path(path), csv_text([heads, *lines]).encode())

    def to_json(self, path: str | Path) -> None:
        """Write all numbers; None stands for what is not finite or not measured."""
        from sslcollapse.rank.diagnose.records import to_json

        write_atomic(Path(path), (json.dumps(to_json(self), indent=2) + "\n").encode())

    def to_html(self, path: str | Path) -> None:
        """Write one page that needs nothing beside it."""
        from sslcollapse.rank.diagnose.document import html_of

        write_atomic(Path(path), html_of(self).encode())

    def plot(self, path: str | Path | None = None) -> Any:
        """The picture of spectra and ranks by depth, as a matplotlib figure; also written where a path is given."""
        from sslcollapse.rank.diagnose.picture import draw, figure_of

        return figure_of(self) if path is None else draw(self, Path(path))

    def __str__(self) -> str:
        from sslcollapse.rank.diagnose.report import text_of

        return text_of(self)


class DiagnosisError(SSLCollapseError):
    """A diagnosis cannot be given in the form that was asked for."""


def _row(name: str, word: str, part: Judged) -> DiagnosisRow:
    rank = part.rank
    return DiagnosisRow(
        layer=name,
        part=word,
        depth=rank.depth,
        kind=kind_of_layer(name) if word != "representation" else word,
        shape=part.shape,
        n=rank.n,
        attainable=rank.reachable,
        effective_rank=rank.effective_rank,
        stable_rank=rank.stable_rank,
        numerical_rank=rank.numerical_rank,
        reference=part.reference,
        share=part.share,
        condition=part.condition,
        orthogonality_defect=part.orthogonality_defect,
        verdict=part.verdict,
        reason=part.reason,
        columns=part.columns,
    )


def _flat(row: DiagnosisRow) -> dict[str, Any]:
    found = {name.name: getattr(row, name.name) for name in fields(row) if name.name != "columns"}
    return found | {"shape": " x ".join(map(str, row.shape))} | dict(row.columns)


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def diagnose_weights(target: Target, columns: Sequence[str] = ()) -> Diagnosis:
    """Judge every weight matrix of a target; of one that is read from files, one after another."""

    def report(matrix: Matrix) -> LayerReport:
        judged = weigh(matrix)
        if columns and judged.sigma is not None:
            judged = replace(judged, columns=columns_of(matrix.weight, judged.sigma, columns))
        return LayerReport(judged)

    one_by_one = isinstance(target.matrices, StoredMatrices)
    layers = list(map(report, target.matrices)) if one_by_one else map_on_threads(report, target.matrices)
    return Diagnosis(target.title, layers, target.coverage)
