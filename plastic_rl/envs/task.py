"""What a task is, and how a distribution of tasks is sampled.

A `Task` is one setting of a family of environments (the arm probabilities of one bandit, the hidden goal of one
maze). A `TaskDistribution` maps `(split, index)` to a task in O(1) and in any order, so that every agent can be
scored on exactly the same tasks.
"""

from __future__ import annotations

import zlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np

from plastic_rl.arrays import Array, BoolArray
from plastic_rl.errors import TaskError, UnknownNameError, nearest

Scalar = bool | int | float | str
Params = Mapping[str, Scalar | tuple[Scalar, ...]]

STANDARD_SPLITS: tuple[str, ...] = ("train", "valid", "test")


@dataclass(frozen=True)
class Task:
    """One setting of a task family.

    Attributes:
        family: Name of the distribution it came from, e.g. `"BernoulliBandit"`.
        split: `"train"`, `"valid"`, `"test"`, `"holdout"` or `"shift"`.
        index: Its place in the split, 0 or more.
        seed: Seed of whatever else the task draws at random (derived from the distribution's entropy).
        params: The setting itself: plain scalars and tuples of them.
    """

    family: str
    split: str
    index: int
    seed: int
    params: Params = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "params", MappingProxyType(dict(self.params)))

    def __reduce__(self) -> tuple[Any, ...]:
        return (Task, (self.family, self.split, self.index, self.seed, dict(self.params)))


def number_of(task: Task, name: str) -> float:
    """The parameter `name` of a task, as a number.

    Raises:
        TaskError: If it is missing or no number.

    >>> number_of(Task("Bandit", "test", 0, 0, {"hazard": 0.05}), "hazard")
    0.05
    """
    value = task.params.get(name)
    if not isinstance(value, (int, float)):
        raise TaskError(f"a task of this family needs a number {name!r}, got {value!r} in {dict(task.params)}")
    return value


@runtime_checkable
class Agent(Protocol):
    """Anything with stable-baselines3's `predict`: trained algorithms, policies and reference agents alike.

    `observation` is `(B, I)`; `state` is opaque and None at first; `episode_start` is `(B,)` bool, true where a new
    lifetime starts with this observation. Returns the actions `(B, ...)` and the next state.
    """

    def predict(
        self,
        observation: Array | dict[str, Array],
        state: Any = None,
        episode_start: BoolArray | None = None,
        deterministic: bool = False,
    ) -> tuple[Array, Any]:
        """Return the actions `(B, ...)` and the next state."""
        ...


class ReferenceAgent(ABC):
    """A hand-made agent of a family (random, heuristic, oracle, Bayes), with the interface of `Agent`.

    Before each batch of lifetimes the evaluation calls `begin(tasks, seed)`. Only an oracle may look at the hidden
    parameters of `tasks`; any other agent may use no more than their number and what is public about the family.
    """

    needs_task: ClassVar[bool] = False
    needs_env: ClassVar[bool] = False
    """True for an upper reference that must be shown, by `attach`, what no observation holds (its own position)."""

    def attach(self, env: Any) -> None:  # noqa: B027 - a hook that most agents leave empty
        """Show the agent the vector environment that it is going to act in, before the first `predict`.

        Only agents with `needs_env` look at it; for all others this does nothing.
        """

    @abstractmethod
    def begin(self, tasks: Sequence[Task], seed: int) -> None:
        """Prepare for one lifetime on each of `tasks` (row b lives task b), with its own random stream."""

    @abstractmethod
    def predict(
        self,
        observation: Array | dict[str, Array],
        state: Any = None,
        episode_start: BoolArray | None = None,
        deterministic: bool = False,
    ) -> tuple[Array, Any]:
        """See `Agent`."""


class TaskDistribution(ABC):
    """A distribution over the tasks of one family, divided into splits.

    Args:
        entropy: Root of all seeds; two distributions of equal arguments and entropy hold equal tasks.
    """

    family: str
    splits: tuple[str, ...] = STANDARD_SPLITS
    single_task: ClassVar[bool] = False
    """True where all splits but `shift` are one and the same task (e.g. the reversal bandit)."""
    limit_kind: str = "none"
    """Which reference agent is the limit of normalised scores: a key of `reference_agents()`, or `"none"`."""

    def __init__(self, entropy: int = 0) -> None:
        self.entropy = entropy

    def task(self, split: str, index: int) -> Task:
        """Return task `index` of `split`, in O(1) and independently of any other call.

        Raises:
            UnknownNameError: If the distribution has no such split.
            TaskError: If the index is negative.
        """
        if split not in self.splits:
            raise UnknownNameError(f"split of {self.family}", split, self.splits)
        if index < 0:
            raise TaskError(f"task index must be 0 or more, got {index}")
        sequence = np.random.SeedSequence(self.entropy, spawn_key=(zlib.crc32(split.encode()), index))
        generator = np.random.Generator(np.random.PCG64(sequence))
        params = self.sample_params(generator, split)
        return Task(self.family, split, index, int(sequence.generate_state(1, np.uint64)[0] >> 1), params)

    def tasks(self, split: str, start: int, stop: int) -> list[Task]:
        """Return tasks `start` to `stop - 1` of `split`."""
        return [self.task(split, index) for index in range(start, stop)]

    @abstractmethod
    def sample_params(self, generator: np.random.Generator, split: str) -> Params:
        """Draw the parameters of one task of `split`."""

    def reference_agents(self, split: str) -> dict[str, ReferenceAgent]:
        """Return the family's reference agents by name (`random`, a heuristic, `oracle`, the limit's), for `split`."""
        return {}

    def limit_of(self, split: str) -> str:
        """Return the name of the reference agent that is the limit on `split`, or `"none"`."""
        return self.limit_kind

    def limit_problem(self, split: str) -> str | None:
        """What is wrong with the limit that is named for `split`, or None where it is a reference agent or "none"."""
        limit = self.limit_of(split)
        if limit == "none":
            return None
        valid = [*self.reference_agents(split), "none"]
        if limit in valid:
            return None
        close = nearest(limit, valid)
        hint = f" (did you mean {close!r}?)" if close else ""
        return (
            f"the limit {limit!r} is no reference agent of {self.family} on the split {split}{hint}, so that there is "
            f"no normalised score. Valid: {', '.join(valid)}. Set limit_kind to one of them"
        )


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
