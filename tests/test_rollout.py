"""Actors of the one loop over steps."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from plastic_rl.envs import make_vector
from plastic_rl.feedback import CutFeedback, Feedback, FeedbackLayout
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


@pytest.mark.parametrize("env_id", ["plastic_rl/GridMaze-v0", "plastic_rl/SupervisedClassification-v0"])
@pytest.mark.parametrize("shape", [(6,), (2, 3)])
def test_feedback_cut_when_it_is_read_is_the_feedback(env_id: str, shape: tuple[int, ...]) -> None:
    env = make_vector(env_id, 6)
    layout = FeedbackLayout.from_dict(env.metadata["feedback"])
    generator = torch.Generator().manual_seed(0)
    observation = torch.rand(*shape, layout.stop, generator=generator)
    starts = torch.rand(shape, generator=generator) < 0.5
    cut = CutFeedback(layout, observation, starts)
    assert torch.equal(cut.action, observation[..., slice(*layout.action)])
    assert torch.equal(cut.reward, observation[..., layout.reward[0]])
    assert torch.equal(cut.trial_start, observation[..., layout.trial_start[0]] > 0.5)
    assert torch.equal(cut.valid, ~starts)
    assert (cut.label is None) == (layout.label is None)
    if cut.label is not None and layout.label is not None:
        assert torch.equal(cut.label, observation[..., slice(*layout.label)])
    replaced = cut._replace(valid=starts)
    assert isinstance(replaced, Feedback)
    assert torch.equal(replaced.valid, starts)
    assert replaced.action is cut.action


@pytest.mark.parametrize("checked", [False, True])
def test_acting_in_numpy_chooses_what_torch_would(checked: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    env = make_vector("plastic_rl/GridMaze-v0", 500)
    policy = RNNPolicy(
        env.single_observation_space,
        env.single_action_space,
        feedback=FeedbackLayout.from_dict(env.metadata["feedback"]),
        network={"hidden_size": 8},
        action_head_scale=5.0,
    )
    observation, _ = env.reset(seed=0)
    observation = np.random.default_rng(0).random(observation.shape, dtype=np.float32)
    starts, state = np.ones(500, dtype=np.bool_), policy.network.initial_state(500)
    noises = [None, policy.distribution.draw_noise((500,), torch.Generator().manual_seed(0))]
    for noise in noises:
        acted = []
        for small in (2**17, 0):
            monkeypatch.setattr("plastic_rl.policies.policy.SMALL_HEAD", small)
            actor = PolicyActor(policy, policy.parameters_by_name(), lambda _, n=noise: n, (500,), checked=checked)  # type: ignore[misc]
            assert (actor._array_head is None) == (small == 0)
            with torch.no_grad():
                acted.append(actor.act(0, observation, starts, state))
        assert np.array_equal(acted[0].actions, acted[1].actions)
        assert acted[0].actions.dtype == acted[1].actions.dtype
        assert np.array_equal(acted[0].sampled, acted[1].sampled)
        assert len(set(acted[0].actions.tolist())) == 4


def test_answers_that_are_not_finite_are_found_in_numpy_too() -> None:
    env = make_vector("plastic_rl/ReversalBandit-v0", 3)
    layout = FeedbackLayout.from_dict(env.metadata["feedback"])
    policy = RNNPolicy(
        env.single_observation_space, env.single_action_space, feedback=layout, network={"hidden_size": 4}
    )
    observation, _ = env.reset(seed=0)
    state = policy.network.initial_state(3)
    noise = policy.distribution.draw_noise((3,), torch.Generator().manual_seed(0))
    for bad, finite in ((math.nan, False), (math.inf, False), (-math.inf, True)):
        with torch.no_grad():
            policy.get_parameter("action_head.bias")[0] = bad
            actor = PolicyActor(policy, policy.parameters_by_name(), lambda _: noise, (3,), checked=True)
            acted = actor.act(0, observation, np.ones(3, dtype=np.bool_), state)
        if finite:
            assert acted.finite is None
            assert acted.actions.tolist() == [1, 1, 1]
        else:
            assert acted.finite is not None
            assert not acted.finite.any()
