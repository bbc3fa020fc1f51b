"""Schedules: linear in the progress that remains; a bare number is constant."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from plastic_rl.config import Schedule


def test_linear_schedules_hit_both_ends_exactly() -> None:
    schedule = Schedule(start=5e-3, end=1e-4)
    assert schedule(1.0) == pytest.approx(5e-3)
    assert schedule(0.0) == 1e-4
    assert schedule(0.5) == pytest.approx(2.55e-3)


def test_a_bare_number_is_constant_and_written_as_a_number() -> None:
    schedule = Schedule.model_validate(0.3)
    assert [schedule(progress) for progress in (1.0, 0.7, 0.0)] == [0.3, 0.3, 0.3]
    assert schedule.model_dump() == 0.3
    assert Schedule(start=1, end=0).model_dump() == {"kind": "linear", "start": 1.0, "end": 0.0}


@pytest.mark.parametrize("value", [True, "0.3", {"start": 1}, {"start": 1, "end": float("inf")}, None])
def test_what_is_no_schedule_is_refused(value: object) -> None:
    with pytest.raises(ValidationError):
        Schedule.model_validate(value)


def test_what_is_valid_is_said() -> None:
    with pytest.raises(ValidationError, match=r"must be a number, or \{start: NUMBER, end: NUMBER\}, got 'nan'"):
        Schedule.model_validate("nan")
