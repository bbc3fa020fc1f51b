"""What a person sees while training: a live line on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from abc import abstractmethod
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Self, TextIO

from typing_extensions import override

if TYPE_CHECKING:
    from rich.table import Table

PLAIN_INTERVAL = 10.0
"""Seconds between plain lines."""
BAR = 12
"""Columns of the bar."""
GAP = "  "
"""Between two things that are said on one line."""


class Progress(AbstractContextManager["Progress"]):
    """Is told how far training is, and says it in words."""

    def __init__(self) -> None:
        self._done = self._total = self._first = 0
        self._unit = "steps"
        self._began = time.monotonic()

    def start(self, done: int, total: int, unit: str = "steps") -> None:
        """Training goes on from `done` of `total` units."""
        self._done, self._first, self._total, self._unit = done, done, total, unit
        self._began = time.monotonic()

    @abstractmethod
    def update(self, done: int, score: float | None, note: str = "") -> None:
        """Training has done `done` units."""

    @abstractmethod
    def say(self, line: str) -> None:
        """Show a line that stays."""

    def _parts(self, score: float | None, note: str) -> list[str]:
        rate = (self._done - self._first) / max(time.monotonic() - self._began, 1e-9)
        return [
            f"{self._done:>{len(f'{self._total:,}')},}/{self._total:,} {self._unit}",
            "score -" if score is None else f"score {score:.4g}",
            f"{rate:,.0f} {self._unit}/s" if rate >= 100 else f"{rate:.3g} {self._unit}/s",
            f"{duration_text((self._total - self._done) / rate if rate else None)} left",
            *([note] if note else []),
        ]


class PlainProgress(Progress):
    """A line every `interval` seconds, and one at the end: for logs. By default they go to standard error.

    `name`: before each line, where several trainings speak at the same time.
    """

    def __init__(self, stream: TextIO | None = None, interval: float = PLAIN_INTERVAL, name: str = "") -> None:
        super().__init__()
        self.name = name
        self.stream = sys.stderr if stream is None else stream
        self.interval = interval
        self._shown = self._began

    @override
    def __exit__(self, *error: object) -> None:
        pass

    @override
    def update(self, done: int, score: float | None, note: str = "") -> None:
        self._done = done
        now = time.monotonic()
        if now - max(self._began, self._shown) < self.interval and done < self._total:
            return
        self._shown = now
        self.say(GAP.join(self._parts(score, note)))

    @override
    def say(self, line: str) -> None:
        print(f"{self.name}: {line}" if self.name else line, file=self.stream, flush=True)


class RichProgress(Progress):
    """A live bar, and beside it what there is to say on as many lines as the terminal's width asks for."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.live import Live

        super().__init__()
        self._said: list[str] = []
        self._live = Live(console=Console(stderr=True), get_renderable=self._picture, refresh_per_second=10)

    @override
    def __enter__(self) -> Self:
        self._live.start()
        return self

    @override
    def __exit__(self, *error: object) -> None:
        self._live.stop()

    @override
    def start(self, done: int, total: int, unit: str = "steps") -> None:
        super().start(done, total, unit)
        self._said = self._parts(None, "")

    @override
    def update(self, done: int, score: float | None, note: str = "") -> None:
        self._done = done
        self._said = self._parts(score, note)

    @override
    def say(self, line: str) -> None:
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
