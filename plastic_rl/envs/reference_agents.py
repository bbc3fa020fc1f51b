"""The reference agent that is no family's own: acting at random."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces
from typing_extensions import override

from plastic_rl.arrays import Array, BoolArray
from plastic_rl.envs.task import ReferenceAgent
from plastic_rl.errors import SpaceError


class RandomAgent(ReferenceAgent):
    """Acts uniformly at random in `Discrete(n)`, `MultiDiscrete` or a `Box` (unbounded sides are cut at +-1).

    Args:
        action_space: The action space of one row.

    >>> agent = RandomAgent(spaces.Discrete(3))
    >>> agent.begin([], seed=0)
    >>> agent.predict(np.zeros((5, 2)))[0].tolist()
    [2, 1, 2, 0, 2]
    """

    def __init__(self, action_space: spaces.Space[Any]) -> None:
        super().__init__()
        if not isinstance(action_space, (spaces.Discrete, spaces.MultiDiscrete, spaces.Box)):
            raise SpaceError(f"the random agent acts in Discrete, MultiDiscrete or Box, got {action_space}")
        self._space = action_space

    @override
    def choose(self, rows: Array, start: BoolArray, state: Any, deterministic: bool) -> tuple[Array, Any]:
        space, count = self._space, len(rows)
        noise = self.noise(count)
        if isinstance(space, spaces.Discrete):
            return (noise.draw("uniform", 1)[:, 0] * int(space.n)).astype(np.int64), True
        if isinstance(space, spaces.MultiDiscrete):
            return (noise.draw("uniform", space.nvec.size) * space.nvec.ravel()).astype(np.int64), True
        low = np.where(np.isfinite(space.low), space.low, -1.0).ravel()
        high = np.where(np.isfinite(space.high), space.high, 1.0).ravel()
        return (low + noise.draw("uniform", low.size) * (high - low)).astype(np.float32), True
