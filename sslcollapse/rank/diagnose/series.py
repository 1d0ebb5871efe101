"""A series of checkpoints: the rank of every layer by step, and which layer fell first, and when."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sslcollapse.core.files import write_atomic
from sslcollapse.core.texts import csv_text
from sslcollapse.rank.diagnose.diagnosis import Diagnosis, DiagnosisError
from sslcollapse.rank.diagnose.verdicts import HEALTHY, output_verdict, weight_verdict

if TYPE_CHECKING:
    import pandas as pd

Course = Sequence[tuple[int, float, str]]
"""(Step, share of the reference, verdict), ascending."""


@dataclass(frozen=True)
class Fall:
    """A layer that has lost rank, and has not got it back.

    Attributes:
        layer: name.
        part: ``weight``, ``output`` or ``representation``.
        step: the first at which it was not healthy, and from which on it never was.
        healthy_step: the last at which it was; None where it never was.
        share: of its reference at ``step``.
        last_share: at the end.
        verdict: at the end.
    """

    layer: str
    part: str
    step: int
    healthy_step: int | None
    share: float
    last_share: float
    verdict: str

    def __str__(self) -> str:
        since = f"last healthy at step {self.healthy_step:,}, " if self.healthy_step is not None else "never healthy, "
        what = self.layer if self.part == "representation" else f"{self.layer} {self.part}"
        return f"{what}: {since}{self.share:.2f} of its reference at step {self.step:,}, {self.verdict} at the end"


def falls_of(courses: Mapping[tuple[str, str], Course]) -> list[Fall]:
    """The layers that end unhealthy, the first to fall first; of several at one step the lowest.

    Args:
        courses: (layer, part) → its course.
    """
    found = []
    for (layer, part), course in courses.items():
        since = next((k for k in range(len(course), 0, -1) if course[k - 1][2] == HEALTHY), 0)
        if since == len(course):
            continue
        step, share, _ = course[since]
        before = course[since - 1][0] if since else None
        found.append(Fall(layer, part, step, before, share, course[-1][1], course[-1][2]))
    return sorted(found, key=lambda fall: (fall.step, fall.share))


@dataclass(frozen=True)
class Series:
    """Diagnoses of one network at several times.

    Attributes:
        diagnoses: step → what was found then, ascending.
    """

    diagnoses: Mapping[int, Diagnosis]

    @property
    def last(self) -> Diagnosis:
        """The newest."""
        return self.diagnoses[max(self.diagnoses)]

    @property
    def verdict(self) -> str:
        """Of the newest."""
        return self.last.verdict

    def fails(self, at: str) -> bool:
        """Whether the newest is as bad as that."""
        return self.last.fails(at)

    @property
    def courses(self) -> dict[tuple[str, str], list[tuple[int, float, str]]]:
        """(Layer, part) → step, share of the reference and verdict, ascending."""
        found: dict[tuple[str, str], list[tuple[int, float, str]]] = {}
        for step in sorted(self.diagnoses):
            for row in self.diagnoses[step].rows:
                found.setdefault((row.layer, row.part), []).append((step, row.share, row.verdict))
        return found

    @property
    def falls(self) -> list[Fall]:
        """The layers that end unhealthy, the first to fall first."""
        return falls_of(self.courses)

    @property
    def rows(self) -> list[tuple[int, str, str, float, float, str]]:
        """(Step, layer, part, effective rank, share of the reference, verdict)."""
        return [
            (step, row.layer, row.part, row.effective_rank, row.share, row.verdict)
            for step in sorted(self.diagnoses)
            for row in self.diagnoses[step].rows
        ]

    def to_pandas(self) -> pd.DataFrame:
        """``rows`` as a data frame.

        Raises:
            DiagnosisError: pandas is not installed.
        """
        try:
            import pandas as pd
        except ImportError:
            raise DiagnosisError("a data frame needs pandas, which is not installed: pip install pandas") from None
        return pd.DataFrame(self.rows, columns=_HEADS)

    def to_csv(self, path: str | Path) -> None:
        """Write ``rows``, a line each."""
        lines = [[None if isinstance(v, float) and not math.isfinite(v) else v for v in row] for row in self.rows]
        write_atomic(Path(path), csv_text([_HEADS, *lines]).encode())

    def to_json(self, path: str | Path) -> None:
        """Write falls and every step's numbers."""
        from sslcollapse.rank.diagnose.records import finite_only, to_json

        record = {
            "verdict": self.verdict,
            "falls": [finite_only(vars(fall)) for fall in self.falls],
            "steps": {str(step): to_json(self.diagnoses[step]) for step in sorted(self.diagnoses)},
        }
        write_atomic(Path(path), (json.dumps(record, indent=2) + "\n").encode())

    def to_html(self, path: str | Path) -> None:
        """Write one page that needs nothing beside it."""
        from sslcollapse.rank.diagnose.document import html_of_series

        write_atomic(Path(path), html_of_series(self).encode())

    def plot(self, path: str | Path | None = None) -> Any:
        """Ranks of weights, and outputs, as shares of their references: layers downwards, steps to the right."""
        from sslcollapse.rank.diagnose.picture import series_figure, write_figure

        figure = series_figure(self)
        return figure if path is None else write_figure(figure, Path(path))

    def __str__(self) -> str:
        from sslcollapse.rank.diagnose.report import text_of_series

        return text_of_series(self)


_HEADS = ["step", "layer", "part", "effective_rank", "share", "verdict"]


def step_of(name: str) -> int | None:
    """The last number in a file's name, such as that of step00000400.pt; None where there is none."""
    path = Path(name)
    numbers = re.findall(r"\d+", path.stem) or re.findall(r"\d+", path.parent.name)
    return int(numbers[-1]) if numbers else None


def steps_of(names: Sequence[str]) -> list[int]:
    """Steps of checkpoints by their names; their positions where a name has none, or two would have one."""
    steps = [step for name in names if (step := step_of(name)) is not None]
    return steps if len(set(steps)) == len(names) else list(range(len(names)))


_KEY = re.compile(r"rank/(?:layers/(.+)/(weight|output)|(representation))/effective_rank")


def recorded_falls(metrics: Path, diagnosis: Diagnosis) -> list[Fall] | None:
    """When layers of a run fell, by what it has recorded; None where it has recorded fewer than two steps.

    The reference of an output is what it was at the first recorded step, which is the untrained network's.
    """
    references = {layer.name: layer.weight.reference for layer in diagnosis.layers}
    attainable = {layer.name: layer.weight.rank.attainable for layer in diagnosis.layers}
    values: dict[tuple[str, str], list[tuple[int, float]]] = {}
    try:
        lines = metrics.read_bytes().split(b"\n")
    except OSError:
        return None
    for line in lines:
        try:
            record = json.loads(line)
            step = record.get("step")
            if not isinstance(step, int):
                continue
            for key, value in record.items():
                if (match := _KEY.fullmatch(key)) and isinstance(value, (int, float)):
                    place = (match[1] or match[3], match[2] or match[3])
                    values.setdefault(place, []).append((step, float(value)))
        except (ValueError, AttributeError, OverflowError, RecursionError):
            continue  # damaged, as the last line of a run that was killed is
    courses: dict[tuple[str, str], Course] = {}
    for (layer, part), course in values.items():
        course.sort()
        if len(course) < 2 or (part != "representation" and layer not in references):
            continue
        reference = references[layer] if part == "weight" else course[0][1]
        judge = weight_verdict if part == "weight" else _judge(attainable.get(layer, 0))
        courses[layer, part] = [(step, v / (reference or 1.0), judge(v, reference)) for step, v in course]
    return falls_of(courses) if courses else None


def _judge(attainable: int) -> Any:
    return lambda value, reference: output_verdict(value, reference, attainable)
