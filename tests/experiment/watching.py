"""Progress of training that no one sees, and one that presses Ctrl-C."""

from __future__ import annotations

import io
import signal

from plastic_rl.experiment.progress import PlainProgress


def quiet() -> PlainProgress:
    return PlainProgress(io.StringIO(), interval=0.0)


class Pressing(PlainProgress):
    """Presses Ctrl-C when training has done `at` of its units."""

    def __init__(self, at: int) -> None:
        super().__init__(io.StringIO())
        self.at = at

    def update(self, done: int, score: float | None, note: str = "") -> None:
        if done == self.at:
            self.at = -1
            signal.raise_signal(signal.SIGINT)
