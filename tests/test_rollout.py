"""Actors of the one loop over steps."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from plastic_rl.envs import make_vector
from plastic_rl.feedback import FeedbackLayout
from plastic_rl.policies import RNNPolicy
from plastic_rl.rollout import BLOCK_STEPS, PolicyActor


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


@pytest.mark.parametrize("env_id", ["plastic_rl/GridMaze-v0", "plastic_rl/SupervisedClassification-v0"])
@pytest.mark.parametrize("shape", [(6,), (2, 3)])
@pytest.mark.parametrize("block_bytes", [1_000_000, 2_500])
def test_what_a_policy_is_shown_is_the_observation_and_its_feedback_and_stays(
    env_id: str, shape: tuple[int, ...], block_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over several blocks of steps, some of them of few steps where observations are large."""
    monkeypatch.setattr("plastic_rl.rollout.BLOCK_BYTES", block_bytes)
    env = make_vector(env_id, 6)
    policy = RNNPolicy(
        env.single_observation_space,
        env.single_action_space,
        feedback=FeedbackLayout.from_dict(env.metadata["feedback"]),
        network={"hidden_size": 4},
    )
    shown: list[Any] = []

    def step(params: Any, x: Any, feedback: Any, state: Any, starts: Any) -> Any:
        shown.append((x, feedback, starts))
        return torch.zeros(*shape, 4), state

    monkeypatch.setattr(policy.network, "step", step)
    actor = PolicyActor(policy, policy.parameters_by_name(), lambda _: None, shape)
    generator = np.random.default_rng(0)
    steps = 2 * sum(BLOCK_STEPS)
    observations = generator.random((steps, 6, policy.input_size), dtype=np.float32)
    starts = generator.random((steps, 6)) < 0.3
    with torch.no_grad():
        for time in range(steps):
            actor.act(time, observations[time], starts[time], {})
    assert len(shown) == steps
    for time, (x, feedback, begins) in enumerate(shown):
        own, own_starts = actor.seen(observations[time], starts[time])
        assert torch.equal(x, own)
        assert torch.equal(begins, own_starts)
        for told, cut in zip(feedback, policy.feedback(own, own_starts), strict=True):
            assert (told is None and cut is None) or torch.equal(told, cut)
