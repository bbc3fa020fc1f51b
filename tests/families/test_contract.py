"""What every native family keeps to, the moment it is registered."""

from __future__ import annotations

import warnings

import gymnasium
import numpy as np
import pytest
from gymnasium.error import ResetNeeded
from gymnasium.utils.env_checker import check_env

from plastic_rl.envs import Task
from plastic_rl.errors import SpaceError, TaskError, UnknownNameError
from plastic_rl.feedback import FeedbackLayout
from tests.families.cases import (
    DISABLED,
    EVERY_ID,
    FAMILIES,
    NEXT_STEP,
    SAME_STEP,
    STEPS,
    action_columns,
    actions_for,
    assert_same_steps,
    every_family,
    lasting,
    make,
    play,
)


def test_the_registry_holds_the_families_of_this_version():
    assert set(FAMILIES) >= {
        "plastic_rl/BernoulliBandit-v0",
        "plastic_rl/Classification-v0",
        "plastic_rl/CueAssociation-v0",
        "plastic_rl/SupervisedClassification-v0",
        "plastic_rl/GridMaze-v0",
        "plastic_rl/ReversalBandit-v0",
        "plastic_rl/SwappedCartPole-v0",
        "plastic_rl/PatternCompletion-v0",
        "plastic_rl/SupervisedPatternCompletion-v0",
        "plastic_rl/TemporalOrder-v0",
        "examples/PatchLeaving-v0",
    }


@pytest.mark.parametrize("env_id", EVERY_ID)
def test_passes_the_checkers_of_gymnasium_and_stable_baselines3(env_id):
    from stable_baselines3.common.env_checker import check_env as check_env_of_sb3

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        env = gymnasium.make(env_id).unwrapped
        check_env(env)
        check_env_of_sb3(env, skip_render_check=False)


@every_family
@pytest.mark.parametrize("split", ["test", "shift"])
def test_the_first_observation_is_the_same_whatever_the_task(env_id, split):
    env = make(env_id, 64, split=split)
    observations, info = env.reset(seed=0)
    # The features are a sample or cue of the task's own, or a start state of the row's noise (see its own tests).
    if any(
        name in env_id
        for name in ("Classification", "CartPole", "CueAssociation", "PatternCompletion", "TemporalOrder")
    ):
        observations = observations[:, env.feedback.start :]
    assert len({str(dict(task.params)) + str(task.seed) for task in info["task"]}) == 64
    np.testing.assert_array_equal(observations, np.repeat(observations[:1], 64, axis=0))


@every_family
def test_feedback_columns_tell_the_step_before(env_id):
    env = make(env_id, autoreset_mode=DISABLED)
    layout = FeedbackLayout.from_dict(env.metadata["feedback"])
    space = env.single_observation_space
    assert layout.stop == space.shape[0]
    observations, _ = env.reset(seed=6)
    assert not observations[:, slice(*layout.action)].any()
    np.testing.assert_array_equal(observations[:, layout.reward[0]], np.zeros(5))
    np.testing.assert_array_equal(observations[:, layout.trial_start[0]], np.ones(5))
    np.testing.assert_array_equal(observations[:, layout.time[0]], np.zeros(5))
    column = layout.reward[0]
    for time, action in enumerate(actions_for(env, STEPS), start=1):
        observations, rewards, terminated, _, info = env.step(action)
        np.testing.assert_array_equal(observations[:, slice(*layout.action)], action_columns(env, action))
        clipped = np.clip(rewards, space.low[column], space.high[column]).astype(np.float32)
        np.testing.assert_array_equal(observations[:, column], clipped)
        np.testing.assert_array_equal(observations[:, layout.trial_start[0]], info["trial_end"])
        np.testing.assert_array_equal(observations[:, layout.time[0]], np.full(5, np.float32(time / STEPS)))
        assert observations in env.observation_space
        assert terminated.all() == (time == STEPS)


@every_family
def test_spaces_are_finite_and_what_is_returned_is_safe_to_keep(env_id):
    env = make(env_id, autoreset_mode=SAME_STEP)
    space = env.single_observation_space
    assert space.dtype == np.float32
    assert np.isfinite(space.low).all()
    assert np.isfinite(space.high).all()
    assert env.observation_space.shape == (5, *space.shape)
    observations, info = env.reset(seed=0)
    kept = [observations]
    copies = [observations.copy()]
    actions = actions_for(env, 2 * STEPS)
    given = [action.copy() for action in actions]
    for step in play(env, actions):
        kept.extend(step[:4])
        copies.extend(values.copy() for values in step[:4])
        kept.extend(value for name, value in step[4].items() if name in {"trial_end", "expected_reward"})
        copies.extend(value.copy() for name, value in step[4].items() if name in {"trial_end", "expected_reward"})
    for one, copy in zip(kept, copies, strict=True):
        np.testing.assert_array_equal(one, copy)
    for action, before in zip(actions, given, strict=True):
        np.testing.assert_array_equal(action, before)
    assert isinstance(info["task"][0], Task)


@every_family
def test_info_holds_the_expected_reward_where_it_is_known(env_id):
    env = make(env_id, 400, steps=48, autoreset_mode=DISABLED)
    env.reset(seed=0)
    steps = play(env, actions_for(env, 48))
    rewards = np.array([step[1] for step in steps])
    if "expected_reward" not in steps[0][4]:
        assert env_id in {"plastic_rl/GridMaze-v0", "plastic_rl/SwappedCartPole-v0"}  # their rewards are certain
        return
    expected = np.array([step[4]["expected_reward"] for step in steps])
    assert all(step[4]["_expected_reward"].all() for step in steps)
    # Each reward is Bernoulli with that mean: the sum of 20,000 differences lies within four standard deviations.
    assert abs((rewards - expected).sum()) <= 4 * np.sqrt((expected * (1 - expected)).sum())


@every_family
def test_misuse_is_told_clearly(env_id):
    env = make(env_id, 3)
    good = np.zeros_like(env.action_space.sample(), dtype=np.int64)
    with pytest.raises(ResetNeeded, match="reset"):
        env.step(good)
    env.reset(seed=0)
    too_large, negative = good.copy(), good.copy()
    too_large[1], negative[1] = 99, -1
    for bad, message in (
        (too_large, "must lie in (Discrete|MultiBinary)"),
        (negative, "must lie in (Discrete|MultiBinary)"),
        (good[:2], "shape"),
        (good.astype(np.float64), "integers"),
    ):
        with pytest.raises(SpaceError, match=message):
            env.step(bad)
    with pytest.raises(UnknownNameError, match="Did you mean 'shift'"):
        make(env_id, split="shfit")
    with pytest.raises(TaskError, match="no range"):
        make(env_id, task_start=5, task_stop=5)


@every_family
def test_pictures(env_id):
    for mode, kind in (("ansi", str), ("rgb_array", np.ndarray)):
        env = make(env_id, 3, render_mode=mode)
        env.reset(seed=0)
        for action in actions_for(env, STEPS + 3):
            pictures = env.render()
            assert len(pictures) == 3
            assert all(isinstance(picture, kind) for picture in pictures)
            env.step(action)
        if mode == "ansi":
            assert f"step 3/{STEPS}" in env.render()[0]
        else:
            assert pictures[0].dtype == np.uint8
            assert pictures[0].ndim == 3
            assert pictures[0].shape[2] == 3
            assert len(np.unique(pictures[0].reshape(-1, 3), axis=0)) >= 2
    assert make(env_id).render() is None


@every_family
def test_gymnasium_makes_the_vector_environment_too(env_id):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        env = gymnasium.make_vec(env_id, num_envs=3, **lasting(env_id), split="test")
    assert env.metadata["autoreset_mode"] is NEXT_STEP
    ours = make(env_id, 3, split="test", autoreset_mode=NEXT_STEP)
    actions = actions_for(ours, 2 * STEPS)
    env.reset(seed=0)
    ours.reset(seed=0)
    assert_same_steps(play(env, actions), play(ours, actions))
    assert ours.spec is not None
    assert ours.spec.id == env_id
