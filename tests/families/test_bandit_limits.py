"""The dynamic programs behind the limits of bandits, against closed forms and brute force."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from plastic_rl.envs import distribution_for
from plastic_rl.families.bernoulli_bandit import GittinsAgent, GittinsIndex, TwoArmedBayes, TwoArmedBayesAgent


@pytest.mark.parametrize(("steps", "value"), [(10, 6.0218), (50, 31.9967), (100, 64.9184)])
def test_value_of_the_exact_bayes_policy(steps, value):
    assert TwoArmedBayes(steps).value == pytest.approx(value, abs=5e-5)


@pytest.mark.parametrize("prior", [(1.0, 1.0), (2.0, 2.0)])
def test_bayes_policy_equals_recursion_over_all_beliefs(prior):
    steps = 6
    paid, missed = prior
    policy = TwoArmedBayes(steps, prior)

    @cache
    def value(counts: tuple[int, int, int, int]) -> float:
        return max(pulls(counts)) if sum(counts) < steps else 0.0

    def pulls(counts: tuple[int, int, int, int]) -> tuple[float, float]:
        results = []
        for arm in (0, 1):
            wins, losses = counts[2 * arm], counts[2 * arm + 1]
            p = (paid + wins) / (paid + missed + wins + losses)
            won, lost = list(counts), list(counts)
            won[2 * arm] += 1
            lost[2 * arm + 1] += 1
            results.append(p * (1 + value(tuple(won))) + (1 - p) * value(tuple(lost)))
        return results[0], results[1]

    assert policy.value == pytest.approx(value((0, 0, 0, 0)), abs=1e-12)
    for counts in np.ndindex(4, 4, 4, 4):
        if sum(counts) >= steps:
            continue
        first, second = pulls(counts)
        array = np.array([counts])
        preferred = policy.advantages(array[:, ::2], array[:, 1::2])[0]
        assert np.sign(preferred[0]) == (0 if abs(first - second) < 1e-12 else np.sign(first - second))


def test_index_of_the_last_pull_is_the_mean_and_of_two_pulls_the_closed_form():
    index = GittinsIndex(12)
    for wins, losses in ((0, 0), (3, 1), (0, 5), (4, 4)):
        p = (1 + wins) / (2 + wins + losses)
        after = (2 + wins) / (3 + wins + losses)
        # Two pulls left: p - L + p (after - L) = 0, since one goes on only after a success.
        two = p * (1 + after) / (1 + p)
        counts = np.array([wins]), np.array([losses])
        assert index(*counts, np.array([1]))[0] == pytest.approx(p, abs=1e-5)
        assert index(*counts, np.array([2]))[0] == pytest.approx(two, abs=1e-4)


def test_index_grows_with_the_horizon_and_with_each_success():
    index = GittinsIndex(40)
    left = np.arange(1, 31)
    values = index(np.array([3]), np.array([4]), left)
    assert (np.diff(values) > 0).all()
    wins = np.arange(8)
    assert (np.diff(index(wins, 7 - wins, np.array([20]))) > 0).all()


@pytest.mark.parametrize(("levels", "mean_error", "largest_error"), [(128, 2e-4, 4e-3), (512, 2e-5, 5e-4)])
def test_a_finer_grid_changes_the_index_little(levels, mean_error, largest_error):
    finest = GittinsIndex(40, levels=4096)
    every = [
        (wins, losses, left) for left in range(1, 41) for wins in range(41 - left) for losses in range(41 - left - wins)
    ]
    places = tuple(np.array(column) for column in zip(*every, strict=True))
    error = np.abs(GittinsIndex(40, levels=levels)(*places) - finest(*places))
    assert error.mean() < mean_error
    assert error.max() < largest_error


def policy_value(agent: GittinsAgent | TwoArmedBayesAgent, steps: int) -> float:
    """Exact value of a two-armed policy that depends on the counts alone, ties to the first arm."""
    values: dict[tuple[int, int, int, int], float] = {}
    for time in range(steps - 1, -1, -1):
        states = [
            (a, m - a, b, time - m - b) for m in range(time + 1) for a in range(m + 1) for b in range(time - m + 1)
        ]
        counts = np.array(states, dtype=np.float64)
        chosen = agent.scores(counts[:, ::2], counts[:, 1::2]).argmax(axis=1)
        for state, arm in zip(states, chosen.tolist(), strict=True):
            wins, losses = state[2 * arm], state[2 * arm + 1]
            p = (1 + wins) / (2 + wins + losses)
            won, lost = list(state), list(state)
            won[2 * arm] += 1
            lost[2 * arm + 1] += 1
            values[state] = p * (1 + values.get(tuple(won), 0.0)) + (1 - p) * values.get(tuple(lost), 0.0)
    return values[0, 0, 0, 0]


def test_the_index_policy_is_a_hair_below_bayes():
    steps = 20
    bayes = TwoArmedBayes(steps).value
    assert policy_value(TwoArmedBayesAgent(2, steps), steps) == pytest.approx(bayes, abs=1e-9)
    index = policy_value(GittinsAgent(2, steps), steps)
    assert 0.0 <= bayes - index < 2e-3 * bayes


def test_the_limit_of_the_shift_split_knows_its_prior():
    distribution = distribution_for("plastic_rl/BernoulliBandit-v0", {"arms": 2, "steps": 10})
    assert distribution.reference_agents("shift")["bayes"].prior == (2.0, 2.0)
    assert distribution.reference_agents("test")["bayes"].prior == (1.0, 1.0)
    assert TwoArmedBayes(10, (2.0, 2.0)).value < TwoArmedBayes(10).value
