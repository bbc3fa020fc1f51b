"""What a person sees while training: a live line on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self, TextIO

if TYPE_CHECKING:
    from rich.table import Table

PLAIN_INTERVAL = 10.0
"""Seconds between plain lines."""
BAR = 12
"""Columns of the bar."""
GAP = "  "
"""Between two things that are said on one line."""


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


class _Progress:
    """How far training is, since when and how fast, in words."""

    def __init__(self) -> None:
        self._done = self._total = self._first = 0
        self._unit = "steps"
        self._began = time.monotonic()

    def start(self, done: int, total: int, unit: str = "steps") -> None:
        """See `Progress`."""
        self._done, self._first, self._total, self._unit = done, done, total, unit
        self._began = time.monotonic()

    def _parts(self, score: float | None, note: str) -> list[str]:
        rate = (self._done - self._first) / max(time.monotonic() - self._began, 1e-9)
        return [
            f"{self._done:>{len(f'{self._total:,}')},}/{self._total:,} {self._unit}",
            score_text(score),
            rate_text(rate, self._unit),
            f"{duration_text((self._total - self._done) / rate if rate else None)} left",
            *([note] if note else []),
        ]


class PlainProgress(_Progress):
    """A line every ten seconds, and one at the end: for logs.

    Args:
        stream: Where to; standard error by default.
        interval: Seconds between lines.
    """

    def __init__(self, stream: TextIO | None = None, interval: float = PLAIN_INTERVAL) -> None:
        super().__init__()
        self.stream = sys.stderr if stream is None else stream
        self.interval = interval
        self._shown = self._began

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stream.flush()

    def start(self, done: int, total: int, unit: str = "steps") -> None:
        """See `Progress`."""
        super().start(done, total, unit)
        self._shown = self._began

    def update(self, done: int, score: float | None, note: str = "") -> None:
        """See `Progress`."""
        self._done = done
        now = time.monotonic()
        if now - self._shown < self.interval and done < self._total:
            return
        self._shown = now
        self.say(GAP.join(self._parts(score, note)))

    def say(self, line: str) -> None:
        """See `Progress`."""
        print(line, file=self.stream, flush=True)


class RichProgress(_Progress):
    """A live bar, and beside it what there is to say on as many lines as the terminal's width asks for."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.live import Live

        super().__init__()
        self._said: list[str] = []
        self._live = Live(console=Console(stderr=True), get_renderable=self._picture, refresh_per_second=10)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._live.stop()

    def start(self, done: int, total: int, unit: str = "steps") -> None:
        """See `Progress`."""
        super().start(done, total, unit)
        self._said = self._parts(None, "")

    def update(self, done: int, score: float | None, note: str = "") -> None:
        """See `Progress`."""
        self._done = done
        self._said = self._parts(score, note)

    def say(self, line: str) -> None:
        """See `Progress`."""
        self._live.console.print(line, markup=False, highlight=False)

    def _picture(self) -> Table:
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        lines: list[str] = []
        for part in self._said:
            if lines and len(lines[-1] + GAP + part) <= self._live.console.width - BAR - len(GAP):
                lines[-1] += GAP + part
            else:
                lines.append(part)
        text = Text("\n".join(lines), overflow="fold")
        text.highlight_regex(r"score \S+", "bold cyan")
        grid = Table.grid(padding=(0, len(GAP), 0, 0), pad_edge=False)
        grid.add_row(ProgressBar(max(self._total, 1), self._done, width=BAR), text)
        return grid


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
