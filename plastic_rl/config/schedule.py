"""A number that changes over the course of training."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import GetCoreSchemaHandler, ModelWrapValidatorHandler, model_serializer, model_validator
from pydantic_core.core_schema import CoreSchema, no_info_after_validator_function

from plastic_rl.config.base import ConfigModel


class Schedule(ConfigModel):
    """A number that goes linearly from `start` to `end` while training progresses.

    A bare number, in Python or in YAML, is a constant schedule.

    >>> rate = Schedule(start=1.0, end=0.0)
    >>> rate(1.0), rate(0.25)
    (1.0, 0.25)
    >>> Schedule.model_validate(5e-3)(0.5)
    0.005
    """

    kind: Literal["linear"] = "linear"
    """Shape of the schedule."""
    start: float
    """Value at the beginning of training."""
    end: float
    """Value at the end of training."""

    @model_validator(mode="wrap")
    @classmethod
    def _functions_are_schedules(cls, value: Any, handler: ModelWrapValidatorHandler[Self]) -> Any:
        # From Python, as stable-baselines3 has it; what checkpoints and configs hold is data.
        return value if callable(value) and not isinstance(value, Schedule) else handler(value)

    @model_validator(mode="before")
    @classmethod
    def _accept_number(cls, value: Any) -> Any:
        if isinstance(value, int | float) and not isinstance(value, bool):
            return {"start": value, "end": value}
        if not isinstance(value, Mapping | Schedule):
            raise ValueError(f"must be a number, or {{start: NUMBER, end: NUMBER}}, got {value!r}")
        return value

    @model_serializer(mode="plain")
    def _write_constant_as_number(self) -> float | dict[str, Any]:
        if self.start == self.end:
            return self.start
        return {"kind": self.kind, "start": self.start, "end": self.end}

    def __call__(self, progress_remaining: float) -> float:
        """Return the value at `progress_remaining`, which falls from 1 (beginning) to 0 (end)."""
        if self.start == self.end:
            return self.start
        return self.end + progress_remaining * (self.start - self.end)


if TYPE_CHECKING:
    Scheduled = float | Schedule | Callable[[float], float]
else:
    Scheduled = Schedule
"""An argument that is a number, a `Schedule`, or a function of the training progress that remains (1 to 0)."""


@dataclass(frozen=True)
class EndsWithin:
    """For `Annotated`: both ends of a schedule lie within a range."""

    low: float
    high: float = math.inf

    def __str__(self) -> str:
        return f"{self.low:g} or more" if self.high == math.inf else f"from {self.low:g} to {self.high:g}"

    def check(self, schedule: Callable[[float], float]) -> Callable[[float], float]:
        """Return the schedule, or raise `ValueError`."""
        for end in (schedule(1.0), schedule(0.0)):
            if not self.low <= end <= self.high:
                raise ValueError(f"must be {self}, got {end:g}")
        return schedule

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return no_info_after_validator_function(self.check, handler(source))
