"""The plastic feed-forward network as a policy: every algorithm, every kind of action, frozen or not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces

from plastic_rl.algorithms import CMAES, PlasticA2C
from plastic_rl.envs import Lifetime, make_vector
from plastic_rl.errors import SpaceError
from plastic_rl.evaluation import run_lifetimes
from plastic_rl.families.swapped_cartpole import SwappedCartPoleTasks
from plastic_rl.feedback import FeedbackLayout
from plastic_rl.policies import PlasticPolicy

ENV_ID = "plastic_rl/SwappedCartPole-v0"
SHORT = {"trials": 2, "trial_steps": 30}
NETWORKS: dict[str, dict[str, Any]] = {
    "abcd": {"hidden_size": [6], "readout": "greedy"},
    "reward_gated": {"hidden_size": [6], "rule": "reward_gated", "inputs": "all"},
    "fixed": {"hidden_size": [6], "rule": "fixed", "start": "trained"},
}
every_network = pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS.keys())


def with_kind(network: dict[str, Any]) -> dict[str, Any]:
    return {"network": {"kind": "plastic_feed_forward", **network}}


@every_network
def test_evolves_saves_and_comes_back(network: dict[str, Any], tmp_path: Path) -> None:
    agent = CMAES(
        "PlasticPolicy",
        ENV_ID,
        env_kwargs=SHORT,
        population_size=4,
        lifetimes=2,
        policy_kwargs=with_kind(network),
        seed=0,
    )
    before = agent.search.mean.copy()
    agent.learn(generations=2)
    assert (agent.search.mean != before).any()
    agent.save(tmp_path / "agent.zip")
    loaded = CMAES.load(tmp_path / "agent.zip")
    observations, _ = make_vector(ENV_ID, 5, env_kwargs=SHORT).reset(seed=0)
    for one in (agent, loaded):
        one.policy.sampling.manual_seed(3)
    actions, state = agent.predict(observations)
    again, same = loaded.predict(observations)
    np.testing.assert_array_equal(actions, again)
    torch.testing.assert_close(state, same, atol=0, rtol=0)
    agent.predict(observations, state, np.array([True, False, False, True, False]))


@every_network
def test_learns_by_gradient_too(network: dict[str, Any]) -> None:
    learned = network | ({"readout": "softmax"} if network.get("readout") == "greedy" else {})
    agent = PlasticA2C(
        "PlasticPolicy", ENV_ID, env_kwargs=SHORT, n_envs=3, n_steps=40, policy_kwargs=with_kind(learned), seed=0
    )
    before = {name: value.clone() for name, value in agent.policy.parameters_by_name().items()}
    agent.learn(2 * 40 * 3)
    moved = [name for name, value in agent.policy.parameters_by_name().items() if not torch.equal(value, before[name])]
    assert "network.readout_scale" in moved
    rule = {"abcd": "coefficient_a", "fixed": "weight"}.get(learned.get("rule", "abcd"), "eta")
    assert f"network.layers.0.{rule}" in moved
    assert all(bool(value.isfinite().all()) for value in agent.policy.parameters_by_name().values())


def test_with_plasticity_frozen_the_start_weights_stay() -> None:
    agent = CMAES("PlasticPolicy", ENV_ID, env_kwargs=SHORT, policy_kwargs=with_kind(NETWORKS["abcd"]), seed=0)
    tasks = SwappedCartPoleTasks(**SHORT).tasks("valid", 0, 4)
    with agent.freeze_plasticity():
        frozen = run_lifetimes(agent, ENV_ID, tasks, env_kwargs=SHORT, seed=0)
    plastic = run_lifetimes(agent, ENV_ID, tasks, env_kwargs=SHORT, seed=0)
    assert frozen.totals.tolist() != plastic.totals.tolist()
    _, state = agent.predict(np.zeros((2, 7), dtype=np.float32))
    with agent.freeze_plasticity():
        _, after = agent.predict(np.ones((2, 7), dtype=np.float32), state, np.zeros(2, dtype=np.bool_))
    torch.testing.assert_close(after, state, atol=0, rtol=0)


def test_continuous_actions_are_the_outputs_within_one() -> None:
    env = Lifetime(gymnasium.make("Pendulum-v1"))
    layout = FeedbackLayout.from_dict(env.metadata["feedback"])
    policy = PlasticPolicy(
        env.observation_space,
        env.action_space,
        feedback=layout,
        network={"kind": "plastic_feed_forward", "readout": "mean"},
        generator=torch.Generator().manual_seed(0),
    )
    observation, _ = env.reset(seed=0)
    action, _ = policy.predict(observation, deterministic=True)
    assert action.shape == (1,)
    assert 0 < abs(action[0]) < 1


def test_several_discrete_actions_are_one_preference_for_each_choice() -> None:
    policy = PlasticPolicy(
        spaces.Box(-1, 1, (10,)),
        spaces.MultiDiscrete([2, 3]),
        feedback=FeedbackLayout.after(2, 5),
        network={"kind": "plastic_feed_forward"},
        generator=torch.Generator().manual_seed(0),
    )
    assert policy.network.output_size == 5
    assert policy.predict(np.zeros((4, 10), dtype=np.float32))[0].shape == (4, 2)
    with pytest.raises(SpaceError, match="need 4"):
        PlasticPolicy(
            spaces.Box(-1, 1, (10,)),
            spaces.Discrete(4),
            feedback=FeedbackLayout.after(2, 5),
            network={"kind": "plastic_feed_forward"},
        )
