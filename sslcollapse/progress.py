"""What a run shows while it trains: a live bar in a terminal, plain lines elsewhere, both kept in a log."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from sslcollapse.texts import printable


class PlainConsole(Console):
    """A terminal on which text is shown as it is.

    Square brackets and words between colons are no markup, and control characters, which a terminal would obey, are
    written as escapes: text holds paths, names and values that somebody chose.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """Text, also of a table's cell or title, ready to be shown."""
        return super().render_str(printable(text, keep="\n"), **options)


class Reporter:
    """Terminal output of one run; silent on all ranks but the first.

    Args:
        enabled: whether this process shows anything.
        sink: receives the plain text of every printed line (the run's log), or None.
    """

    def __init__(self, enabled: bool, sink: Callable[[str], None] | None = None) -> None:
        self.enabled = enabled
        self.sink = sink
        self.console = PlainConsole(quiet=not enabled, soft_wrap=True)
        self._progress: Progress | None = None

    def print(self, renderable: Any) -> None:
        """Show text or a table, and keep it in the log."""
        if not self.enabled:
            return
        self.console.print(renderable)
        if self.sink is not None:
            plain = PlainConsole(width=120, no_color=True, soft_wrap=True)
            with plain.capture() as capture:
                plain.print(renderable)
            self.sink(capture.get())

    def start(self, step: int, total: int) -> None:
        """Begin to show progress from ``step`` of ``total``."""
        self._first, self._total, self._began = step, total, time.perf_counter()
        self._next_line = self._began + 5.0
        if self.enabled and self.console.is_terminal:
            self._progress = Progress(
                TextColumn("[bold]train"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("loss {task.fields[loss]}  rank {task.fields[rank]}  {task.fields[rate]} steps/s"),
                TimeRemainingColumn(),
                console=self.console,
            )
            self._progress.start()
            self._task = self._progress.add_task("", total=total, completed=step, loss="-", rank="-", rate="-")

    def update(self, step: int, loss: float, rank: float | None) -> None:
        """Show the state after ``step`` completed steps; a plain line at most every ten seconds."""
        if not self.enabled:
            return
        now = time.perf_counter()
        rate = (step - self._first) / max(now - self._began, 1e-9)
        shown = {"loss": f"{loss:.4f}", "rank": "-" if rank is None else f"{rank:.1f}", "rate": f"{rate:.1f}"}
        if self._progress is not None:
            fields: dict[str, Any] = shown
            self._progress.update(self._task, completed=step, **fields)
        elif now >= self._next_line or step == self._total:
            self._next_line = now + 10.0
            left = (self._total - step) / max(rate, 1e-9)
            self.print(
                f"step {step}/{self._total}  loss {shown['loss']}  rank {shown['rank']}  "
                f"{shown['rate']} steps/s  {_clock(left)} left"
            )

    def stop(self) -> None:
        """Take the bar away."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
