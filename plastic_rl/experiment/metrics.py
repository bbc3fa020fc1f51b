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
from stable_baselines3.common.logger import KVWriter, TensorBoardOutputFormat
from torch.utils.tensorboard import SummaryWriter

from plastic_rl.checkpoint import write_atomically
from plastic_rl.checkpoint.files import file_named
from plastic_rl.errors import CheckpointError

CLOCK = "time/"
"""Keys that begin so are clock readings, or counters that `step` already tells."""
ELAPSED = "time/time_elapsed"
"""Seconds since training began or was resumed."""


class Table:
    """A CSV file that grows by rows, and now and then by columns.

    Args:
        path: The file; made when the first row is written.
        state: What `state()` returned when the checkpoint was written: later rows and columns are cut off. None: the
            table begins empty.
    """

    def __init__(self, path: Path, state: Mapping[str, Any] | None = None) -> None:
        self.path = path
        self.columns = ["step"]
        self.rows = 0
        if state is not None:
            self.columns, self.rows = list(state["columns"]), int(state["rows"])
        self._rewrite(self._read())

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
        if rows or self.path.exists():
            write_atomically(self.path, _lines([self.columns, *rows]).encode("utf-8"))

    def append(self, step: int, values: Mapping[str, float | int | str]) -> None:
        """Add one row; values of new names open new columns, empty in earlier rows."""
        new = [name for name in sorted(values) if name not in self.columns]
        if new:
            earlier = [[*row, *("" for _ in new)] for row in self._read()]
            self.columns += new
            self._rewrite(earlier)
            if not earlier:
                write_atomically(self.path, _lines([self.columns]).encode("utf-8"))
        cells = {name: repr(value) if isinstance(value, float) else str(value) for name, value in values.items()}
        with file_named(self.path), self.path.open("a", newline="", encoding="utf-8") as file:
            file.write(_lines([[str(step), *(cells.get(name, "") for name in self.columns[1:])]]))
        self.rows += 1

    def state(self) -> dict[str, Any]:
        """Wait until the disk has the rows, and return what is needed to cut back to here."""
        if self.path.exists():
            with self.path.open("rb") as file:
                os.fsync(file.fileno())
        return {"columns": list(self.columns), "rows": self.rows}


def _lines(rows: list[list[str]]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows(rows)
    return buffer.getvalue()


class MetricsWriter(KVWriter):
    """A writer for stable-baselines3's logger: `metrics.csv`, and clock readings in `timing.csv`.

    Seconds are measured here: stable-baselines3 cuts them to whole ones, of which a short run has few.

    Args:
        folder: The run folder.
        state: As from `state()`, to go on; None to begin.
    """

    def __init__(self, folder: Path, state: Mapping[str, Any] | None = None) -> None:
        self.metrics = Table(folder / "metrics.csv", None if state is None else state["metrics"])
        self.timing = Table(folder / "timing.csv", None if state is None else state["timing"])
        self._began = time.monotonic()

    def write(self, key_values: dict[str, Any], key_excluded: dict[str, tuple[str, ...]], step: int = 0) -> None:
        """Add a row to each table that there are values for."""
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
        if timing:
            self.timing.append(step, timing)

    def state(self) -> dict[str, Any]:
        """Return what is needed to cut both tables back to here."""
        return {"metrics": self.metrics.state(), "timing": self.timing.state()}

    def close(self) -> None:
        """Nothing is held open."""


def _plain(value: Any) -> float | int | str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool | np.bool_ | int | np.integer):
        return int(value)
    return float(value)


class TensorBoardWriter(TensorBoardOutputFormat):
    """Stable-baselines3's TensorBoard writer, which on resume hides what was logged after the checkpoint.

    Args:
        folder: Where the event files go.
        purge_step: First step whose earlier records are void; 0 to begin.
    """

    def __init__(self, folder: Path, purge_step: int) -> None:
        self.writer = SummaryWriter(log_dir=str(folder), purge_step=purge_step)
        self._is_closed = False
