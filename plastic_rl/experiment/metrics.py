"""Metrics on disk: one table for what the run computed, one for clock readings, so that runs compare byte for byte.

Both tables are CSV files whose first column is `step`. New columns are added at the right. On resume the tables are
cut back to what they held when the checkpoint was written.
"""

from __future__ import annotations

import csv
import io
import os
import time
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field
from stable_baselines3.common.logger import KVWriter, TensorBoardOutputFormat
from torch.utils.tensorboard import SummaryWriter
from typing_extensions import override

from plastic_rl.arrays import FloatArray
from plastic_rl.checkpoint import write_atomically
from plastic_rl.checkpoint.files import file_named
from plastic_rl.config import ConfigModel
from plastic_rl.errors import CheckpointError, RunError

CLOCK = "time/"
"""Keys that begin so are clock readings, or counters that `step` already tells."""
ELAPSED = "time/time_elapsed"
"""Seconds since training began or was resumed."""
CPU = "time/cpu"
"""Seconds of processor time since then, of this process alone."""


class TableState(ConfigModel):
    """How far a table reaches."""

    columns: list[str]
    rows: int = Field(ge=0, lt=2**62)


class MetricsState(ConfigModel):
    """How far both tables reach."""

    metrics: TableState
    timing: TableState


class Table:
    """A CSV file that grows by rows, and now and then by columns.

    It is made when the first row is written. `state` is what `state()` returned when the checkpoint was written: later
    rows and columns are cut off. None: the table begins empty.
    """

    def __init__(self, path: Path, state: TableState | None = None) -> None:
        self.path = path
        self.columns, self.rows = (["step"], 0) if state is None else (list(state.columns), state.rows)
        rows = self._read()
        if rows or path.exists():
            self._rewrite(rows)

    def _read(self) -> list[list[str]]:
        if self.rows == 0:
            return []
        try:
            # A killed process may have torn the last line in the middle of a character; it is cut off anyway.
            with self.path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
                rows = list(islice(csv.reader(file), 1, self.rows + 1))
        except (OSError, csv.Error) as error:
            raise CheckpointError(f"{self.path} is needed to go on, and cannot be read: {error}.") from None
        if len(rows) < self.rows or any(len(row) < len(self.columns) for row in rows):
            raise CheckpointError(f"{self.path} has fewer rows than when the checkpoint was written ({self.rows}).")
        return [row[: len(self.columns)] for row in rows]

    def _rewrite(self, rows: list[list[str]]) -> None:
        write_atomically(self.path, _lines([self.columns, *rows]).encode("utf-8"))

    def append(self, step: int, values: Mapping[str, float | int | str]) -> None:
        """Add one row; values of new names open new columns, empty in earlier rows."""
        new = [name for name in sorted(values) if name not in self.columns]
        if new:
            earlier = [[*row, *("" for _ in new)] for row in self._read()]
            self.columns += new
            self._rewrite(earlier)
        cells = {name: repr(value) if isinstance(value, float) else str(value) for name, value in values.items()}
        with file_named(self.path), self.path.open("a", newline="", encoding="utf-8") as file:
            file.write(_lines([[str(step), *(cells.get(name, "") for name in self.columns[1:])]]))
        self.rows += 1

    def state(self) -> TableState:
        """Wait until the disk has the rows, and return what is needed to cut back to here."""
        if self.path.exists():
            with self.path.open("rb") as file:
                os.fsync(file.fileno())
        return TableState(columns=list(self.columns), rows=self.rows)


def _lines(rows: list[list[str]]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows(rows)
    return buffer.getvalue()


class MetricsWriter(KVWriter):
    """A writer for stable-baselines3's logger: `metrics.csv`, and clock readings in `timing.csv`.

    Seconds are measured here: stable-baselines3 cuts them to whole ones, of which a short run has few.
    """

    def __init__(self, folder: Path, state: MetricsState | None = None) -> None:
        self.metrics = Table(folder / "metrics.csv", None if state is None else state.metrics)
        self.timing = Table(folder / "timing.csv", None if state is None else state.timing)
        self._began = time.monotonic()
        self._cpu_began = time.process_time()

    @override
    def write(self, key_values: dict[str, Any], key_excluded: dict[str, tuple[str, ...]], step: int = 0) -> None:
        plain = {
            key: _plain(value)
            for key, value in key_values.items()
            if isinstance(value, np.ScalarType) and not {"csv", "metrics"} & set(key_excluded.get(key) or ())
        }
        metrics = {key: value for key, value in plain.items() if not key.startswith(CLOCK)}
        timing = {key: value for key, value in plain.items() if key.startswith(CLOCK)}
        if metrics:
            self.metrics.append(step, metrics)
        if ELAPSED in timing:
            timing[ELAPSED] = round(time.monotonic() - self._began, 3)
            timing[CPU] = round(time.process_time() - self._cpu_began, 3)
        if timing:
            self.timing.append(step, timing)

    def state(self) -> MetricsState:
        """Return what is needed to cut both tables back to here."""
        return MetricsState(metrics=self.metrics.state(), timing=self.timing.state())

    @override
    def close(self) -> None:
        pass


def _plain(value: Any) -> float | int | str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool | np.bool_ | int | np.integer):
        return int(value)
    return float(value)


def clock(path: Path, column: str = ELAPSED) -> tuple[FloatArray, FloatArray]:
    """Steps and seconds of training up to each row of a run's clock readings, which begin anew where it was resumed.

    `column`: `ELAPSED`, or `CPU` for processor time.

    Raises:
        RunError: If it has none.
    """
    rows: list[tuple[str, str]] = []
    if path.is_file():
        with path.open(newline="", encoding="utf-8") as file:
            rows = [(row["step"], row[column]) for row in csv.DictReader(file) if row.get(column)]
    if not rows:
        raise RunError(f"{path} has no clock readings; set logging.interval to at most the number of updates.")
    steps, elapsed = np.array(rows, np.float64).T
    passed = np.diff(elapsed, prepend=0.0)
    return steps, np.where(passed < 0, elapsed, passed).cumsum()


class TensorBoardWriter(TensorBoardOutputFormat):
    """Stable-baselines3's TensorBoard writer, which on resume hides what was logged from `purge_step` on."""

    def __init__(self, folder: Path, purge_step: int) -> None:
        self.writer = SummaryWriter(log_dir=str(folder), purge_step=purge_step)
        self._is_closed = False
