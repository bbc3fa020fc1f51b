"""A task family as a scalar `gymnasium.Env`: the vector environment with one row."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium.vector import AutoresetMode

from plastic_rl.envs import drawing
from plastic_rl.envs.task_vector_env import TaskVectorEnv


class TaskEnv(gymnasium.Env[npt.NDArray[np.float32], Any]):
    """One row of a `TaskVectorEnv`; a family's scalar class only names its `vector_class`.

    `reset(options={"task": task})` sets the task by hand. Same seeds give the same transitions as row 0 of the vector
    environment.

    Args:
        render_mode: None, `"rgb_array"` or `"ansi"`.
        kwargs: Arguments of the vector class.
    """

    metadata: dict[str, Any] = drawing.render_metadata(frames_per_second=4)
    vector_class: ClassVar[type[Any]]
    """The `TaskVectorEnv` subclass of the family."""

    def __init__(self, *, render_mode: str | None = None, **kwargs: Any) -> None:
        self.render_mode = render_mode
        self.vector: TaskVectorEnv = self.vector_class(
            1, render_mode=render_mode, autoreset_mode=AutoresetMode.DISABLED, **kwargs
        )
        self.observation_space = self.vector.single_observation_space
        self.action_space = self.vector.single_action_space
        self.metadata = {name: value for name, value in self.vector.metadata.items() if name != "autoreset_mode"}

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[npt.NDArray[np.float32], dict[str, Any]]:
        """Start a lifetime; `info["task"]` is its hidden task."""
        super().reset(seed=seed)
        task = (options or {}).get("task")
        observations, info = self.vector.reset(seed=seed, options=None if task is None else {"tasks": [task]})
        return observations[0], {"task": info["task"][0]}

    def step(self, action: Any) -> tuple[npt.NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        """Take one action; info holds `trial_end` and, where the family knows it, `expected_reward`."""
        observations, rewards, terminated, truncated, infos = self.vector.step(np.asarray(action)[None])
        info = {name: values[0].item() for name, values in infos.items() if name[0] != "_"}
        return observations[0], float(rewards[0]), bool(terminated[0]), bool(truncated[0]), info

    def render(self) -> Any:
        """Return the picture of the row, or None without a render mode."""
        pictures = self.vector.render()
        return None if pictures is None else pictures[0]

    def get_state(self) -> dict[str, Any]:
        """See `TaskVectorEnv.get_state`."""
        return self.vector.get_state()

    def set_state(self, state: Mapping[str, Any]) -> None:
        """See `TaskVectorEnv.set_state`."""
        self.vector.set_state(state)
