"""What a task is, how a distribution of tasks is sampled, and who acts on them.

A `Task` is one setting of a family of environments (the arm probabilities of one bandit, the hidden goal of one
maze). A `TaskDistribution` maps `(split, index)` to a task in O(1) and in any order, so that every agent can be
scored on exactly the same tasks. Its `ReferenceAgent`s are what a trained `Agent` is compared with.
"""

from __future__ import annotations

import math
import zlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, ClassVar, Literal, Protocol, final, runtime_checkable

import numpy as np
from gymnasium import spaces
from typing_extensions import override

from plastic_rl.arrays import Array, BoolArray, FloatArray, IntArray
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
    """The parameter `name` of a task, as a number; `TaskError` where it is missing or none.

    >>> number_of(Task("Bandit", "test", 0, 0, {"hazard": 0.05}), "hazard")
    0.05
    """
    value = task.params.get(name)
    if not isinstance(value, (int, float)):
        raise TaskError(f"a task of this family needs a number {name!r}, got {value!r} in {dict(task.params)}")
    return value


@runtime_checkable
class Agent(Protocol):
    """Anything with stable-baselines3's `predict`: trained algorithms, policies and reference agents alike."""

    def predict(
        self,
        observation: Array | dict[str, Array],
        state: Any = None,
        episode_start: BoolArray | None = None,
        deterministic: bool = False,
    ) -> tuple[Array, Any]:
        """Return the actions `(B, ...)` and the next state.

        Args:
            observation: `(B, I)`.
            state: Opaque, None at first.
            episode_start: `(B,)` bool, true where a new lifetime starts with this observation.
            deterministic: Whether to leave chance out.
        """
        ...


class RowNoise:
    """A stream of random numbers for each row, which does not depend on who lives beside it.

    Args:
        seed: 0 or more.
        positions: Place of each row's task among all, B of them.

    Attributes:
        generators: Of the rows, B of them, for what `draw` does not offer.

    >>> two, one = RowNoise(0, [3, 7]), RowNoise(0, [7])
    >>> bool((two.draw("uniform", 5)[1] == one.draw("uniform", 5)[0]).all())
    True
    """

    def __init__(self, seed: int, positions: Sequence[int]) -> None:
        stream = zlib.crc32(b"agent")
        self.generators = [
            np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed, spawn_key=(stream, position))))
            for position in positions
        ]
        self._drawn = {kind: np.zeros((len(positions), 0)) for kind in ("uniform", "normal")}

    def keys(self) -> IntArray:
        """A whole number of each row, `(B,)`."""
        return np.array([generator.integers(2**62) for generator in self.generators], dtype=np.int64)

    def draw(self, kind: Literal["uniform", "normal"], count: int) -> FloatArray:
        """The next `count` numbers of each row, `(B, count)`: uniform in [0, 1), or standard normal."""
        drawn = self._drawn[kind]
        if drawn.shape[1] < count:
            size = max(256, count)
            fresh = [
                generator.random(size) if kind == "uniform" else generator.standard_normal(size)
                for generator in self.generators
            ]
            drawn = np.concatenate([drawn, np.stack(fresh)], axis=1)
        self._drawn[kind] = drawn[:, count:]
        return drawn[:, :count]


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


class RandomAgent(ReferenceAgent):
    """Acts uniformly at random in a space of actions (unbounded sides of a `Box` are cut at +-1).

    Args:
        action_space: Of one row: `Discrete`, `MultiDiscrete`, `MultiBinary` or `Box`.

    >>> agent = RandomAgent(spaces.Discrete(3))
    >>> agent.begin([], seed=0)
    >>> agent.predict(np.zeros((5, 2)))[0].tolist()
    [2, 1, 2, 0, 2]
    """

    def __init__(self, action_space: spaces.Space[Any]) -> None:
        super().__init__()
        if not isinstance(action_space, (spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary, spaces.Box)):
            raise SpaceError(
                f"the random agent acts in Discrete, MultiDiscrete, MultiBinary or Box, got {action_space}"
            )
        self._space = action_space

    @override
    def choose(self, rows: Array, start: BoolArray, state: Any, deterministic: bool) -> tuple[Array, Any]:
        space, count = self._space, len(rows)
        noise = self.noise(count)
        if isinstance(space, spaces.Discrete):
            return (noise.draw("uniform", 1)[:, 0] * int(space.n)).astype(np.int64), True
        if isinstance(space, spaces.MultiDiscrete):
            return (noise.draw("uniform", space.nvec.size) * space.nvec.ravel()).astype(np.int64), True
        if isinstance(space, spaces.MultiBinary):
            return (noise.draw("uniform", math.prod(space.shape)) < 0.5).astype(np.int64), True
        low = np.where(np.isfinite(space.low), space.low, -1.0).ravel()
        high = np.where(np.isfinite(space.high), space.high, 1.0).ravel()
        return (low + noise.draw("uniform", low.size) * (high - low)).astype(np.float32), True


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
        self.check_split(split)
        if index < 0:
            raise TaskError(f"task index must be 0 or more, got {index}")
        sequence = np.random.SeedSequence(self.entropy, spawn_key=(zlib.crc32(split.encode()), index))
        generator = np.random.Generator(np.random.PCG64(sequence))
        params = self.sample_params(generator, split)
        return Task(self.family, split, index, int(sequence.generate_state(1, np.uint64)[0] >> 1), params)

    def check_split(self, split: str) -> None:
        """Raise `UnknownNameError` where the distribution has no such split."""
        if split not in self.splits:
            raise UnknownNameError(f"split of {self.family}", split, self.splits)

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
        valid = ["none"] if limit == "none" else [*self.reference_agents(split), "none"]
        if limit in valid:
            return None
        close = nearest(limit, valid)
        hint = f" (did you mean {close!r}?)" if close else ""
        return (
            f"the limit {limit!r} is no reference agent of {self.family} on the split {split}{hint}, so that there is "
            f"no normalised score. Valid: {', '.join(valid)}. Set limit_kind to one of them"
        )


TASKS_PER_SEED = 10**9
"""Tasks of `train` between the first ones of two neighbouring seeds."""


def first_task(seed: int) -> int:
    """Index of the first of the 10^9 tasks that a run with `seed` may train on before it meets those of the next seed.

    >>> first_task(0), first_task(2)
    (0, 2000000000)
    """
    return seed * TASKS_PER_SEED
