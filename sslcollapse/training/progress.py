"""What a run shows while it trains: a live bar in a terminal, plain lines elsewhere, both kept in a log."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from sslcollapse.core.console import PlainConsole, Text
from sslcollapse.core.texts import printable


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
        self._progress: Any = None

    def print(self, renderable: Any) -> None:
        """Show text or a table, and keep it in the log."""
        if not self.enabled:
            return
        try:
            self.console.print(renderable)
        except (OSError, ValueError, SystemExit):  # its terminal, pipe or disk is gone; rich exits for a broken pipe
            self.console = PlainConsole(quiet=True)
        if self.sink is not None:
            plain = PlainConsole(width=120, no_color=True, soft_wrap=True)
            with plain.capture() as capture:
                plain.print(renderable)
            self.sink(capture.get())

    def warn(self, text: str) -> None:
        """Show a warning, and keep it in the log."""
        self.print(Text.assemble(("warning", "yellow"), printable(f" {text}")))

    def start(self, step: int, total: int) -> None:
        """Begin to show progress from ``step`` of ``total``."""
        self._first, self._total, self._began = step, total, time.perf_counter()
        self._next_line = self._began + 5.0
        if self.enabled and self.console.is_terminal:  # rich's, which is there then
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

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

    def update(self, step: int, loss: float, rank: tuple[int, float] | None) -> None:
        """Show the state after ``step`` completed steps; a plain line at most every ten seconds.

        Args:
            step: completed steps.
            loss: of the last one.
            rank: the newest measured one, after the step at which it was measured.
        """
        if not self.enabled:
            return
        now = time.perf_counter()
        rate = (step - self._first) / max(now - self._began, 1e-9)
        shown = {"loss": f"{loss:.4f}", "rank": "-", "rate": f"{rate:.1f}"}
        if rank is not None:
            shown["rank"] = f"{rank[1]:.1f}" + ("" if rank[0] == step else f" (at step {rank[0]})")
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

    @contextmanager
    def stage(self, title: str, total: int) -> Iterator[Callable[[str], None]]:
        """Say what comes, then how much of it is done and about how long the rest takes.

        The function that is given counts one of ``total`` parts as done, and is told its name. Without a terminal a
        line is shown at most every ten seconds, and none for what takes less.
        """
        if not self.enabled or not total:
            yield lambda name: None
            return
        self.print(title)
        done, began = 0, time.perf_counter()
        next_line = began

        def advance(name: str) -> None:
            nonlocal done, next_line
            done += 1
            now = time.perf_counter()
            left = (now - began) / done * (total - done)
            if bar is not None:
                bar.update(task, completed=done, name=name)
            elif now >= next_line and left >= 10.0:
                next_line = now + 10.0
                self.print(f"{done} of {total} done ({name}), about {_clock(left)} left")

        bar: Any = None
        if self.console.is_terminal:
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            columns = BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[name]}"), TimeRemainingColumn()
            bar = Progress(*columns, console=self.console, transient=True)
            task = bar.add_task("", total=total, name="")
            bar.start()
        try:
            yield advance
        finally:
            if bar is not None:
                bar.stop()

    def stop(self) -> None:
        """Take the bar away."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
