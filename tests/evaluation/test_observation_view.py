"""Agents that saw something else in training than an evaluation's environment emits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from plastic_rl._native import Core
from plastic_rl.algorithms import PlasticA2C
from plastic_rl.algorithms.vec_env import adapt
from plastic_rl.envs import Task, distribution_for, make_vector
from plastic_rl.evaluation import evaluate, run_lifetimes

CARTPOLE = "CartPole-v1"
TASKS = distribution_for(CARTPOLE).tasks("test", 0, 6)


def plain_rows() -> DummyVecEnv:
    return DummyVecEnv([lambda: gymnasium.make(CARTPOLE) for _ in range(2)])


def normalised_rows(**kwargs: Any) -> Any:
    rows: Any = adapt(CARTPOLE, n_envs=2)
    return VecNormalize(rows, **kwargs)


def train(env: Any) -> Any:
    settings = {"network": {"hidden_size": 8}}
    return PlasticA2C("BackpropaminePolicy", env, seed=3, n_steps=32, policy_kwargs=settings).learn(256)


def lengths_by_hand(agent: Any, see: Any) -> list[int]:
    """One lifetime on each task, greedy, on observations that `see` prepared."""
    lengths: list[int] = []
    task: Task
    for task in TASKS:
        env = make_vector(CARTPOLE, 1)
        observation, _ = env.reset(seed=0, options={"tasks": [task]})
        state: Any = None
        start: npt.NDArray[np.bool_] = np.ones(1, bool)
        ended, steps = False, 0
        while not ended:
            actions, state = agent.predict(see(observation), state, start, True)
            observation, _, terminated, truncated, _ = env.step(actions)
            start = np.zeros(1, bool)
            ended, steps = bool(terminated[0] | truncated[0]), steps + 1
        env.close()
        lengths.append(steps)
    return lengths


def test_an_agent_trained_on_normalised_observations_sees_them_here_too() -> None:
    env = normalised_rows()
    agent = train(env)
    env.obs_rms.mean[:4] = (0.3, -0.5, 0.1, 0.4)
    env.obs_rms.var[:4] = (0.01, 0.2, 0.002, 0.1)
    seen: list[Any] = []
    features = agent.policy.features

    def spy(params: Any, observation: Any, *arguments: Any) -> Any:
        seen.append(observation.numpy())
        return features(params, observation, *arguments)

    agent.policy.features = spy
    agent.policy.network.core = Core(None, "the native core asks for no features")
    before = (env.obs_rms.mean.copy(), env.obs_rms.var.copy(), env.obs_rms.count)
    evaluation = evaluate(agent, CARTPOLE, tasks=6, resamples=10, references=False)
    assert_array_equal(env.obs_rms.mean, before[0])
    assert_array_equal(env.obs_rms.var, before[1])
    assert env.obs_rms.count == before[2]
    by_hand = lengths_by_hand(agent, env.normalize_obs)
    assert evaluation.splits["test"].greedy is not None
    assert evaluation.splits["test"].greedy.raw_score == np.mean(by_hand)
    seen.clear()
    first = run_lifetimes(agent, CARTPOLE, TASKS, deterministic=True)
    assert_array_equal(first.lengths, by_hand)
    shown, _ = make_vector(CARTPOLE, 6).reset(seed=0, options={"tasks": TASKS})
    assert_allclose(seen[0], env.normalize_obs(shown))
    assert_array_equal(seen[1][:, 6], np.ones(6))  # the reward of 1, exempt from normalisation
    assert abs(seen[0][:, :4]).min() > 0.3


def test_feedback_put_around_vec_normalize() -> None:
    inner: Any = VecNormalize(plain_rows())
    agent = train(inner)
    bounds = agent.observation_space

    def see(observation: Any) -> Any:
        features = inner.normalize_obs(observation[:, :4])
        return np.clip(np.concatenate([features, observation[:, 4:]], 1), bounds.low, bounds.high)

    lived = run_lifetimes(agent, CARTPOLE, TASKS, deterministic=True)
    assert_array_equal(lived.lengths, lengths_by_hand(agent, see))


@pytest.mark.parametrize("normalised", [False, True])
def test_a_stock_model_of_the_plain_environment_sees_no_feedback(normalised: bool) -> None:
    env: Any = VecNormalize(plain_rows()) if normalised else plain_rows()
    model = PPO("MlpPolicy", env, n_steps=32, batch_size=64, n_epochs=1, seed=0, device="cpu").learn(256)
    lived = run_lifetimes(model, CARTPOLE, TASKS, deterministic=True)

    def see(observation: Any) -> Any:
        return env.normalize_obs(observation[:, :4]) if normalised else observation[:, :4]

    assert_array_equal(lived.lengths, lengths_by_hand(model, see))


def test_loading_without_the_normalisation_says_so(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    agent = train(normalised_rows())
    path = tmp_path / "agent.zip"
    agent.save(path)
    recwarn.clear()
    again = PlasticA2C.load(path, env=normalised_rows())
    assert not [warning for warning in recwarn if "VecNormalize" in str(warning.message)]
    expected = run_lifetimes(agent, CARTPOLE, TASKS, deterministic=True)
    assert_array_equal(run_lifetimes(again, CARTPOLE, TASKS, deterministic=True).lengths, expected.lengths)
    for env in (None, adapt(CARTPOLE, n_envs=2), normalised_rows(norm_obs=False)):
        with pytest.warns(UserWarning, match="trained on observations that VecNormalize had normalised") as caught:
            PlasticA2C.load(path, env=env)
        assert sum("had normalised" in str(warning.message) for warning in caught) == 1
