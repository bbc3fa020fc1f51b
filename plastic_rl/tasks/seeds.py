"""Tasks for environments that know of none: a task is the seed of the environment's reset."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np

from plastic_rl.errors import TaskError, UnknownNameError
from plastic_rl.tasks.agents import RandomAgent
from plastic_rl.tasks.base import Params, ReferenceAgent, Task, TaskDistribution


class SeedTasks(TaskDistribution):
    """Each task is a reset seed; no two splits share one. There is no limit, and the one reference agent is random.

    Args:
        env_id: The environment whose reset the seeds are for.
        env_kwargs: Its keyword arguments.

    >>> tasks = SeedTasks("CartPole-v1")
    >>> [tasks.task(split, 1).params["reset_seed"] for split in tasks.splits]
    [3, 4, 5]
    """

    def __init__(self, env_id: str, env_kwargs: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        self.family = env_id
        self._env_kwargs = dict(env_kwargs or {})

    def task(self, split: str, index: int) -> Task:
        """See `TaskDistribution`."""
        if split not in self.splits:
            raise UnknownNameError(f"split of {self.family}", split, self.splits)
        if index < 0:
            raise TaskError(f"task index must be 0 or more, got {index}")
        # Environments may take seeds of 32 bits only; splits stay disjoint.
        seed = index % (2**32 // len(self.splits)) * len(self.splits) + self.splits.index(split)
        return Task(self.family, split, index, seed, {"reset_seed": seed})

    def sample_params(self, generator: np.random.Generator, split: str) -> Params:
        """Draw a reset seed (`task` counts them instead, so that splits are disjoint)."""
        return {"reset_seed": int(generator.integers(2**31))}

    def reference_agents(self, split: str) -> dict[str, ReferenceAgent]:
        """See `TaskDistribution`."""
        env = gymnasium.make(self.family, **self._env_kwargs)
        env.close()
        return {"random": RandomAgent(env.action_space)}
