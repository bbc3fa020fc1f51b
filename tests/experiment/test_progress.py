"""What a person sees while training: no value is cut, however narrow the terminal."""

from __future__ import annotations

import io
import re
import sys

import pytest

from plastic_rl.experiment.progress import PlainProgress, make_progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("columns", [60, 80, 140])
@pytest.mark.parametrize(("total", "unit"), [(123_456_789, "steps"), (2_000, "generations")])
def test_every_value_is_whole_in_a_terminal(
    columns: int, total: int, unit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("TERM", "xterm")
    with make_progress() as progress:
        progress.start(0, total, unit)
        progress.update(total, -1234.5, "best on valid 1234")
        progress.say("a line that stays")
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", terminal.getvalue())
    lines = re.split(r"[\r\n]+", shown)
    assert max(map(len, lines)) <= columns
    assert "\u2026" not in shown
    for value in (f"{total:,}/{total:,} {unit}", "score -1234", f" {unit}/s", "0:00 left", "best on valid 1234"):
        assert value in shown
    assert "a line that stays" in [line.strip() for line in lines]
    last = shown[shown.rindex("\u2501  ") :]
    assert (len(last.strip().splitlines()) == 1) == (columns == 140)


def test_a_log_has_whole_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    stream = io.StringIO()
    with PlainProgress(stream, interval=1e9) as progress:
        progress.start(0, 5000)
        progress.update(40, 1.5)
        progress.update(5000, 2.5, "best on valid 2.25")
    assert re.fullmatch(
        r"5,000/5,000 steps  score 2\.5  [\d,]+ steps/s  0:00 left  best on valid 2\.25\n", stream.getvalue()
    )
