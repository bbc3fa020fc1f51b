"""Advantages against closed forms, and the guards of the rollout."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from plastic_rl.algorithms.a2c import advantages_and_returns
from plastic_rl.algorithms.gradient import RolloutBuffer
from plastic_rl.errors import NonFiniteError
from plastic_rl.rollout import Acted, Step, StepOutcome


def test_three_steps_by_hand() -> None:
    # gamma .5, lambda .5, rewards 1, 2, 3, values 4, 5, 6, value behind the last step 8, nothing ends:
    # delta_2 = 3 + .5*8 - 6 = 1;      A_2 = 1
    # delta_1 = 2 + .5*6 - 5 = 0;      A_1 = 0 + .25*1 = .25
    # delta_0 = 1 + .5*5 - 4 = -.5;    A_0 = -.5 + .25*.25 = -.4375
    rewards = torch.tensor([[1.0], [2.0], [3.0]])
    values = torch.tensor([[4.0], [5.0], [6.0]])
    nothing = torch.zeros(3, 1)
    advantages, returns = advantages_and_returns(
        rewards, values, nothing.bool(), nothing, torch.tensor([8.0]), gamma=0.5, gae_lambda=0.5
    )
    assert advantages.squeeze(-1).tolist() == [-0.4375, 0.25, 1.0]
    assert returns.squeeze(-1).tolist() == [3.5625, 5.25, 7.0]


def test_lambda_one_is_discounted_returns_cut_at_the_end_of_a_lifetime() -> None:
    rewards = torch.ones(5, 1, dtype=torch.float64)
    ended = torch.tensor([[False], [True], [False], [False], [True]])
    zero = torch.zeros(5, 1, dtype=torch.float64)
    values = torch.full((5, 1), 0.7, dtype=torch.float64)
    _, returns = advantages_and_returns(rewards, values, ended, zero, torch.tensor([99.0]).double(), 0.9, 1.0)
    assert returns.squeeze(-1).tolist() == pytest.approx([1.9, 1.0, 1 + 0.9 + 0.81, 1.9, 1.0], abs=1e-12)


def test_truncation_bootstraps_and_termination_does_not() -> None:
    rewards = torch.zeros(2, 2)
    ended = torch.tensor([[True, True], [False, False]])
    bootstrap = torch.tensor([[10.0, 0.0], [0.0, 0.0]])
    _, returns = advantages_and_returns(
        rewards, torch.zeros(2, 2), ended, bootstrap, torch.zeros(2), gamma=0.9, gae_lambda=0.95
    )
    assert returns[0].tolist() == [9.0, 0.0]


def test_constant_reward_has_the_geometric_value_as_fixed_point() -> None:
    # With r = 1 and V = 1 / (1 - gamma) everywhere, every advantage is 0.
    value = 1 / (1 - 0.9)
    advantages, _ = advantages_and_returns(
        torch.ones(50, 3, dtype=torch.float64),
        torch.full((50, 3), value, dtype=torch.float64),
        torch.zeros(50, 3, dtype=torch.bool),
        torch.zeros(50, 3, dtype=torch.float64),
        torch.full((3,), value, dtype=torch.float64),
        0.9,
        0.95,
    )
    assert advantages.abs().max().item() < 1e-12


def test_each_element_uses_its_own_baseline() -> None:
    """The published code took the value of batch element 0 for every element; elements must not mix."""
    generator = torch.Generator().manual_seed(0)
    rewards, values = torch.rand(7, 4, generator=generator), torch.rand(7, 4, generator=generator)
    ended = torch.rand(7, 4, generator=generator) < 0.2
    zero, last = torch.zeros(7, 4), torch.rand(4, generator=generator)
    together, _ = advantages_and_returns(rewards, values, ended, zero, last, 0.9, 0.95)
    for row in range(4):
        own = slice(row, row + 1)
        alone, _ = advantages_and_returns(
            rewards[:, own], values[:, own], ended[:, own], zero[:, own], last[own], 0.9, 0.95
        )
        assert torch.equal(together[:, own], alone)
    changed = values.clone()
    changed[:, 0] += 1.0
    after, _ = advantages_and_returns(rewards, changed, ended, zero, last, 0.9, 0.95)
    assert torch.equal(after[:, 1:], together[:, 1:])
    assert not torch.allclose(after[:, 0], together[:, 0])


@pytest.mark.parametrize(
    ("name", "value"), [("observations", math.nan), ("rewards", math.inf), ("bootstrap", math.nan)]
)
def test_a_non_finite_number_is_named_with_its_place(name: str, value: float) -> None:
    rollout = RolloutBuffer(4, 3, 2, torch.device("cpu"))
    getattr(rollout, name)[2, 1] = value
    with pytest.raises(NonFiniteError, match=f"{name.rstrip('s')} of environment 1 at step 2"):
        rollout.check_finite()


def test_finite_numbers_whose_sum_is_not_finite_pass() -> None:
    rollout = RolloutBuffer(4, 3, 2, torch.device("cpu"))
    rollout.observations[:] = 3e38
    rollout.check_finite()


def test_what_is_stored_row_by_row_is_what_is_learned_from() -> None:
    generator = np.random.default_rng(0)
    rollout = RolloutBuffer(4, 3, 2, torch.device("cpu"))
    stored = []
    for time in range(4):
        ended, counted, starts = (generator.random(3) < 0.5 for _ in range(3))
        reward = generator.random(3)
        nothing = np.zeros(3, dtype=np.bool_)
        outcome = StepOutcome(np.zeros((3, 2)), nothing, reward, reward, nothing, ended, counted, nothing)
        acted = Acted(np.zeros(3), None, torch.tensor([time, 1, 2]))
        step = Step(time, generator.random((3, 2), dtype=np.float32), starts, acted, outcome)
        rollout.store(step, reward)
        stored.append(step)
    rollout.complete()
    assert np.array_equal(rollout.observations, np.stack([step.observation for step in stored]))
    assert np.array_equal(rollout.episode_starts, np.stack([step.starts for step in stored]))
    assert np.array_equal(rollout.rewards, np.stack([step.outcome.reward for step in stored]).astype(np.float32))
    assert np.array_equal(rollout.ended, np.stack([step.outcome.ended for step in stored]))
    assert np.array_equal(rollout.counted, np.stack([step.outcome.counted for step in stored]))
    assert rollout.actions[:, 0].tolist() == [0, 1, 2, 3]
    assert (rollout.counted.dtype, rollout.ended.dtype, rollout.actions.dtype) == (
        torch.float32,
        torch.bool,
        torch.int64,
    )
