from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats

import plastic_rl.evaluation.statistics as statistics
from plastic_rl.evaluation.statistics import (
    bootstrap_means,
    crossed_difference,
    crossed_interval,
    holm,
    mean_of_present,
    normalise,
    normalised_interval,
    pair,
    percentile_interval,
    student_t_interval,
)


def test_bootstrap_means_have_the_mean_and_the_standard_error_of_the_sample() -> None:
    values = np.random.default_rng(0).gamma(2.0, size=(400, 3))
    means = bootstrap_means(values, 20_000, np.random.default_rng(1))
    standard_error = values.std(0) / np.sqrt(400)
    assert_allclose(means.mean(0), values.mean(0), atol=4 * standard_error.max() / np.sqrt(20_000))
    assert_allclose(means.std(0), standard_error, rtol=0.02)


def test_bootstrap_of_two_tasks_follows_the_binomial() -> None:
    means = bootstrap_means([[0.0], [1.0]], 40_000, np.random.default_rng(2))[:, 0]
    shares = [(means == value).mean() for value in (0.0, 0.5, 1.0)]
    assert_allclose(shares, [0.25, 0.5, 0.25], atol=0.01)


@pytest.mark.parametrize("ragged", [False, True])
def test_chunks_of_memory_do_not_change_the_result(ragged: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(3).normal(size=(57, 4))
    if ragged:
        values[20:, 3] = np.nan
    whole = bootstrap_means(values, 101, np.random.default_rng(4))
    monkeypatch.setattr(statistics, "_CHUNK_ELEMENTS", 57 * 7)
    assert_allclose(bootstrap_means(values, 101, np.random.default_rng(4)), whole, atol=1e-14)


def test_columns_are_resampled_together() -> None:
    first = np.random.default_rng(5).normal(size=300)
    means = bootstrap_means(np.stack([first, first + 2.0], 1), 500, np.random.default_rng(6))
    assert_allclose(means[:, 1] - means[:, 0], 2.0, atol=1e-12)


def test_a_constant_column_has_an_interval_of_no_width() -> None:
    assert pair(bootstrap_means(np.full((1000, 1), 0.1), 2000, np.random.default_rng(0))[:, 0]) == (0.1, 0.1)


def test_missing_values_are_means_over_the_tasks_that_have_one() -> None:
    values = np.array([[1.0, np.nan], [2.0, 5.0], [3.0, np.nan]])
    assert_array_equal(mean_of_present(values), [2.0, 5.0])
    means = bootstrap_means(values, 3000, np.random.default_rng(7))
    held = ~np.isnan(means[:, 1])
    assert_allclose(held.mean(), 1 - (2 / 3) ** 3, atol=0.03)
    assert_array_equal(np.unique(means[held, 1]), [5.0])


def test_intervals_cover_the_true_mean_as_often_as_they_say() -> None:
    generator = np.random.default_rng(8)
    repetitions, hits = 600, 0
    for repetition in range(repetitions):
        values = generator.exponential(size=(200, 1))
        low, high = pair(bootstrap_means(values, 400, np.random.default_rng(repetition))[:, 0])
        hits += low <= 1.0 <= high
    # Binomial standard error .009; the percentile interval of 200 skewed values covers about .94.
    assert hits / repetitions == pytest.approx(0.94, abs=0.03)


def test_intervals_of_the_normalised_score_cover_the_true_ratio() -> None:
    generator = np.random.default_rng(9)
    repetitions, hits = 400, 0
    for _ in range(repetitions):
        difficulty = generator.normal(scale=3.0, size=150)  # shared by all agents: what pairing removes
        raw, random, limit = (
            difficulty + level + generator.normal(size=150) for level in (8.0, 2.0, 10.0)
        )  # true score 6 / 8
        means = bootstrap_means(np.stack([raw, random, limit], 1), 400, generator)
        interval = normalised_interval(means[:, 0], means[:, 1], means[:, 2])
        assert interval is not None
        hits += interval[0] <= 0.75 <= interval[1]
    assert hits / repetitions == pytest.approx(0.945, abs=0.035)


def test_pairing_narrows_the_interval_of_a_difference_as_theory_says() -> None:
    generator = np.random.default_rng(10)
    difficulty = generator.normal(scale=3.0, size=2000)
    first, second = difficulty + generator.normal(size=2000), difficulty + generator.normal(size=2000)
    paired = bootstrap_means(np.stack([first, second], 1), 4000, generator)
    low, high = percentile_interval(paired[:, 0] - paired[:, 1])
    alone = bootstrap_means(second[:, None], 4000, generator)[:, 0]
    wide_low, wide_high = percentile_interval(paired[:, 0] - alone)
    # Variances 1 + 1 against 10 + 10.
    assert (wide_high - wide_low) / (high - low) == pytest.approx(np.sqrt(10), rel=0.08)
    assert high - low == pytest.approx(2 * 1.96 * np.sqrt(2 / 2000), rel=0.08)


def test_normalised_score_is_0_at_random_1_at_the_limit_and_may_be_negative() -> None:
    assert_array_equal(normalise([50.0, 75.0, 25.0, 100.0], 50.0, 75.0), [0.0, 1.0, -1.0, 2.0])
    assert np.isnan(normalise(1.0, 2.0, 2.0))
    assert np.isnan(normalise(1.0, 2.0, 1.5))


def test_no_interval_where_the_limit_may_not_be_above_random() -> None:
    assert normalised_interval(np.ones(3), np.array([0.0, 1.0, 2.0]), np.full(3, 1.5)) is None


def test_student_t_interval_of_few_runs() -> None:
    values = np.array([[1.0, 0.0], [2.0, np.nan], [4.0, np.nan]])
    mean, low, high = student_t_interval(values)
    half = 4.302653 * np.sqrt(((1 - 7 / 3) ** 2 + (2 - 7 / 3) ** 2 + (4 - 7 / 3) ** 2) / 2 / 3)
    assert_allclose([mean[0], low[0], high[0]], [7 / 3, 7 / 3 - half, 7 / 3 + half], rtol=1e-6)
    assert mean[1] == 0.0
    assert np.isnan(low[1])
    assert np.isnan(high[1])


def test_student_t_intervals_of_three_runs_cover_95_percent() -> None:
    runs = np.random.default_rng(11).normal(loc=5.0, size=(3, 20_000))
    _, low, high = student_t_interval(runs)
    assert ((low <= 5.0) & (high >= 5.0)).mean() == pytest.approx(0.95, abs=0.006)


def test_holm_by_hand() -> None:
    # Holm 1979: the least p times m, the next times m - 1, ..., never falling, never above 1.
    assert_allclose(holm([0.04, 0.001, 0.6, 0.012]), [0.08, 0.004, 0.6, 0.036], rtol=1e-12)
    assert_allclose(holm([0.02, 0.021, 0.9]), [0.06, 0.06, 0.9], rtol=1e-12)
    assert_allclose(holm([0.3, 0.5]), [0.6, 0.6], rtol=1e-12)
    assert holm([0.03]).item() == 0.03


def test_a_test_that_was_not_made_counts_and_making_it_lowers_the_others_only() -> None:
    before = holm([0.02, np.nan, 0.01])
    assert_allclose(before, [0.04, np.nan, 0.03], rtol=1e-12)
    for p in (0.001, 0.015, 0.3, 1.0):
        after = holm([0.02, p, 0.01])
        assert (after[[0, 2]] <= before[[0, 2]] + 1e-15).all()


def test_the_difference_of_two_sides_is_welchs_test_where_there_is_one_task() -> None:
    from scipy.stats import ttest_ind

    generator = np.random.default_rng(12)
    one, other = generator.normal(1.0, 1.0, (5, 1)), generator.normal(0.0, 3.0, (4, 1))
    found = crossed_difference(one, other)
    expected = ttest_ind(one[:, 0], other[:, 0], equal_var=False)
    low, high = expected.confidence_interval(0.95)
    assert_allclose(found, [one.mean() - other.mean(), low, high, expected.pvalue, expected.df], rtol=1e-9)


def test_the_difference_of_two_sides_is_a_paired_test_over_tasks_where_seeds_are_all_alike() -> None:
    from scipy.stats import ttest_rel

    generator = np.random.default_rng(13)
    difficulty = generator.normal(scale=5.0, size=12)
    one, other = difficulty + generator.normal(0.3, 1.0, 12), difficulty + generator.normal(0.0, 1.0, 12)
    found = crossed_difference(np.tile(one, (3, 1)), np.tile(other, (3, 1)))
    expected = ttest_rel(one, other)
    low, high = expected.confidence_interval(0.95)
    assert_allclose(found, [(one - other).mean(), low, high, expected.pvalue, 11], rtol=1e-9)


def test_the_difference_of_two_sides_by_hand() -> None:
    # Means of seeds: 2, 4 and 1, 1; differences of tasks: 3 - 0, 3 - 2; left over: +-.5 on one side, else nothing.
    found = crossed_difference([[2.5, 1.5], [3.5, 4.5]], [[0.0, 2.0], [0.0, 2.0]])
    seeds, tasks, residual = 2.0 / 2, 2.0 / 2, 4 * 0.5**2 / 1 / 4
    variance = seeds + tasks - residual
    freedom = variance**2 / (seeds**2 + tasks**2 + residual**2)
    assert found.mean == 2.0
    assert found.freedom == pytest.approx(freedom, rel=1e-12)
    assert (found.high - found.low) / 2 == pytest.approx(stats.t.ppf(0.975, freedom) * np.sqrt(variance), rel=1e-9)


def test_sides_without_any_spread_are_equal_or_not_tested() -> None:
    assert crossed_difference(np.ones((2, 3)), np.ones((2, 3)))[:4] == (0.0, 0.0, 0.0, 1.0)
    mean, *rest = crossed_difference(np.ones((2, 3)), np.zeros((2, 3)))
    assert mean == 1.0
    assert np.isnan(rest).all()
    with pytest.raises(ValueError, match="2 runs or more"):
        crossed_difference([[1.0, 2.0]], [[1.0, 2.0], [3.0, 4.0]])


@pytest.mark.parametrize(("seeds", "spread_of_seeds", "noise"), [(3, 1.0, 1.0), (3, 0.1, 3.0), (5, 1.0, 1.0)])
def test_intervals_of_a_difference_cover_it_with_few_seeds_where_a_bootstrap_does_not(
    seeds: int, spread_of_seeds: float, noise: float
) -> None:
    generator = np.random.default_rng(14)
    draws, tasks, true = 300, 40, 0.7
    hits = bootstrap_hits = rejected = 0
    for draw in range(draws):
        difficulty = generator.normal(size=tasks)

        def side(share: float, level: float, difficulty: np.ndarray = difficulty) -> np.ndarray:
            luck = generator.normal(scale=spread_of_seeds, size=(seeds, 1))
            return level + share * difficulty + luck + generator.normal(scale=noise, size=(seeds, tasks))

        one, other = side(1.0, true), side(0.5, 0.0)
        found = crossed_difference(one, other)
        assert (found.p < 0.05) == (not found.low <= 0.0 <= found.high)
        hits += found.low <= true <= found.high
        rejected += crossed_difference(one - true, other).p < 0.05
        _, low, high = crossed_interval(one - other, resamples=100, seed=draw)
        bootstrap_hits += low <= true <= high
    # Binomial standard error .013.
    assert 0.92 <= hits / draws <= 0.995
    assert rejected / draws <= 0.08
    if spread_of_seeds == 1.0:
        assert bootstrap_hits / draws < 0.9


def test_no_tasks_and_no_resamples_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one task"):
        bootstrap_means(np.empty((0, 2)), 10, np.random.default_rng())
    with pytest.raises(ValueError, match="resamples must be 1 or more"):
        bootstrap_means([[1.0]], 0, np.random.default_rng())
