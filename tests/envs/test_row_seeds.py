"""A population's environment: rows keyed one by one, which rest when their lifetimes are over."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

import plastic_rl
from plastic_rl.envs import RowVectorEnv, load_plugin, make_vector
from plastic_rl.errors import TaskError
from tests.families.cases import STEPS, lasting

for _file in sorted((Path(__file__).resolve().parents[2] / "envs").glob("*.py")):
    load_plugin(str(_file))
FAMILIES = sorted(env_id for env_id in gymnasium.registry if env_id.startswith(("plastic_rl/", "examples/")))
NATIVE = [env_id for env_id in FAMILIES if gymnasium.spec(env_id).vector_entry_point is not None]
MODES = list(AutoresetMode)


def make(env_id: str, rows: int, mode: AutoresetMode = AutoresetMode.SAME_STEP) -> RowVectorEnv:
    assert plastic_rl.__version__
    kwargs = lasting(env_id) if env_id in NATIVE else {}
    return make_vector(env_id, rows, env_kwargs=kwargs, autoreset_mode=mode)


def begin(env: RowVectorEnv, tasks: list[Any], seeds: list[int], **options: Any) -> Any:
    return env.reset(options={"tasks": tasks, "row_seeds": seeds, **options})[0]


@pytest.mark.parametrize("env_id", [*FAMILIES, "CartPole-v1"])
def test_rows_of_equal_seeds_and_tasks_live_equal_lives(env_id: str) -> None:
    env = make(env_id, 6)
    tasks = [env.distribution.task("train", index) for index in (3, 4)]
    shown = begin(env, tasks * 3, [70, 81] * 3)
    env.action_space.seed(0)
    for _ in range(9):
        np.testing.assert_array_equal(shown[:2], shown[2:4])
        np.testing.assert_array_equal(shown[:2], shown[4:])
        actions = env.action_space.sample()
        shown, reward, *_ = env.step(np.concatenate([actions[:2]] * 3))
        np.testing.assert_array_equal(reward[:2], reward[4:])
    env.close()


@pytest.mark.parametrize("env_id", [*FAMILIES, "CartPole-v1"])
def test_row_seeds_are_those_that_a_seed_gives(env_id: str) -> None:
    """The key of row i under `reset(seed=s)` is `s + i`: the same rows can be put in any order and number."""
    by_seed, by_key = make(env_id, 3), make(env_id, 2)
    tasks = [by_seed.distribution.task("train", index) for index in range(3)]
    first, _ = by_seed.reset(seed=40, options={"tasks": tasks})
    second = begin(by_key, [tasks[2], tasks[0]], [42, 40])
    by_seed.action_space.seed(1)
    for _ in range(9):
        np.testing.assert_array_equal(first[[2, 0]], second)
        actions = by_seed.action_space.sample()
        first, *one = by_seed.step(actions)
        second, *two = by_key.step(actions[[2, 0]])
        np.testing.assert_array_equal(one[0][[2, 0]], two[0])
        np.testing.assert_array_equal(one[1][[2, 0]], two[1])
    by_seed.close()
    by_key.close()


def test_as_many_seeds_as_rows() -> None:
    env = make("plastic_rl/ReversalBandit-v0", 3)
    with pytest.raises(TaskError, match="must hold 3 seeds, one for each row, got 2"):
        env.reset(options={"row_seeds": [1, 2]})


def test_some_rows_can_be_keyed_anew() -> None:
    env = make("plastic_rl/ReversalBandit-v0", 3)
    env.reset(seed=0)
    for _ in range(4):
        env.step(np.zeros(3, np.int64))
    mask = np.array([False, True, False])
    env.reset(options={"reset_mask": mask, "row_seeds": [9, 9, 9]})
    assert (env.observe()[:, -1] * STEPS).round().tolist() == [4, 0, 4]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("env_id", ["plastic_rl/ReversalBandit-v0", "CartPole-v1"])
def test_rows_that_are_over_rest_until_the_next_reset(env_id: str, mode: AutoresetMode) -> None:
    env = make(env_id, 4, mode)
    tasks = [env.distribution.task("train", index) for index in range(4)]
    begin(env, tasks, [1, 2, 3, 4], rest=True)
    ended = np.zeros(4, bool)
    earned = np.zeros(4)
    for _ in range(60):
        _, reward, terminated, truncated, info = env.step(np.ones(4, np.int64))
        assert not (np.abs(reward) + terminated + truncated)[ended].any()
        assert "task" not in info
        assert "final_obs" not in info
        earned += reward
        ended |= terminated | truncated
    assert ended.all()
    assert env.tasks == tuple(tasks)
    if env_id == "CartPole-v1":
        # A push to the right ends after some 10 steps; each is worth 1.
        assert earned.min() >= 8
        assert earned.max() <= 11
    shown = begin(env, tasks, [1, 2, 3, 4])
    again = begin(env, tasks, [1, 2, 3, 4], rest=True)
    np.testing.assert_array_equal(shown, again)
    env.close()
