"""Tables of metrics: rows and columns grow, and are cut back exactly to where a checkpoint was written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stable_baselines3.common.logger import Logger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from plastic_rl.errors import CheckpointError
from plastic_rl.experiment.metrics import MetricsWriter, Table, TensorBoardWriter


def test_clock_readings_have_a_table_of_their_own(tmp_path: Path) -> None:
    logger = Logger(str(tmp_path), [MetricsWriter(tmp_path)])
    logger.record("train/loss", np.float32(0.5))
    logger.record("time/fps", 1234)
    logger.record("train/n_updates", 1, exclude="tensorboard")
    logger.dump(64)
    logger.record("rollout/score", 0.1 + 0.2)
    logger.record("note", "one, two")
    logger.dump(128)
    assert (tmp_path / "metrics.csv").read_text() == (
        "step,train/loss,train/n_updates,note,rollout/score\n"
        "64,0.5,1,,\n"
        '128,,,"one, two",0.30000000000000004\n'
    )  # fmt: skip
    assert (tmp_path / "timing.csv").read_text() == "step,time/fps\n64,1234\n"


def test_seconds_are_not_cut_to_whole_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, processor = iter([100.0, 102.3456, 107.0]), iter([7.0, 7.5, 8.25])
    monkeypatch.setattr("time.monotonic", lambda: next(clock))
    monkeypatch.setattr("time.process_time", lambda: next(processor))
    logger = Logger(str(tmp_path), [MetricsWriter(tmp_path)])
    for step, seconds in ((1, 2), (2, 7)):
        logger.record("time/time_elapsed", seconds)
        logger.dump(step)
    assert (tmp_path / "timing.csv").read_text() == "step,time/cpu,time/time_elapsed\n1,0.5,2.346\n2,1.25,7.0\n"


def test_no_rows_no_file(tmp_path: Path) -> None:
    MetricsWriter(tmp_path)
    assert list(tmp_path.iterdir()) == []


names = st.sampled_from(["a", "b", "c", "time/x"])
records = st.lists(st.dictionaries(names, st.floats(allow_nan=False) | st.integers(), min_size=1), max_size=8)


@settings(deadline=None, max_examples=40)
@given(records, records, st.integers(0, 8), st.binary(max_size=8))
def test_going_on_from_a_checkpoint_gives_the_same_bytes(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[dict[str, float]],
    lost: list[dict[str, float]],
    at: int,
    torn: bytes,
) -> None:
    whole, broken = tmp_path_factory.mktemp("whole"), tmp_path_factory.mktemp("broken")
    writer = MetricsWriter(whole)
    for step, row in enumerate(rows):
        writer.write(row, {}, step)
    # The other process writes a checkpoint, goes on in some way, and is killed in the middle of a line.
    writer = MetricsWriter(broken)
    for step, row in enumerate(rows[:at]):
        writer.write(row, {}, step)
    state = writer.state()
    for step, row in enumerate(lost):
        writer.write(row, {}, 1000 + step)
    with (broken / "metrics.csv").open("ab") as file:
        file.write(torn.replace(b"\r", b"").replace(b"\n", b""))
    writer = MetricsWriter(broken, state)
    for step, row in enumerate(rows[at:], start=len(rows[:at])):
        writer.write(row, {}, step)
    for name in ("metrics.csv", "timing.csv"):
        contents = [(folder / name).read_bytes() if (folder / name).exists() else b"" for folder in (whole, broken)]
        assert contents[0] == contents[1] or contents == [b"", b"step\n"]


def test_a_table_that_lost_rows_is_refused(tmp_path: Path) -> None:
    table = Table(tmp_path / "metrics.csv")
    table.append(1, {"a": 1.0})
    table.append(2, {"a": 2.0})
    state = table.state()
    (tmp_path / "metrics.csv").write_text("step,a\n1,1.0\n")
    with pytest.raises(CheckpointError, match=r"metrics.csv has fewer rows than when the checkpoint was written \(2\)"):
        Table(tmp_path / "metrics.csv", state)
    (tmp_path / "metrics.csv").unlink()
    with pytest.raises(CheckpointError, match=r"metrics.csv is needed to go on"):
        Table(tmp_path / "metrics.csv", state)


def test_tensorboard_hides_what_came_after_the_checkpoint(tmp_path: Path) -> None:
    def write(purge: int, points: dict[int, float]) -> None:
        writer = TensorBoardWriter(tmp_path, purge)
        for step, value in points.items():
            writer.write({"score": value}, {"score": ("",)}, step)
        writer.close()

    write(0, {10: 1.0, 20: 2.0, 30: 99.0})
    write(21, {30: 3.0, 40: 4.0})
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("score")] == [(10, 1), (20, 2), (30, 3), (40, 4)]
