from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from stable_baselines3 import PPO

from plastic_rl.algorithms.vec_env import adapt
from plastic_rl.envs import distribution_for
from plastic_rl.errors import RunError, SpaceError
from plastic_rl.evaluation import Lifetimes, evaluate, run_lifetimes

REVERSAL = "plastic_rl/ReversalBandit-v0"
BERNOULLI = "plastic_rl/BernoulliBandit-v0"


def lifetimes(scores: list[list[float]], ends: list[list[int]], **kwargs: Any) -> Lifetimes:
    table = np.array(scores, np.float64)
    settings = {"expected": True, "lifetime_steps": None, "steps_per_trial": None} | kwargs
    return Lifetimes(
        scores=table,
        rewards=table,
        trial_ends=np.array(ends, bool),
        lengths=(~np.isnan(table)).sum(1),
        **settings,
    )


NAN = float("nan")


def test_trial_returns_where_lifetimes_end_by_themselves() -> None:
    lived = lifetimes([[1, 2, 3, 4, 5], [1, 1, 1, NAN, NAN]], [[0, 1, 0, 1, 0], [0, 0, 1, 0, 0]])
    assert_array_equal(lived.trial_returns(), [[3, 7, 5], [3, NAN, NAN]])
    assert_array_equal(lived.totals, [15, 3])


def test_a_trial_that_a_fixed_horizon_cuts_short_is_left_out() -> None:
    lived = lifetimes([[1, 2, 3, 4, 5], [1, 2, 3, 4, 5]], [[0, 1, 0, 1, 0], [0, 0, 0, 0, 1]], lifetime_steps=5)
    assert_array_equal(lived.trial_returns(), [[3, 7], [15, NAN]])


def test_no_trial_was_finished() -> None:
    assert lifetimes([[1, 2]], [[0, 0]], lifetime_steps=2).trial_returns().shape == (1, 0)


def test_bins_are_means_per_step_and_the_last_may_be_short() -> None:
    lived = lifetimes([[1, 2, 3, 4, 6], [1, 3, 5, NAN, NAN]], [[0] * 5, [0] * 5])
    assert_array_equal(lived.binned(2), [[1.5, 3.5, 6.0], [2.0, 5.0, NAN]])
    assert_array_equal(lived.binned(10), [[3.2], [3.0]])


class LeftThenRight:
    """Pulls arm 0 and arm 1 in turn, by a count of its own in the state; spoils what it is given."""

    def __init__(self) -> None:
        self.starts: list[npt.NDArray[np.bool_]] = []

    def predict(
        self,
        observation: Any,
        state: Any = None,
        episode_start: npt.NDArray[np.bool_] | None = None,
        deterministic: bool = False,
    ) -> tuple[npt.NDArray[np.int64], Any]:
        assert episode_start is not None
        self.starts.append(episode_start.copy())
        state = np.zeros(len(observation), np.int64) if state is None else np.where(episode_start, 0, state)
        episode_start[:] = True
        return state % 2, state + 1


def test_scores_are_expected_rewards_of_the_actions_taken() -> None:
    tasks = distribution_for(BERNOULLI, {"arms": 2, "steps": 5}).tasks("test", 0, 7)
    agent = LeftThenRight()
    lived = run_lifetimes(agent, BERNOULLI, tasks, env_kwargs={"arms": 2, "steps": 5})
    arms = np.array([next(v for v in task.params.values() if isinstance(v, tuple)) for task in tasks])
    assert lived.expected
    assert_allclose(lived.scores, arms[:, [0, 1, 0, 1, 0]], atol=1e-12)
    assert_array_equal(np.unique(lived.rewards), [0.0, 1.0])
    assert_array_equal(lived.lengths, 5)
    assert lived.trial_ends.all()
    assert_array_equal([starts.all() for starts in agent.starts], [True, False, False, False, False])
    assert_array_equal([starts.any() for starts in agent.starts], [True, False, False, False, False])


@pytest.mark.parametrize("batch_size", [1, 4, 11])
def test_batch_size_changes_nothing_for_an_agent_without_chance(batch_size: int) -> None:
    tasks = distribution_for(REVERSAL, {}).tasks("test", 0, 11)
    whole = run_lifetimes(LeftThenRight(), REVERSAL, tasks, seed=5)
    parts = run_lifetimes(LeftThenRight(), REVERSAL, tasks, seed=5, batch_size=batch_size)
    assert_array_equal(parts.rewards, whole.rewards)
    assert_array_equal(parts.scores, whole.scores)


def test_environment_noise_follows_the_seed_and_the_agents_stream_its_own() -> None:
    distribution = distribution_for(REVERSAL, {})
    tasks = distribution.tasks("test", 0, 20)
    agent = distribution.reference_agents("test")["random"]
    first = run_lifetimes(agent, REVERSAL, tasks, seed=1)
    again = run_lifetimes(agent, REVERSAL, tasks, seed=1)
    assert_array_equal(first.rewards, again.rewards)
    other_actions = run_lifetimes(agent, REVERSAL, tasks, seed=1, agent_seed=2)
    assert not np.array_equal(first.scores, other_actions.scores)
    fixed = [run_lifetimes(LeftThenRight(), REVERSAL, tasks, seed=seed, agent_seed=9).rewards for seed in (1, 2)]
    assert not np.array_equal(*fixed)


def test_foreign_environments_of_several_trials_and_varying_length() -> None:
    tasks = distribution_for("CartPole-v1", {}).tasks("test", 0, 6)
    agent = distribution_for("CartPole-v1", {}).reference_agents("test")["random"]
    lived = run_lifetimes(agent, "CartPole-v1", tasks, trials=3, seed=2)
    assert not lived.expected
    assert lived.lifetime_steps is None
    assert_array_equal(lived.totals, lived.lengths)  # reward 1 a step
    assert len(set(lived.lengths.tolist())) > 1
    returns = lived.trial_returns()
    assert returns.shape == (6, 3)
    assert_array_equal(returns.sum(1), lived.totals)
    assert_array_equal(np.isnan(lived.scores).sum(1), lived.scores.shape[1] - lived.lengths)


@pytest.mark.parametrize(("same", "score"), [(None, 2.0), (True, 2.0), (False, 0.0)])
def test_trials_of_a_foreign_environment_are_one_task_unless_told_otherwise(
    drawing: str, same: bool | None, score: float
) -> None:
    distribution = distribution_for(drawing)
    tasks, agent = distribution.tasks("test", 0, 5), distribution.reference_agents("test")["random"]
    lived = run_lifetimes(agent, drawing, tasks, trials=3, same_task_each_trial=same)
    assert lived.totals.tolist() == [score] * 5
    evaluation = evaluate(agent, drawing, tasks=5, trials=3, same_task_each_trial=same, resamples=10)
    assert evaluation.same_task_each_trial is same
    assert evaluation.splits["test"].raw_score == score
    assert evaluation.splits["test"].reference_agents["random"].raw_score == score


def test_a_stock_model_of_stable_baselines3_lives_reproducibly_and_leaves_global_chance_alone() -> None:
    model = PPO("MlpPolicy", adapt(REVERSAL, n_envs=2), n_steps=8, batch_size=16, seed=0, device="cpu")
    model.learn(16)
    tasks = distribution_for(REVERSAL, {}).tasks("valid", 0, 12)
    before = torch.get_rng_state()
    first = run_lifetimes(model, REVERSAL, tasks, seed=3)
    torch.rand(5)
    second = run_lifetimes(model, REVERSAL, tasks, seed=3)
    assert_array_equal(first.rewards, second.rewards)
    torch.set_rng_state(before)
    expected = torch.rand(3)
    torch.set_rng_state(before)
    run_lifetimes(model, REVERSAL, tasks, seed=3)
    assert torch.equal(torch.rand(3), expected)
    greedy = run_lifetimes(model, REVERSAL, tasks, seed=3, deterministic=True)
    sampled_changes, greedy_changes = ((np.abs(np.diff(lived.scores, axis=1)) > 0).mean() for lived in (first, greedy))
    assert greedy_changes < sampled_changes


def test_an_agent_for_another_environment_is_refused() -> None:
    class Misfit(LeftThenRight):
        observation_space = gymnasium.spaces.Box(-1.0, 1.0, (99,))

    tasks = distribution_for(REVERSAL, {}).tasks("test", 0, 1)
    with pytest.raises(SpaceError, match=r"observation space \(99 columns\) does not fit plastic_rl/ReversalBandit-v0"):
        run_lifetimes(Misfit(), REVERSAL, tasks)


def test_a_lifetime_that_does_not_end_is_an_error() -> None:
    tasks = distribution_for(REVERSAL, {}).tasks("test", 0, 3)
    with pytest.raises(RunError, match="3 of 3 lifetimes had not ended after 10 steps"):
        run_lifetimes(LeftThenRight(), REVERSAL, tasks, max_steps=10)


def test_no_tasks_and_no_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one task"):
        run_lifetimes(LeftThenRight(), REVERSAL, [])
    with pytest.raises(ValueError, match="batch_size must be 1 or more"):
        run_lifetimes(LeftThenRight(), REVERSAL, distribution_for(REVERSAL, {}).tasks("test", 0, 1), batch_size=0)
