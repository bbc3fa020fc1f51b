"""Swapped cart-pole: Gymnasium's transitions, trials within a lifetime, and what its hand-made agents reach."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt
import pytest
from gymnasium.vector import AutoresetMode

from plastic_rl.envs import make_vector
from plastic_rl.errors import ConfigError, TaskError
from plastic_rl.evaluation import run_lifetimes
from plastic_rl.families.swapped_cartpole import (
    CLIP,
    SCALES,
    SwappedCartPoleTasks,
    SwappedCartPoleVectorEnv,
    cart_pole_step,
)

ENV_ID = "plastic_rl/SwappedCartPole-v0"


def make(num_envs: int = 2, **kwargs: Any) -> SwappedCartPoleVectorEnv:
    env = make_vector(ENV_ID, num_envs, env_kwargs=kwargs, autoreset_mode=AutoresetMode.DISABLED)
    assert isinstance(env, SwappedCartPoleVectorEnv)
    return env


def test_transitions_are_those_of_gymnasium() -> None:
    # 500 random states, far beyond the limits too, and both actions.
    generator = np.random.default_rng(0)
    states = generator.uniform(-1, 1, (500, 4)) * [2.3, 4.0, 0.2, 4.0]
    theirs = gymnasium.make("CartPole-v1").unwrapped
    theirs.reset(seed=0)
    for action, force in ((0, -10.0), (1, 10.0)):
        ours = cart_pole_step(states, np.full(500, force), np.full(500, 0.5))
        for state, following in zip(states, ours, strict=True):
            theirs.state = state.copy()
            theirs.steps_beyond_terminated = None
            theirs.step(action)
            np.testing.assert_allclose(np.asarray(theirs.state, dtype=np.float64), following, rtol=0, atol=1e-14)


@pytest.mark.parametrize("swapped", [False, True])
def test_a_whole_trial_is_gymnasiums_with_the_actions_taken_or_swapped(swapped: bool) -> None:
    env = make(1, sees="all", trials=2)
    task = next(task for task in SwappedCartPoleTasks().tasks("train", 0, 2) if task.params["swapped"] == swapped)
    observations, _ = env.reset(seed=3, options={"tasks": [task]})
    theirs = gymnasium.make("CartPole-v1").unwrapped
    theirs.reset(seed=0)
    theirs.state = env.get_state()["family"]["_state"][0].copy()
    generator = np.random.default_rng(1)
    for _ in range(200):
        action = int(generator.integers(2))
        theirs_next, _, fell, _, _ = theirs.step(action ^ swapped)
        observations, rewards, _, _, info = env.step(np.array([action]))
        assert rewards[0] == 1.0 - fell
        assert info["trial_end"][0] == fell
        if fell:
            break
        np.testing.assert_allclose(observations[0, :4] * SCALES["all"], theirs_next, rtol=1e-6, atol=1e-7)
    assert fell


def test_a_trial_that_ends_is_followed_by_the_next_start_and_the_last_one_ends_the_lifetime() -> None:
    env = make(2, trials=3, trial_steps=6, sees="all")
    env.reset(seed=0)
    starts = env.get_state()["family"]["_starts"]
    assert np.abs(starts).max() <= 0.05
    for time in range(1, 19):
        observations, rewards, terminated, _, info = env.step(np.array([time % 2, time % 2]))
        assert rewards.tolist() == [1.0, 1.0]
        assert info["trial_end"].tolist() == [time % 6 == 0] * 2
        assert observations[:, 7].tolist() == [float(time % 6 == 0)] * 2
        assert terminated.tolist() == [time == 18] * 2
        if time in (6, 12):
            np.testing.assert_allclose(observations[:, :4] * SCALES["all"], starts[:, time // 6], rtol=1e-6)
    assert env.metadata["lifetime_steps"] is None
    assert env.metadata["steps_per_trial"] is None


def test_lifetimes_vary_in_length() -> None:
    # Pushing to one side only lets the pole fall after 8 to 11 steps.
    env = make(50, trials=4)
    env.reset(seed=0)
    lengths = np.zeros(50)
    env.reset(seed=0, options={"rest": True})
    ended = np.zeros(50, dtype=np.bool_)
    for _ in range(60):
        _, rewards, terminated, _, _ = env.step(np.ones(50, dtype=np.int64))
        assert not rewards[ended].any()
        lengths += ~ended
        ended |= terminated
    assert ended.all()
    assert lengths.min() >= 4 * 8
    assert lengths.max() <= 4 * 11
    assert np.isfinite(env.observe()).all()


def test_features_are_scaled_clipped_and_do_not_tell_the_task() -> None:
    plain, swapped = sorted(SwappedCartPoleTasks().tasks("test", 0, 2), key=lambda task: bool(task.params["swapped"]))
    env = make(2)
    assert env.feedback.start == 2
    assert env.single_observation_space.high[:2].tolist() == [CLIP, CLIP]
    first, _ = env.reset(seed=5, options={"tasks": [plain, swapped], "row_seeds": [8, 8]})
    np.testing.assert_array_equal(first[0], first[1])
    state = env.get_state()["family"]["_state"][0]
    np.testing.assert_allclose(first[0, :2], state[2:] / SCALES["pole"], rtol=1e-6)
    # Opposite actions in the two worlds are the same push.
    for action in (0, 1, 1, 0, 1):
        observations, *_ = env.step(np.array([action, 1 - action]))
        np.testing.assert_array_equal(observations[0, :2], observations[1, :2])


def test_every_pair_of_tasks_holds_one_of_each_in_random_order() -> None:
    for split in ("train", "valid", "test", "shift"):
        tasks = SwappedCartPoleTasks().tasks(split, 0, 400)
        swapped = np.array([task.params["swapped"] for task in tasks]).reshape(200, 2)
        assert (swapped.sum(1) == 1).all()
        assert 70 <= swapped[:, 0].sum() <= 130
        lengths = np.array([task.params["half_length"] for task in tasks])
        assert (lengths == 0.5).all() == (split != "shift")
        assert lengths.min() >= 0.25
        assert lengths.max() <= 1.0
    for swap in ("never", "always"):
        halves = {task.params["swapped"] for task in SwappedCartPoleTasks(swap=swap).tasks("test", 0, 10)}
        assert halves == {swap == "always"}


def trial_returns(name: str, split: str = "test", count: int = 100, **kwargs: Any) -> npt.NDArray[np.float64]:
    distribution = SwappedCartPoleTasks(**kwargs)
    tasks = distribution.tasks(split, 0, count)
    agent = distribution.reference_agents(split)[name]
    lived = run_lifetimes(agent, ENV_ID, tasks, env_kwargs=kwargs, seed=0)
    return lived.trial_returns()


@pytest.mark.parametrize("sees", ["pole", "all"])
@pytest.mark.parametrize("name", ["oracle", "infer_swap"])
def test_hand_made_controllers_balance_nearly_always(name: str, sees: str) -> None:
    returns = trial_returns(name, trials=2, trial_steps=500, sees=sees)
    assert returns.shape == (100, 2)
    assert (returns[:, 1] == 500).all()
    assert (returns[:, 0] == 500).mean() >= 0.99


def test_they_balance_other_poles_too() -> None:
    assert (trial_returns("oracle", "shift", trials=2) == 200).mean() >= 0.99
    assert (trial_returns("infer_swap", "shift", trials=2)[:, 1] == 200).mean() >= 0.99


def test_random_actions_last_about_21_steps_a_trial() -> None:
    # CartPole-v1 gives random actions 22.2 on average, the step of the fall included.
    assert trial_returns("random", count=400).mean() == pytest.approx(21.2, abs=1.0)


@pytest.mark.parametrize(
    "arguments", [{"trials": 0}, {"trial_steps": 0}, {"steps": 0}, {"sees": "cart"}, {"swap": "no"}]
)
def test_arguments_that_make_no_sense_are_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises((TaskError, ConfigError), match="must be"):
        make_vector(ENV_ID, 1, env_kwargs=arguments)
