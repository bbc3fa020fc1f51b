"""Reference agents that are no family's own: acting at random, and acting by a rule per row.

Reference agents keep what they have learned in the `state` that `predict` passes in and out, as trained agents do;
only their random stream and the tasks of an oracle are set by `begin`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium import spaces

from plastic_rl.arrays import Array, BoolArray, FloatArray, IntArray
from plastic_rl.envs.task import ReferenceAgent, Task
from plastic_rl.errors import SpaceError, TaskError


def as_rows(
    observation: Array | dict[str, Array], episode_start: BoolArray | None, state: Any
) -> tuple[Array, BoolArray]:
    """Return the observation `(B, I)` and which rows start a lifetime, `(B,)` bool (all of them without a state).

    Raises:
        SpaceError: If the observation is not a flat batch.
    """
    if isinstance(observation, dict) or observation.ndim != 2:
        got = "a dict" if isinstance(observation, dict) else f"shape {observation.shape}"
        raise SpaceError(f"reference agents take flat observations of shape (B, I), got {got}")
    rows = observation.shape[0]
    if state is None:
        return observation, np.ones(rows, dtype=np.bool_)
    if episode_start is None:
        return observation, np.zeros(rows, dtype=np.bool_)
    return observation, np.asarray(episode_start, dtype=np.bool_)


def argmax_at_random(values: FloatArray, generator: np.random.Generator | None) -> IntArray:
    """Index of the largest entry of each row of `values (B, N)`, ties broken at random (or to the lowest index).

    >>> argmax_at_random(np.array([[0.0, 2.0, 1.0]]), None).tolist()
    [1]
    """
    if generator is not None:
        best = values == values.max(axis=1, keepdims=True)
        values = best * (generator.random(values.shape) + 1.0)
    best_index: IntArray = values.argmax(axis=1)
    return best_index


class SeededAgent(ReferenceAgent):
    """A reference agent with a random stream of its own, seeded by `begin`."""

    def __init__(self) -> None:
        self._generator = np.random.Generator(np.random.PCG64(0))
        self._tasks: Sequence[Task] = ()

    def begin(self, tasks: Sequence[Task], seed: int) -> None:
        """See `ReferenceAgent`."""
        self._generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed)))
        self._tasks = tuple(tasks) if self.needs_task else ()

    def _known_tasks(self, rows: int) -> Sequence[Task]:
        """The tasks of an oracle, one for each of `rows`.

        Raises:
            TaskError: If `begin` was given another number of tasks.
        """
        if len(self._tasks) != rows:
            raise TaskError(
                f"{type(self).__name__} acts in {rows} rows but began with {len(self._tasks)} tasks; "
                "call begin(tasks, seed) with one task for each row"
            )
        return self._tasks


class RandomAgent(SeededAgent):
    """Acts uniformly at random in `Discrete(n)`, `MultiDiscrete` or a `Box` (unbounded sides are cut at +-1).

    Args:
        action_space: The action space of one row.

    >>> agent = RandomAgent(spaces.Discrete(3))
    >>> agent.begin([], seed=0)
    >>> agent.predict(np.zeros((5, 2)))[0].tolist()
    [2, 1, 1, 0, 0]
    """

    def __init__(self, action_space: spaces.Space[Any]) -> None:
        super().__init__()
        if not isinstance(action_space, (spaces.Discrete, spaces.MultiDiscrete, spaces.Box)):
            raise SpaceError(f"the random agent acts in Discrete, MultiDiscrete or Box, got {action_space}")
        self._space = action_space

    def predict(
        self,
        observation: Array | dict[str, Array],
        state: Any = None,
        episode_start: BoolArray | None = None,
        deterministic: bool = False,
    ) -> tuple[Array, Any]:
        """See `Agent`; `deterministic` changes nothing."""
        rows = len(as_rows(observation, episode_start, state)[0])
        space = self._space
        if isinstance(space, spaces.Discrete):
            return self._generator.integers(0, int(space.n), rows), True
        if isinstance(space, spaces.MultiDiscrete):
            return self._generator.integers(0, space.nvec.ravel(), (rows, space.nvec.size)), True
        low = np.where(np.isfinite(space.low), space.low, -1.0).ravel()
        high = np.where(np.isfinite(space.high), space.high, 1.0).ravel()
        return self._generator.uniform(low, high, (rows, low.size)).astype(np.float32), True
