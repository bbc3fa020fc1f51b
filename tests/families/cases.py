"""Every native family, with short lifetimes: what their tests share."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt
import pytest
from gymnasium import spaces
from gymnasium.vector import AutoresetMode

import plastic_rl  # noqa: F401 - registers the ids
from plastic_rl.envs import TaskVectorEnv, distribution_for, load_plugin, make_vector

EXAMPLES = Path(__file__).resolve().parents[2] / "envs"
for _file in sorted(EXAMPLES.glob("*.py")):
    load_plugin(str(_file))

FAMILIES = sorted(
    env_id
    for env_id, spec in gymnasium.registry.items()
    if env_id.startswith(("plastic_rl/", "examples/")) and spec.vector_entry_point is not None
)
EVERY_ID = sorted(env_id for env_id in gymnasium.registry if env_id.startswith(("plastic_rl/", "examples/")))

STEPS = 12


SHORT_TRIALS: dict[str, dict[str, int]] = {"plastic_rl/TemporalOrder-v0": {"items": 3, "questions": 1}}
"""Arguments that make a trial last no longer than `STEPS`, of families whose own is longer."""


def lasting(env_id: str, steps: int = STEPS) -> dict[str, int]:
    """Arguments of a family for lifetimes of `steps` steps, a multiple of a trial's where it counts those."""
    if "steps" in inspect.signature(distribution_for(env_id).__class__).parameters:
        return {"steps": steps}
    if "PatternCompletion" in env_id:
        return {"bits": 10, "patterns": steps // 3 - 1, "presentations": 1}
    short = SHORT_TRIALS.get(env_id, {})
    env = make_vector(env_id, 1, env_kwargs=short)
    return {**short, "trials": steps // env.metadata["steps_per_trial"]}


def make(env_id: str, num_envs: int = 5, *, steps: int = STEPS, **arguments: Any) -> TaskVectorEnv:
    """A family with short lifetimes."""
    env = make_vector(env_id, num_envs, env_kwargs=lasting(env_id, steps), **arguments)
    assert isinstance(env, TaskVectorEnv)
    return env


def actions_for(env: TaskVectorEnv, steps: int, seed: int = 0) -> list[npt.NDArray[Any]]:
    """Random actions for some steps of all rows."""
    env.action_space.seed(seed)
    return [env.action_space.sample() for _ in range(steps)]


def play(env: TaskVectorEnv, actions: list[npt.NDArray[Any]]) -> list[tuple[Any, ...]]:
    """Step through `actions`; return observation, reward, terminated, truncated and info of each step."""
    return [env.step(action) for action in actions]


DISABLED, NEXT_STEP, SAME_STEP = AutoresetMode.DISABLED, AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP


def assert_same_steps(first: list[tuple[Any, ...]], second: list[tuple[Any, ...]]) -> None:
    """Two plays agree in every bit of observations, rewards, ends and info."""
    assert len(first) == len(second)
    for one, other in zip(first, second, strict=True):
        for left, right in zip(one[:4], other[:4], strict=True):
            np.testing.assert_array_equal(left, right)
        assert one[4].keys() == other[4].keys()
        for name in one[4]:
            if name == "final_obs":
                assert_same_objects(one[4][name], other[4][name])
            elif name != "final_info":
                np.testing.assert_array_equal(one[4][name], other[4][name])


def assert_same_objects(first: npt.NDArray[Any], second: npt.NDArray[Any]) -> None:
    """Two object arrays of observations (or None) agree in every bit."""
    for one, other in zip(first, second, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            np.testing.assert_array_equal(one, other)


def action_columns(env: TaskVectorEnv, actions: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """How actions stand in the next observation: one-hot, or as they are where they are bits."""
    space = env.single_action_space
    return np.eye(space.n)[actions] if isinstance(space, spaces.Discrete) else actions


every_family = pytest.mark.parametrize("env_id", FAMILIES)
