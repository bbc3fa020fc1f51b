"""Actors of the one loop over steps."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from plastic_rl.envs import make_vector
from plastic_rl.feedback import FeedbackLayout
from plastic_rl.policies import RNNPolicy
from plastic_rl.rollout import PolicyActor


@pytest.mark.parametrize(
    ("env_id", "finite"),
    [
        ("plastic_rl/ReversalBandit-v0", [True, False, False, True]),
        ("Pendulum-v1", [True, False, False, False]),
    ],
)
def test_individuals_whose_answers_are_not_finite_are_told_apart_and_act_validly(
    env_id: str, finite: list[bool]
) -> None:
    """Minus infinity is the preference of an action that is never taken, and no torque."""
    env = make_vector(env_id, 3)
    layout = FeedbackLayout.from_dict(env.metadata["feedback"])
    policy = RNNPolicy(
        env.single_observation_space, env.single_action_space, feedback=layout, network={"hidden_size": 4}
    )
    params = {name: value.detach().expand(4, *value.shape).clone() for name, value in policy.named_parameters()}
    params["action_head.bias"][:, 0] = torch.tensor([0.0, math.nan, math.inf, -math.inf])
    noise = policy.distribution.draw_noise((4, 3), torch.Generator().manual_seed(0))
    observation, _ = env.reset(seed=0)
    observations, starts = np.tile(observation, (4, 1)), np.ones(12, dtype=np.bool_)
    state = {name: entry.expand(4, *entry.shape) for name, entry in policy.network.initial_state(3).items()}
    acted = PolicyActor(policy, params, lambda _: noise, (4, 3), checked=True).act(0, observations, starts, state)
    assert acted.finite is not None
    assert acted.finite.tolist() == np.repeat(finite, 3).tolist()
    assert all(action in env.single_action_space for action in acted.actions)
    assert not acted.actions[~acted.finite].any()
    if finite[3]:
        assert acted.actions[9:].tolist() == [1, 1, 1]
