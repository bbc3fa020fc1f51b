"""What a person sees while training: a live line on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any, Protocol, Self, TextIO

PLAIN_INTERVAL = 10.0
"""Seconds between plain lines."""


class Progress(Protocol):
    """A context manager that is told how far training is."""

    def __enter__(self) -> Self:
        """Begin to show."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop showing."""

    def start(self, done: int, total: int, unit: str = "steps") -> None:
        """Training goes on from `done` of `total` units."""

    def update(self, done: int, score: float | None, note: str = "") -> None:
        """Training has done `done` units."""

    def say(self, line: str) -> None:
        """Show a line that stays."""


class PlainProgress:
    """A line every ten seconds, and one at the end: for logs.

    Args:
        stream: Where to; standard error by default.
        interval: Seconds between lines.
    """

    def __init__(self, stream: TextIO | None = None, interval: float = PLAIN_INTERVAL) -> None:
        self.stream = sys.stderr if stream is None else stream
        self.interval = interval
        self._total = self._first = 0
        self._unit = "steps"
        self._began = self._shown = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stream.flush()

    def start(self, done: int, total: int, unit: str = "steps") -> None:
        """See `Progress`."""
        self._first, self._total, self._unit = done, total, unit
        self._began = self._shown = time.monotonic()

    def update(self, done: int, score: float | None, note: str = "") -> None:
        """See `Progress`."""
        now = time.monotonic()
        if now - self._shown < self.interval and done < self._total:
            return
        self._shown = now
        rate = (done - self._first) / max(now - self._began, 1e-9)
        parts = [
            f"{done:>{len(f'{self._total:,}')},}/{self._total:,} {self._unit}",
            score_text(score),
            rate_text(rate, self._unit),
        ]
        parts.append(f"{duration_text((self._total - done) / rate if rate else None)} left")
        self.say("  ".join([*parts, *([note] if note else [])]))

    def say(self, line: str) -> None:
        """See `Progress`."""
        print(line, file=self.stream, flush=True)


class RichProgress:
    """One live line with a bar."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn

        self._progress = Progress(
            BarColumn(bar_width=12),
            TextColumn("{task.completed:,.0f}/{task.total:,.0f} {task.fields[unit]}"),
            TextColumn("[bold cyan]{task.fields[score]}"),
            TextColumn("{task.fields[rate]}"),
            TextColumn("{task.fields[left]} left"),
            TextColumn("[dim]{task.fields[note]}"),
            console=Console(stderr=True),
        )
        self._task: Any = None
        self._first = 0
        self._began = time.monotonic()

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._progress.stop()

    def start(self, done: int, total: int, unit: str = "steps") -> None:
        """See `Progress`."""
        self._first, self._began = done, time.monotonic()
        self._task = self._progress.add_task(
            "", total=total, completed=done, score=score_text(None), rate="", left="?", note="", unit=unit
        )

    def update(self, done: int, score: float | None, note: str = "") -> None:
        """See `Progress`."""
        task = self._progress.tasks[self._task]
        rate = (done - self._first) / max(time.monotonic() - self._began, 1e-9)
        remaining = (task.total or 0) - done
        self._progress.update(
            self._task,
            completed=done,
            score=score_text(score),
            rate=rate_text(rate, task.fields["unit"]),
            left=duration_text(remaining / rate if rate else None),
            note=note,
        )

    def say(self, line: str) -> None:
        """See `Progress`."""
        self._progress.console.print(line, markup=False, highlight=False)


def make_progress() -> Progress:
    """Return the live line where standard error is a terminal, else plain lines."""
    return RichProgress() if sys.stderr.isatty() else PlainProgress()


def score_text(score: float | None) -> str:
    """Format a score.

    >>> score_text(72.3456), score_text(None)
    ('score 72.35', 'score -')
    """
    return "score -" if score is None else f"score {score:.4g}"


def rate_text(rate: float, unit: str) -> str:
    """Format how many units are done in a second.

    >>> rate_text(12345.6, "steps"), rate_text(2.345, "generations")
    ('12,346 steps/s', '2.35 generations/s')
    """
    return f"{rate:,.0f} {unit}/s" if rate >= 100 else f"{rate:.3g} {unit}/s"


def duration_text(seconds: float | None) -> str:
    """Format a duration as minutes and seconds, with hours where there are any.

    >>> duration_text(75), duration_text(3671), duration_text(None)
    ('1:15', '1:01:11', '?')
    """
    if seconds is None:
        return "?"
    minutes, rest = divmod(round(max(seconds, 0)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
