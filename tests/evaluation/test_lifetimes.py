from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from stable_baselines3 import PPO

from plastic_rl.algorithms import PlasticA2C
from plastic_rl.algorithms.vec_env import adapt
from plastic_rl.envs import distribution_for
from plastic_rl.envs.task import RowNoise
from plastic_rl.errors import NonFiniteError, RunError, SpaceError
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
    assert_array_equal(lived.binned(lived.scores, 2), [[1.5, 3.5, 6.0], [2.0, 5.0, NAN]])
    assert_array_equal(lived.binned(lived.scores, 10), [[3.2], [3.0]])


def test_adaptation_is_the_last_tenth_of_the_trials_minus_the_first() -> None:
    twenty = [value for trial in range(20) for value in (float(trial), 0.5)]  # trials of two steps
    ends = [[0, 1] * 20, [0, 1] * 5 + [0] * 30]
    lived = lifetimes([twenty, twenty[:10] + [NAN] * 30], ends, steps_per_trial=2)
    # Two of twenty trials at either end: (18.5 + 19.5) / 2 - (.5 + 1.5) / 2; one of five (a half, rounded to even).
    assert_array_equal(lived.adaptation(), [18.0, 4.0])


def test_adaptation_is_told_in_steps_where_trials_do_not_tell_it() -> None:
    """Where a trial is a step, where trials of a lifetime of fixed length differ (a maze), where there is but one."""
    steps = [[1.0] * 3 + [0.0] * 24 + [2.0] * 3]  # a tenth of 30 steps are 3
    for ends, settings in (
        ([[1] * 30], {"lifetime_steps": 30, "steps_per_trial": 1}),
        ([[0, 1] + [0] * 27 + [1]], {"lifetime_steps": 30}),
        ([[0] * 29 + [1]], {}),
    ):
        assert_array_equal(lifetimes(steps, ends, **settings).adaptation(), [1.0])
    # A lifetime of one trial among others of several has none; nor has one of a single step.
    assert_array_equal(lifetimes([[1, 2, 3], [4, 4, 4]], [[1, 1, 1], [0, 0, 1]]).adaptation(), [2.0, NAN])
    assert_array_equal(lifetimes([[1]], [[1]]).adaptation(), [NAN])


def test_what_is_measured_is_averaged_where_it_is() -> None:
    values = np.array([[NAN, 2, NAN, NAN], [1, 3, 5, NAN]])
    lived = lifetimes([[1, 1, 1, 1]] * 2, [[0, 1, 0, 1]] * 2, steps_per_trial=2)
    assert_array_equal(lived.trial_means(values), [[2, NAN], [2, 5]])
    assert_array_equal(lived.binned(values, 4), [[2], [3]])


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


NETWORKS: dict[str, dict[str, Any]] = {
    "backpropamine": {"rule": "backpropamine_simple", "hidden_size": 8},
    "random start weights": {"kind": "plastic_feed_forward", "inputs": "all", "hidden_size": 4},
    "rule table": {"kind": "rule_table", "hidden_size": 8, "cap": 3, "inputs": "all", "tables": "label_free_hebb"},
}


def agent_of(network: dict[str, Any], env: str = REVERSAL, **kwargs: Any) -> PlasticA2C:
    return PlasticA2C("PlasticPolicy", env, n_envs=2, policy_kwargs={"network": network}, seed=0, **kwargs)


@pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS.keys())
def test_sampled_actions_and_start_weights_do_not_depend_on_who_lives_beside(network: dict[str, Any]) -> None:
    agent, tasks = agent_of(network), distribution_for(REVERSAL, {}).tasks("test", 0, 15)
    whole = run_lifetimes(agent, REVERSAL, tasks, seed=5)
    assert len(np.unique(whole.totals)) > 1
    for batch_size in (1, 7):
        assert_allclose(run_lifetimes(agent, REVERSAL, tasks, seed=5, batch_size=batch_size).scores, whole.scores)
    part = run_lifetimes(agent, REVERSAL, tasks[:4], seed=5)
    assert_allclose(part.scores, whole.scores[:4])
    other = run_lifetimes(agent, REVERSAL, tasks, seed=5, agent_seed=6)
    assert not np.allclose(other.scores, whole.scores)


CHANCE = [
    (REVERSAL, "random", {}),
    ("plastic_rl/CueAssociation-v0", "random", {}),
    ("plastic_rl/BernoulliBandit-v0", "thompson", {}),
    ("plastic_rl/Classification-v0", "mlp_bandit", {"steps": 10}),
    ("CartPole-v1", "random", {}),
]


@pytest.mark.parametrize(("env", "name", "arguments"), CHANCE, ids=lambda part: part if isinstance(part, str) else "")
def test_chance_of_reference_agents_does_not_depend_on_who_lives_beside(
    env: str, name: str, arguments: dict[str, Any]
) -> None:
    distribution = distribution_for(env, arguments)
    agent, tasks = distribution.reference_agents("test")[name], distribution.tasks("test", 0, 15)

    def live(batch_size: int, **words: Any) -> Any:
        return run_lifetimes(agent, env, tasks, env_kwargs=arguments, seed=5, batch_size=batch_size, **words)

    whole = live(1000)
    assert len(np.unique(whole.totals)) > 1
    for batch_size in (1, 7):
        assert_array_equal(live(batch_size).rewards, whole.rewards)
    assert not np.array_equal(live(1000, agent_seed=6).rewards, whole.rewards)


@pytest.mark.parametrize("kind", ["uniform", "normal"])
def test_noise_of_rows_is_keyed_by_seed_and_position(kind: Any) -> None:
    def drawn(seed: int, positions: list[int]) -> npt.NDArray[np.float64]:
        noise = RowNoise(seed, positions)
        return np.concatenate([noise.keys()[:, None], *(noise.draw(kind, 3) for _ in range(200))], axis=1)

    whole = drawn(4, list(range(1000)))
    for size in (1, 7, 1000):
        parts = [drawn(4, list(range(first, min(first + size, 20)))) for first in range(0, 20, size)]
        assert_array_equal(np.concatenate(parts), whole[:20])
    assert not (drawn(5, [0]) == whole[:1]).any()
    numbers = whole[:, 1:].ravel()
    assert numbers.mean() == pytest.approx(0.5 if kind == "uniform" else 0.0, abs=0.005)
    assert numbers.var() == pytest.approx(1 / 12 if kind == "uniform" else 1.0, rel=0.01)


@pytest.mark.parametrize("spoilt", ["action_head.bias", "network.alpha"])
def test_an_agent_that_becomes_nan_has_no_score(spoilt: str) -> None:
    agent, tasks = agent_of(NETWORKS["backpropamine"]), distribution_for(REVERSAL, {}).tasks("test", 3, 5)
    with torch.no_grad():
        agent.policy.get_parameter(spoilt).fill_(float("nan"))
    with pytest.raises(NonFiniteError, match=r"NaN or infinite after 0 steps on task 3 of test \(2 of 2 lifetimes\)"):
        run_lifetimes(agent, REVERSAL, tasks)


def test_a_state_that_is_not_finite_is_found_at_the_end_of_the_lifetime() -> None:
    agent = agent_of({"rule": "oja", "hidden_size": 4}, env_kwargs={"steps": 3})
    with torch.no_grad():
        agent.policy.get_parameter("network.eta").fill_(1e30)
        agent.policy.get_parameter("network.alpha").zero_()
    # The trace overflows with the third step, after which nothing is chosen any more.
    tasks = distribution_for(REVERSAL, {"steps": 3}).tasks("test", 0, 2)
    with pytest.raises(NonFiniteError, match=r"after 3 steps on task 0 of test \(2 of 2 lifetimes\)"):
        run_lifetimes(agent, REVERSAL, tasks, env_kwargs={"steps": 3})


def test_a_foreign_agent_whose_actions_are_nan_has_no_score() -> None:
    class Lost:
        def predict(self, observation: Any, state: Any = None, *_: Any) -> tuple[npt.NDArray[np.float32], Any]:
            return np.full((len(observation), 1), np.nan, np.float32), None

    with pytest.raises(NonFiniteError, match="after 0 steps on task 0 of test"):
        run_lifetimes(Lost(), "Pendulum-v1", distribution_for("Pendulum-v1").tasks("test", 0, 2))


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


def test_lifetimes_that_a_time_limit_cuts_off_are_over() -> None:
    distribution = distribution_for("Pendulum-v1")
    tasks, agent = distribution.tasks("test", 0, 3), distribution.reference_agents("test")["random"]
    assert run_lifetimes(agent, "Pendulum-v1", tasks, max_steps=250).lengths.tolist() == [200] * 3


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
    with pytest.raises(RunError, match="3 of 3 lifetimes had not ended after 99 steps"):
        run_lifetimes(LeftThenRight(), REVERSAL, tasks, max_steps=99)
    assert run_lifetimes(LeftThenRight(), REVERSAL, tasks, max_steps=100).lengths.tolist() == [100] * 3


def test_no_tasks_and_no_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one task"):
        run_lifetimes(LeftThenRight(), REVERSAL, [])
    with pytest.raises(ValueError, match="batch_size must be 1 or more"):
        run_lifetimes(LeftThenRight(), REVERSAL, distribution_for(REVERSAL, {}).tasks("test", 0, 1), batch_size=0)
