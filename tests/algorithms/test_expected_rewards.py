"""Learning from expected rewards, scores from them, and what a checkpoint keeps of both."""

from __future__ import annotations

import gymnasium as gym
import pytest
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from stable_baselines3.common.vec_env import VecNormalize

from plastic_rl.algorithms import PlasticA2C
from plastic_rl.algorithms.vec_env import VectorEnvAdapter
from plastic_rl.envs import make_vector
from plastic_rl.errors import ConfigError
from tests.algorithms.a2c_cases import BANDIT, equal, make, params_of


def test_expected_rewards_are_learned_from_and_drawn_ones_seen() -> None:
    agent, drawn = make(expected_rewards=True), make()
    agent.learn(80)
    rollout = agent.rollout
    assert rollout.rewards.unique().tolist() == pytest.approx([0.2, 0.8])
    assert rollout.rewards.sum(0).tolist() == pytest.approx(list(agent.score_buffer))
    # The observation's third column is the reward of the step before.
    seen = rollout.observations[1:, :, 2]
    assert set(seen.unique().tolist()) == {0.0, 1.0}
    drawn.learn(80)
    assert torch.equal(drawn.rollout.observations, rollout.observations)
    assert torch.equal(drawn.rollout.rewards[:-1], seen)
    assert not equal(params_of(agent), params_of(drawn))


@pytest.mark.parametrize("expected_rewards", [False, True])
def test_autoreset_modes_score_alike(expected_rewards: bool) -> None:
    """Where Gymnasium's own vector environment resets at once, `final_info` has what the last step reported."""
    scores = []
    for mode in (AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP, AutoresetMode.DISABLED):
        rows = [lambda: gym.make("plastic_rl/BernoulliBandit-v0", steps=6)] * 3
        env = SyncVectorEnv(rows, autoreset_mode=mode)
        agent = make(env, env_kwargs={}, n_envs=3, n_steps=7, learning_rate=0.0, expected_rewards=expected_rewards)
        agent.learn(3 * 7)
        scores.append(list(agent.score_buffer))
        if expected_rewards:
            lived = agent.rollout.rewards[:6].sum(0).tolist()
            assert scores[-1] == pytest.approx(lived, abs=1e-6)
    assert scores[0] == pytest.approx(scores[1])
    assert scores[0] == pytest.approx(scores[2])


def test_expected_rewards_are_refused_where_none_are_reported() -> None:
    agent = make("CartPole-v1", expected_rewards=True)
    with pytest.raises(ConfigError, match="expected_rewards needs an environment that reports them"):
        agent.learn(80)
    env = VectorEnvAdapter(make_vector(BANDIT, num_envs=4))
    with pytest.raises(ConfigError, match="expected_rewards learns from rewards that VecNormalize does not scale"):
        make(VecNormalize(env), expected_rewards=True)
    agent = make(VecNormalize(env, norm_reward=False), expected_rewards=True).learn(80)
    agent.set_env(VecNormalize(env))
    with pytest.raises(ConfigError, match="expected_rewards learns from rewards that VecNormalize does not scale"):
        agent.learn(80)


def test_a_checkpoint_stays_as_it_was_taken() -> None:
    agent = make(expected_rewards=True).learn(80)
    checkpoint, before = agent.get_checkpoint(), params_of(agent)
    agent.learn(80, reset_num_timesteps=False)
    assert not equal(params_of(agent), before)
    assert equal(checkpoint.tensors["params"], before)
    again = PlasticA2C.from_checkpoint(checkpoint, BANDIT, "cpu")
    assert again.expected_rewards
    # As a checkpoint was that is older than the setting.
    del checkpoint.config["arguments"]["expected_rewards"]
    assert not PlasticA2C.from_checkpoint(checkpoint, BANDIT, "cpu").expected_rewards
