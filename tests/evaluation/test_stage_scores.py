"""The matrix of scores over stages: transfer by hand, tables that fit, pictures, and files that are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from plastic_rl.errors import RunError
from plastic_rl.evaluation.stage_scores import StageScores, plot_stages, pooled, transfers

MATRIX = [[5.0, 6.0], [9.0, 7.0], [4.0, 12.0], [8.0, 10.0]]


def scores_of(matrix: list[list[float]], column: tuple[int, ...]) -> StageScores:
    names = ("A", "B", "a stage with quite a long name")[: len(column)]
    tested = [
        {
            "name": names[column.index(place)],
            "id": "plastic_rl/ReversalBandit-v0",
            "kwargs": {"steps": 10, "hazard": 0.1 * place},
            "trials": 1,
            "same_task_each_trial": None,
            "wrappers": (),
            "tasks": 20,
            "random": 5.0,
            "limit_kind": "bayes" if place == 0 else "none",
            "limit": 13.0 if place == 0 else None,
        }
        for place in range(len(matrix[0]))
    ]
    given: dict[str, Any] = {
        "agent": "mine",
        "split": "test",
        "stages": names,
        "column": column,
        "tested": tested,
        "scores": matrix,
        "intervals": [[(score - 0.5, score + 0.25) for score in row] for row in matrix],
    }
    return StageScores.model_validate(given)


def test_transfer_and_forgetting_of_a_b_a_by_hand() -> None:
    """Rows: untrained, after A, after B, after A again; columns: A, B.

    Backward: ((A: 8 - 9) + (B: 10 - 12)) / 2. Forward: ((B: 7 - 6) + (A again: 4 - 5)) / 2. Forgetting: ((A over B:
    9 - 4) + (B over A again: 12 - 10)) / 2.
    """
    found = scores_of(MATRIX, (0, 1, 0))
    assert (found.backward_transfer, found.forward_transfer, found.forgetting) == (-1.5, 0.0, 3.5)


@given(st.lists(st.lists(st.floats(-100, 100), min_size=3, max_size=3), min_size=4, max_size=4))
def test_transfers_are_those_of_the_definition(rows: list[list[float]]) -> None:
    """Lopez-Paz & Ranzato 2017, with their R (T, T) and b (T,)."""
    table = np.array(rows)
    R, b, T = table[1:], table[0], 3
    found = transfers(table, [0, 1, 2])
    assert found["backward_transfer"] == pytest.approx(sum(R[T - 1, i] - R[i, i] for i in range(T - 1)) / (T - 1))
    assert found["forward_transfer"] == pytest.approx(sum(R[i - 1, i] - b[i] for i in range(1, T)) / (T - 1))
    assert found["forgetting"] == pytest.approx(sum(R[i, i] - R[i + 1, i] for i in range(T - 1)) / (T - 1))


def test_stages_that_differ_in_their_trials_alone_are_told_apart() -> None:
    one = scores_of(MATRIX, (0, 1, 0)).tested[0]
    other = one.model_copy(update={"trials": 3, "same_task_each_trial": True})
    assert one.title == "plastic_rl/ReversalBandit-v0 (steps=10, hazard=0.0)"
    assert other.title == "plastic_rl/ReversalBandit-v0 (steps=10, hazard=0.0, trials=3, same_task_each_trial=True)"


def test_a_single_stage_has_no_transfer() -> None:
    found = scores_of([[5.0], [9.0]], (0,))
    assert (found.backward_transfer, found.forward_transfer, found.forgetting) == (None, None, None)
    assert "transfer" not in found.table()


@pytest.mark.parametrize("width", [50, 60, 80, 200])
def test_the_table_holds_every_score_at_any_width(width: int) -> None:
    table = scores_of(MATRIX, (0, 1, 0)).table(width)
    lines = table.splitlines()
    assert max(map(len, lines)) <= width
    for row in MATRIX:
        for score in row:
            assert f"{score:.2f} [{score - 0.5:.2f}, {score + 0.25:.2f}]" in table
    assert "backward transfer -1.50" in table
    assert {line.split()[0] for line in lines if line.startswith(("random", "limit"))} == {"random", "limit"}
    assert "13.00" in table


def test_scores_are_written_and_read(tmp_path: Path) -> None:
    file, found = tmp_path / "stages.json", scores_of(MATRIX, (0, 1, 0))
    file.write_bytes(found.to_json())
    assert StageScores.load(file) == found
    assert json.loads(file.read_text())["backward_transfer"] == -1.5
    for content, message in ((b"{}", "holds no scores of stages"), (b"{", "holds no scores of stages")):
        file.write_bytes(content)
        with pytest.raises(RunError, match=message):
            StageScores.load(file)
    with pytest.raises(RunError, match="cannot read the scores of stages"):
        StageScores.load(tmp_path / "nothing.json")
    with pytest.raises(ValueError, match="scores must have 4 rows and 2 columns"):
        scores_of(MATRIX[:3], (0, 1, 0))
    with pytest.raises(ValueError, match="column must tell one of 2 columns for each of 3 stages"):
        StageScores.model_validate({**found.model_dump(), "column": (0, 1, 2)})


def test_seeds_are_pooled_with_student_t_intervals() -> None:
    """Scores 8 and 10 in two runs: mean 9, and 12.706 standard errors of 1 to either side."""
    other = [[score + 2.0 for score in row] for row in MATRIX]
    other[3][0] = MATRIX[3][0]
    found = pooled([scores_of(MATRIX, (0, 1, 0)), scores_of(other, (0, 1, 0))])
    assert found.seeds == 2
    assert found.scores[1] == (10.0, 8.0)
    low, high = found.intervals[1][0]
    assert (low, high) == (pytest.approx(10 - 12.706, abs=1e-3), pytest.approx(10 + 12.706, abs=1e-3))
    assert found.backward_transfer == pytest.approx((-1.5 - 2.5) / 2)
    assert found.transfer_intervals["backward_transfer"][0] == pytest.approx(-2 - 12.706 * 0.5, abs=1e-3)
    assert "backward transfer -2.00 [-8.35, 4.35]" in found.table()
    assert "2 seeds (Student t)" in found.table()


def test_the_heat_map_is_darker_where_scores_are_higher(tmp_path: Path) -> None:
    path = plot_stages(scores_of(MATRIX, (0, 1, 0)), tmp_path / "stages.png")
    image = matplotlib.image.imread(path)[:, :, :3]
    assert image.shape[0] > 500
    frame = np.abs(image - np.array([0xD5, 0x5E, 0x00]) / 255).max(2) < 0.02
    rows, columns = np.nonzero(frame)
    # Frames of the first column reach from its top row's to its bottom row's; the colours beside the numbers.
    left, right = columns.min(), columns.max()
    top, bottom = rows.min(), rows.max()
    height = (bottom - top) / 3
    shades = [image[int(top + height * (place + 0.5)), left + 12].mean() for place in range(3)]
    assert shades[0] < shades[2] < shades[1]  # 9, 4 and 8, after A, B and A again
    assert right > left + 300
