"""What a task is, how a distribution of tasks is sampled and dealt out, and who acts on them.

A `Task` is one setting of a family of environments (the arm probabilities of one bandit, the hidden goal of one
maze). A `TaskDistribution` maps `(split, index)` to a task in O(1) and in any order, so that every agent can be
scored on exactly the same tasks. A `TaskSource` deals them out to the rows of a vector environment; a family's
`ReferenceAgent`s are what a trained `Agent` is compared with.
"""

from __future__ import annotations

import zlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, ClassVar, Protocol, final, runtime_checkable

import numpy as np

from plastic_rl.arrays import Array, BoolArray, FloatArray, IntArray
from plastic_rl.envs.row_noise import RowNoise
from plastic_rl.errors import SpaceError, TaskError, UnknownNameError, nearest

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

    Before each batch of lifetimes the evaluation calls `begin(tasks, seed)`. What an agent has learned is in the state
    that `predict` passes in and out, as trained agents do it. A family's agent writes `choose`.
    """

    needs_task: ClassVar[bool] = False
    """True for an oracle, whose privileged information is the hidden task."""
    needs_env: ClassVar[bool] = False
    """True for an agent whose privileged information is what no observation holds (its own position)."""

    def __init__(self) -> None:
        self._streams = (0, 0)
        self._noise: RowNoise | None = None
        self._tasks: Sequence[Task] = ()
        self._env: Any = None

    def attach(self, env: Any) -> None:
        """Show the agent the vector environment that it is going to act in, before the first `predict`."""
        self._env = env.unwrapped if self.needs_env else None

    def begin(self, tasks: Sequence[Task], seed: int, first: int = 0) -> None:
        """Prepare for one lifetime on each of `tasks`; row b lives task b.

        Args:
            tasks: One for each row.
            seed: Of what the agent draws, 0 or more.
            first: Place of the first task among all. What is drawn in a row follows from `seed` and its task's place.
        """
        self._streams, self._noise = (seed, first), None
        self._tasks = tuple(tasks) if self.needs_task else ()

    @final
    def predict(
        self,
        observation: Array | dict[str, Array],
        state: Any = None,
        episode_start: BoolArray | None = None,
        deterministic: bool = False,
    ) -> tuple[Array, Any]:
        """Act as any `Agent` does.

        Raises:
            SpaceError: If the observation is not a flat batch.
        """
        if isinstance(observation, dict) or observation.ndim != 2:
            got = "a dict" if isinstance(observation, dict) else f"shape {observation.shape}"
            raise SpaceError(f"reference agents take flat observations of shape (B, I), got {got}")
        start = np.full(len(observation), state is None)
        if state is not None and episode_start is not None:
            start = np.asarray(episode_start, dtype=np.bool_)
        return self.choose(observation, start, state, deterministic)

    @abstractmethod
    def choose(self, rows: Array, start: BoolArray, state: Any, deterministic: bool) -> tuple[Array, Any]:
        """Return the actions `(B, ...)` and the next state, which must not be None.

        Args:
            rows: Observations `(B, I)`.
            start: Which rows start a lifetime with them, `(B,)`: all where there is no state.
            state: What the last call returned, None in the first one; it must stay as it is.
            deterministic: Whether to leave chance out of what can do without it (ties go to the lowest action).
        """

    def noise(self, rows: int) -> RowNoise:
        """The random streams of `rows` rows, which go on until `begin` starts them anew."""
        if self._noise is None or len(self._noise.generators) != rows:
            seed, first = self._streams
            self._noise = RowNoise(seed, range(first, first + rows))
        return self._noise

    def coin(self, rows: int) -> BoolArray:
        """Toss a fair coin in each of `rows` rows, `(B,)`."""
        return self.noise(rows).draw("uniform", 1)[:, 0] < 0.5

    def best(self, values: FloatArray, deterministic: bool) -> IntArray:
        """Index of the largest entry of each row of `values (B, N)`, ties broken at random (or to the lowest index)."""
        if not deterministic:
            best = values == values.max(axis=1, keepdims=True)
            values = best * (self.noise(len(values)).draw("uniform", values.shape[1]) + 1.0)
        index: IntArray = values.argmax(axis=1)
        return index

    def privileged_tasks(self, rows: int) -> Sequence[Task]:
        """The hidden tasks of `rows` rows, for agents with `needs_task`.

        Raises:
            TaskError: If `begin` was given another number of tasks.
        """
        if len(self._tasks) != rows:
            raise TaskError(
                f"{type(self).__name__} acts in {rows} rows but began with {len(self._tasks)} tasks; "
                "call begin(tasks, seed) with one task for each row"
            )
        return self._tasks

    def privileged(self, name: str, rows: int) -> Array:
        """What the environment holds under `name` for each of `rows` rows, for agents with `needs_env`.

        Raises:
            TaskError: If the agent is attached to no environment, or to one of another number of rows.
        """
        values: Array = np.zeros(0) if self._env is None else self._env.privileged()[name]
        if len(values) != rows:
            raise TaskError(
                f"{type(self).__name__} needs the {name} of each row: call attach(env) with the vector environment of "
                f"{rows} rows that it acts in"
            )
        return values


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
