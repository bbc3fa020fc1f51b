"""Measures: numbers by task and by run, by hand; and every registered one keeps the contract."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from plastic_rl.errors import ConfigError, RunError
from plastic_rl.evaluation import AccuracyAfter, Lifetimes
from plastic_rl.evaluation.measures import (
    MEASURES,
    LifetimeMeasure,
    RunMeasure,
    StageScore,
    checked_measure,
    make_measure,
    measure_text,
)
from plastic_rl.evaluation.stage_scores import StageScores

OPTIONS: dict[str, dict[str, Any]] = {
    "trials": {"first": 2},
    "environment": {"of": "latency"},
    "accuracy": {"after": 6},
    "steps_to_reach": {"score": 3.0},
    "stage_score": {"tested": "A", "trained": "B"},
}
STEPS = Lifetimes(
    scores=np.array([[0.0, 0.0, 1.0, 1.0, 4.0, 6.0], [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]]),
    rewards=np.zeros((2, 6)),
    trial_ends=np.ones((2, 6), np.bool_),
    lengths=np.array([6, 6]),
    expected=True,
    lifetime_steps=6,
    steps_per_trial=1,
    measures={"latency": np.array([[np.nan, 2.0, np.nan, 4.0, np.nan, np.nan], [np.nan] * 6])},
)
TRIALS = Lifetimes(  # lifetimes of three and of one trial of two steps
    scores=np.array([[1.0, 0.0, 2.0, 0.0, 0.0, 6.0], [5.0, 0.0, np.nan, np.nan, np.nan, np.nan]]),
    rewards=np.zeros((2, 6)),
    trial_ends=np.array([[False, True] * 3, [False, True] + [False] * 4]),
    lengths=np.array([6, 2]),
    expected=True,
    lifetime_steps=None,
    steps_per_trial=2,
)
ACCURACY = AccuracyAfter((3, 6), np.array([[0.5, 0.75], [0.25, 1.0]]), np.zeros((2, 2)), np.zeros((2, 2)))
_PLACE = {"id": "plastic_rl/ReversalBandit-v0", "trials": 1, "same_task_each_trial": None, "wrappers": (), "tasks": 3}
_LEVELS = {"random": None, "limit_kind": "none", "limit": None}
STAGES = StageScores.model_validate(
    {
        "agent": "small",
        "split": "test",
        "stages": ("A", "B", "A again"),
        "column": (0, 1, 0),
        "tested": [{"name": name, "kwargs": {}, **_PLACE, **_LEVELS} for name in "AB"],
        "scores": ((1.0, 2.0), (9.0, 3.0), (4.0, 8.0), (7.0, 5.0)),
        "intervals": (((0.0, 9.0), (0.0, 9.0)),) * 4,
    }
)


def by_task(stated: Any, lived: Lifetimes) -> list[float]:
    measure = make_measure(checked_measure(stated))
    assert isinstance(measure, LifetimeMeasure)
    return [float(value) for value in measure.by_task(lived, ACCURACY)]


def test_measures_by_hand() -> None:
    assert by_task("score", STEPS) == [12.0, 21.0]
    assert by_task("late_score", STEPS) == [6.0, 6.0]  # a tenth of six steps is one
    assert by_task({"name": "late_score", "share": 0.5}, STEPS) == [pytest.approx(11 / 3), 5.0]
    assert by_task({"name": "trials", "first": 5}, STEPS) == [5.0, 5.5]
    assert by_task({"name": "trials", "first": 2, "last": 3}, STEPS) == [0.5, 2.5]
    assert by_task("adaptation", STEPS) == [6.0, 5.0]
    assert by_task({"name": "accuracy", "after": 6}, STEPS) == [0.75, 1.0]
    assert_array_equal(by_task({"name": "environment", "of": "latency"}, STEPS), [3.0, math.nan])


def test_trials_of_several_steps_count_as_one_and_a_lifetime_without_them_has_no_value() -> None:
    assert by_task("late_score", TRIALS) == [6.0, 5.0]
    assert by_task({"name": "late_score", "share": 0.6}, TRIALS) == [4.0, 5.0]
    assert_array_equal(by_task({"name": "trials", "first": 2}, TRIALS), [4.0, math.nan])


def test_steps_to_reach_a_score_on_valid(tmp_path: Path) -> None:
    rows = ["step,loss,valid/score", "100,1.0,", "200,,1.5", "300,,3.0", "400,,2.0", "500,,3.5"]
    (tmp_path / "metrics.csv").write_text("\n".join(rows) + "\n")

    def reading(score: float) -> tuple[float, bool]:
        measure = make_measure({"name": "steps_to_reach", "score": score})
        assert isinstance(measure, RunMeasure)
        return measure.of_run(tmp_path)

    assert reading(1.0) == (200.0, False)
    assert reading(3.0) == (300.0, False)
    assert reading(3.1) == (500.0, False)
    assert reading(4.0) == (500.0, True)
    (tmp_path / "metrics.csv").write_text("step,loss\n100,1.0\n")
    with pytest.raises(RunError, match="valid/score"):
        reading(1.0)


def test_scores_of_stages_are_those_of_the_matrix(tmp_path: Path) -> None:
    (tmp_path / "stages.json").write_bytes(STAGES.to_json())
    read = {
        (trained, tested): StageScore(trained=trained, tested=tested).of_run(tmp_path).value
        for trained in (None, "A", "B", "A again")
        for tested in ("A", "B", "A again")
    }
    assert (read["A", "A"], read["B", "A"], read["A again", "A"], read[None, "A"]) == (9.0, 4.0, 7.0, 7.0)
    assert (read["A", "B"], read["B", "B"], read[None, "B"]) == (STAGES.scores[1][1], 8.0, 5.0)
    assert all(read[trained, "A"] == read[trained, "A again"] for trained in (None, "A", "B", "A again"))
    assert StageScore().of_run(tmp_path).value == 6.0  # of A and B, A once
    assert StageScore(trained="B").of_run(tmp_path).value == 6.0
    with pytest.raises(RunError, match="unknown stage 'C'"):
        StageScore(tested="C").of_run(tmp_path)
    with pytest.raises(RunError, match="cannot read the scores of stages"):
        StageScore(tested="A").of_run(tmp_path / "nowhere")


@pytest.mark.parametrize("name", sorted(MEASURES))
def test_every_measure_has_a_help_and_one_number_for_each_task(name: str, tmp_path: Path) -> None:
    document = checked_measure({"name": name, **OPTIONS.get(name, {})})
    assert checked_measure(document) == document
    assert measure_text(document).startswith(name)
    assert MEASURES[name].__doc__
    measure = make_measure(document)
    if isinstance(measure, LifetimeMeasure):
        metadata = {"measures": {"latency": "steps"}, "accuracy_after": (3, 6)}
        assert measure.problem(metadata) is None
        values = measure.by_task(STEPS, ACCURACY)
        assert (values.shape, values.dtype) == ((2,), np.float64)
        assert_allclose(values, measure.by_task(STEPS, ACCURACY))
    else:
        assert isinstance(measure, RunMeasure)
        (tmp_path / "metrics.csv").write_text("step,valid/score\n10,5.0\n")
        (tmp_path / "stages.json").write_bytes(STAGES.to_json())
        assert measure.problem({"evaluation": {"valid_tasks": 1}, "stages": [{"name": "A"}, {"name": "B"}]}) is None
        value, censored = measure.of_run(tmp_path)
        assert (value, censored) == (10.0 if name == "steps_to_reach" else 4.0, False)


@pytest.mark.parametrize(
    ("stated", "message"),
    [
        ("scoer", "unknown measure 'scoer'. Did you mean 'score'"),
        ({"first": 2}, "a measure is a name, or a name with options"),
        ("trials", "trials.first: missing"),
        ({"name": "trials", "first": 4, "last": 3}, r"last must be 4 \(first\) or more, got 3"),
        ({"name": "late_score", "share": 0.0}, "late_score.share: must be greater than 0"),
        ({"name": "score", "share": 0.5}, "score.share: unknown key"),
    ],
)
def test_measures_that_are_none_are_refused(stated: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        checked_measure(stated)


def test_measures_that_an_environment_does_not_have_are_told() -> None:
    latency, accuracy = (
        make_measure(checked_measure({"name": name, **OPTIONS[name]})) for name in ("environment", "accuracy")
    )
    assert isinstance(latency, LifetimeMeasure)
    assert isinstance(accuracy, LifetimeMeasure)
    assert "Did you mean 'latencies'" in (latency.problem({"measures": {"latencies": ""}}) or "")
    assert (accuracy.problem({"accuracy_after": (500, 1000)}) or "").endswith("after 6 samples; valid: 500, 1000")
    assert (accuracy.problem({}) or "").endswith("its tasks are no data sets")
