"""One row of a vector environment, as a scalar environment."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode

from plastic_rl.arrays import SingleArray
from plastic_rl.envs.vector_env import RowVectorEnv
from plastic_rl.errors import TaskError, unknown_name_message


class RowEnv(gymnasium.Env[SingleArray, Any]):
    """The only row of a vector environment: same seeds give the same transitions as row 0 of one with more rows.

    `reset(options={"task": task})` sets the task by hand.

    Args:
        vector: Of one row, made without autoreset: `make_vector(ID, 1, autoreset_mode=AutoresetMode.DISABLED)`.

    Raises:
        ValueError: If it is none.
    """

    def __init__(self, vector: RowVectorEnv) -> None:
        if vector.num_envs != 1 or vector.autoreset_mode is not AutoresetMode.DISABLED:
            raise ValueError(f"RowEnv takes 1 row without autoreset, got {vector.num_envs}, {vector.autoreset_mode}")
        self.vector = vector
        self.render_mode = vector.render_mode
        self.observation_space = vector.single_observation_space
        self.action_space = vector.single_action_space
        self.metadata = {name: value for name, value in vector.metadata.items() if name != "autoreset_mode"}

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[SingleArray, dict[str, Any]]:
        """Start a lifetime; `info["task"]` is its hidden task.

        Raises:
            TaskError: If there are other options than `task`, such as the `tasks` of a vector environment.
        """
        for name in options or {}:
            if name != "task":
                raise TaskError(unknown_name_message("option of reset", name, ["task"]))
        super().reset(seed=seed)
        task = (options or {}).get("task")
        observations, info = self.vector.reset(seed=seed, options=None if task is None else {"tasks": [task]})
        return observations[0], {"task": info["task"][0]}

    def step(self, action: Any) -> tuple[SingleArray, float, bool, bool, dict[str, Any]]:
        """Take one action; info holds `trial_end` and, where they are known, `expected_reward` and measures."""
        observations, rewards, terminated, truncated, infos = self.vector.step(np.asarray(action)[None])
        info = {name: values[0].item() for name, values in infos.items() if name[0] != "_" and infos[f"_{name}"][0]}
        return observations[0], float(rewards[0]), bool(terminated[0]), bool(truncated[0]), info

    def render(self) -> Any:
        """Return the picture of the row, or None without a render mode."""
        pictures = self.vector.render()
        return None if pictures is None else pictures[0]

    def close(self) -> None:
        """Close the vector environment."""
        self.vector.close()

    def get_state(self) -> dict[str, Any]:
        """Return all that a resumed run needs, as a vector environment does."""
        return self.vector.get_state()

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Continue from what `get_state` of an environment with equal arguments returned."""
        self.vector.set_state(state)
