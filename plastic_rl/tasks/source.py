"""Which task a row of a vector environment takes for its k-th lifetime."""

from __future__ import annotations

from plastic_rl.errors import TaskError, UnknownNameError
from plastic_rl.tasks.base import Task, TaskDistribution

TASKS_OF_A_RUN = 10**9
"""Tasks that a run may train on before it meets those of the run with the next seed."""


def first_task(seed: int) -> int:
    """Index of the first task that a run with `seed` trains on, so that runs with other seeds meet other tasks.

    >>> first_task(0), first_task(2)
    (0, 2000000000)
    """
    return seed * TASKS_OF_A_RUN


class TaskSource:
    """Deals the tasks `start` to `stop - 1` of a split out to `num_envs` rows.

    Row i takes, for its k-th lifetime, index `start + i + k * num_envs`, wrapping at `stop`.

    Args:
        distribution: Where the tasks come from.
        split: Which of its splits.
        start: First index, 0 or more.
        stop: One past the last index, or None to go on for ever.
        num_envs: Number of rows.

    Raises:
        UnknownNameError: If the distribution has no such split.
        TaskError: If the range is empty or negative.
    """

    def __init__(self, distribution: TaskDistribution, split: str, start: int, stop: int | None, num_envs: int) -> None:
        if split not in distribution.splits:
            raise UnknownNameError(f"split of {distribution.family}", split, distribution.splits)
        if start < 0 or (stop is not None and stop <= start):
            raise TaskError(f"tasks {start} to {stop} are no range: start must be 0 or more, stop larger (or None)")
        self.distribution = distribution
        self.split = split
        self.start = start
        self.stop = stop
        self.num_envs = num_envs

    def index(self, row: int, lifetime: int) -> int:
        """Index of the task of `row` in its lifetime number `lifetime` (from 0)."""
        offset = row + lifetime * self.num_envs
        return self.start + (offset if self.stop is None else offset % (self.stop - self.start))

    def task(self, row: int, lifetime: int) -> Task:
        """The task itself."""
        return self.distribution.task(self.split, self.index(row, lifetime))
