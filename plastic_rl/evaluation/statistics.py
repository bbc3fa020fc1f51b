"""Scores and their intervals: pure functions on arrays of one number (or one curve) per task.

All agents of an evaluation live the same tasks, so every interval comes from one resampling of tasks that is shared by
all agents: differences and ratios are paired. The intervals are percentile bootstrap intervals (Efron & Tibshirani
1993, chapter 13). They cover the draw of tasks, of the environment's noise and of the agent's actions; they do not
cover the training run, which takes several seeds (`student_t_interval`, `crossed_interval`, `crossed_difference`).

Axes: `N` tasks, `K` columns (agents, or points of their curves), `R` resamples, `S` seeds (training runs).
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from plastic_rl.arrays import FloatArray

_CHUNK_ELEMENTS = 4_000_000
"""Indices drawn at once (32 MB): 10,000 tasks and 10,000 resamples would take 800 MB in one piece."""


CONFIDENCE = 0.95
"""Share of all intervals."""
Pair = tuple[float, float]
"""Both ends of an interval."""


def ratio(above: FloatArray, below: npt.NDArray[Any]) -> FloatArray:
    """`above / below`, elementwise; NaN where `below` is not positive."""
    quotient: FloatArray = np.divide(above, below, out=np.full(below.shape, np.nan), where=below > 0)
    return quotient


def mean_of_present(values: npt.ArrayLike, axis: int = 0) -> FloatArray:
    """Mean along an axis; NaN marks what a task does not have (a trial it never reached).

    Returns:
        NaN only where there is no value at all.

    >>> mean_of_present([[1.0, 2.0], [3.0, float("nan")]]).tolist()
    [2.0, 2.0]
    """
    table = np.asarray(values, np.float64)
    return ratio(np.nansum(table, axis), (~np.isnan(table)).sum(axis))


def bootstrap_means(values: npt.ArrayLike, resamples: int, generator: np.random.Generator) -> FloatArray:
    """Column means over `resamples` samples of `N` tasks drawn with replacement, the same tasks for every column.

    The rows drawn depend on `generator`, `N` and `resamples` alone, so that two calls with generators of equal state
    are paired. Time is O(R N K), memory O(R K) and a fixed chunk of indices.

    Args:
        values: `(N, K)`, NaN where a task has no value.
        resamples: `R`, 1 or more.
        generator: Draws the tasks.

    Returns:
        `(R, K)`; NaN where a sample holds no task with a value in the column.

    Raises:
        ValueError: If there is no task, or `resamples` is below 1.
    """
    table = np.asarray(values, np.float64)
    if table.ndim != 2 or table.shape[0] == 0:
        raise ValueError(f"values must be (N, K) with at least one task, got shape {table.shape}")
    if resamples < 1:
        raise ValueError(f"resamples must be 1 or more, got {resamples}")
    tasks = table.shape[0]
    present = ~np.isnan(table)
    ragged = not bool(present.all())
    centre = mean_of_present(table)
    centre = np.where(np.isnan(centre), 0.0, centre)
    filled = np.where(present, table - centre, 0.0)  # deviations, so that constant columns stay exact
    means = np.empty((resamples, table.shape[1]))
    chunk = max(1, _CHUNK_ELEMENTS // tasks)
    for start in range(0, resamples, chunk):
        rows = min(chunk, resamples - start)
        drawn = generator.integers(0, tasks, size=(rows, tasks))
        drawn += tasks * np.arange(rows)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=rows * tasks).reshape(rows, tasks).astype(np.float64)
        sums = counts @ filled
        sizes = counts @ present.astype(np.float64) if ragged else np.full(sums.shape, float(tasks))
        means[start : start + rows] = ratio(sums, sizes)
    return means + centre


def percentile_interval(samples: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
    """Both ends of the central interval that holds the share `CONFIDENCE` of the samples.

    Args:
        samples: `(R, ...)`; NaN samples are left out.

    Returns:
        Low and high ends, each of shape `(...)`.

    >>> low, high = percentile_interval([float(i) for i in range(201)])
    >>> round(float(low), 6), round(float(high), 6)
    (5.0, 195.0)
    """
    tail = (1.0 - CONFIDENCE) / 2.0
    low, high = np.nanquantile(np.asarray(samples, np.float64), [tail, 1.0 - tail], axis=0)
    return np.asarray(low), np.asarray(high)


def pair(samples: npt.ArrayLike) -> Pair:
    """As `percentile_interval`, of samples `(R,)`."""
    low, high = percentile_interval(samples)
    return float(low), float(high)


def crossed_interval(values: npt.ArrayLike, *, resamples: int = 2000, seed: int = 0) -> tuple[float, float, float]:
    """Mean of `values` `(S, N)` over training seeds and tasks, and the interval of a bootstrap over both.

    Each resample draws S seeds and, independently, N tasks, so that the interval covers the luck of training as well
    as that of the tasks (with few seeds it is still on the narrow side). For a paired difference, pass the differences.

    Returns:
        Mean, low and high.

    >>> crossed_interval([[1.0, 1.0], [3.0, 3.0]])
    (2.0, 1.0, 3.0)
    """
    table = np.asarray(values, np.float64)
    generator = np.random.default_rng(seed)
    runs, tasks = table.shape
    chosen = generator.integers(runs, size=(resamples, runs)), generator.integers(tasks, size=(resamples, tasks))
    means = [table[np.ix_(own_runs, own_tasks)].mean() for own_runs, own_tasks in zip(*chosen, strict=True)]
    return float(table.mean()), *pair(means)


class Difference(NamedTuple):
    """The mean of one side minus that of another.

    Attributes:
        mean: The estimate.
        low: Lower end of its interval.
        high: Upper end.
        p: Of the two-sided test that there is none; it is below `1 - CONFIDENCE` just where the interval leaves 0 out.
        freedom: Degrees of freedom of Student's t.
    """

    mean: float
    low: float
    high: float
    p: float
    freedom: float


def crossed_difference(one: npt.ArrayLike, other: npt.ArrayLike) -> Difference:
    """Difference of two sides that were each trained with several seeds and scored on the same tasks, with its t test.

    Seeds (a draw of each side's own) and tasks (shared) are random effects, crossed. The variance of the difference is
    put together from mean squares: that of each side's means over tasks, and that of the tasks' mean differences, both
    of which hold the residual, which is therefore taken off once (never below either of them). Its degrees of freedom
    are Satterthwaite's. With one task it is Welch's t test over seeds.

    In simulations with normal effects of any proportion it covers .93 to .99, where `crossed_interval` of the
    differences covers .73 to .99 with 3 seeds and .84 to .99 with 5. What it assumes and may fail is that means of
    seeds are about normal: where one training in ten does not learn at all it covers .4 with 3 or 5 seeds, .6 with 10;
    where three in ten, .6, .8 and .95. No exact test over seeds alone could do instead: with 3 + 3 seeds no permutation
    has a two-sided p below .1.

    Args:
        one: `(S, N)`, a row for each training run.
        other: `(S', N)`, on the same tasks in the same order.

    Raises:
        ValueError: If a side has fewer than two runs, or the tasks differ in number.

    Source: Satterthwaite 1946, Biometrics Bulletin 2:110; mean squares of the two-way random model: Searle, Casella &
    McCulloch 1992, Variance Components.

    >>> found = crossed_difference([[1.0], [2.0], [3.0]], [[0.0], [1.0], [2.0]])
    >>> [round(number, 3) for number in found]  # Welch: standard error sqrt(1 / 3 + 1 / 3)
    [1.0, -1.267, 3.267, 0.288, 4.0]
    """
    from scipy.stats import t as student_t

    sides = [np.asarray(values, np.float64) for values in (one, other)]
    if any(table.ndim != 2 or len(table) < 2 for table in sides) or sides[0].shape[1] != sides[1].shape[1]:
        raise ValueError(f"both sides need 2 runs or more and the same tasks, got {[table.shape for table in sides]}")
    tasks = sides[0].shape[1]
    mean = float(sides[0].mean() - sides[1].mean())
    of_seeds = [(table.mean(1).var(ddof=1) / len(table), len(table) - 1) for table in sides]
    of_tasks, residual = (0.0, 1), [(0.0, 1)]
    if tasks > 1:
        of_tasks = (sides[0].mean(0) - sides[1].mean(0)).var(ddof=1) / tasks, tasks - 1
        residual = [_residual(table) for table in sides]
    total = sum(part for part, _ in of_seeds)
    variance = max(total + of_tasks[0] - sum(part for part, _ in residual), total, of_tasks[0])
    spread = sum(part**2 / freedom for part, freedom in (*of_seeds, of_tasks, *residual))
    if spread == 0:  # every run scored the same on every task: no spread to hold the difference against
        return Difference(mean, math.nan, math.nan, math.nan, math.nan) if mean else Difference(0.0, 0.0, 0.0, 1.0, 1.0)
    freedom = variance**2 / spread
    half = student_t.ppf((1.0 + CONFIDENCE) / 2.0, freedom) * math.sqrt(variance)
    p = 2.0 * student_t.sf(abs(mean) / math.sqrt(variance), freedom)
    return Difference(mean, float(mean - half), float(mean + half), float(p), float(freedom))


def _residual(table: FloatArray) -> tuple[float, int]:
    """Variance of a mean over seeds and tasks by what neither explains, and its degrees of freedom."""
    left = table - table.mean(0) - table.mean(1, keepdims=True) + table.mean()
    freedom = (table.shape[0] - 1) * (table.shape[1] - 1)
    return float((left**2).sum() / freedom / table.size), freedom


def holm(p_values: npt.ArrayLike) -> FloatArray:
    """Correct the p-values of a family of tests, so that rejecting those below 5% errs in 5% of families at most.

    NaN, a test that was not made, counts as 1 and stays NaN: the others' only fall when it is made.

    Source: Holm 1979, Scandinavian Journal of Statistics 6:65.

    >>> holm([0.01, 0.04, 0.03, float("nan")]).round(3).tolist()
    [0.04, 0.09, 0.09, nan]
    """
    given = np.asarray(p_values, np.float64)
    order = np.argsort(given)  # NaN last
    ascending = np.nan_to_num(given[order], nan=1.0)
    corrected = np.empty_like(ascending)
    corrected[order] = np.minimum(np.maximum.accumulate(ascending * np.arange(len(given), 0, -1)), 1.0)
    return np.where(np.isnan(given), np.nan, corrected)


def normalise(raw: npt.ArrayLike, random: npt.ArrayLike, limit: npt.ArrayLike) -> FloatArray:
    """`(raw - random) / (limit - random)` of means: 0 is acting at random, 1 the limit; it may be negative.

    Elementwise. NaN where the limit is not above random, since the ratio then ranks agents in reverse.

    >>> normalise(72.3, 50.0, 74.07).round(4).item()
    0.9265
    """
    return ratio(*np.broadcast_arrays(np.subtract(raw, random), np.subtract(limit, random)))


def normalised_interval(raw: npt.ArrayLike, random: npt.ArrayLike, limit: npt.ArrayLike) -> Pair | None:
    """Interval of `normalise` from paired bootstrap means of the agent, the random one and the limit's, `(R,)` each.

    None where `limit - random` is not clearly above zero: some resample has it at zero or below, and then an interval
    of the ratio has no bounds.
    """
    ratios = normalise(raw, random, limit)
    return None if bool(np.isnan(ratios).any()) else pair(ratios)


def student_t_interval(values: npt.ArrayLike) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Mean over training runs and its Student t interval: few runs, for which a bootstrap would be far too narrow.

    Args:
        values: `(S, ...)`, one row for each run, NaN where a run has no value.

    Returns:
        Mean, low and high, each `(...)`; low and high are NaN where fewer than two runs have a value.

    >>> mean, low, high = student_t_interval([1.0, 2.0, 3.0])
    >>> round(float(low), 3), float(mean), round(float(high), 3)
    (-0.484, 2.0, 4.484)
    """
    from scipy.stats import t as student_t

    table = np.asarray(values, np.float64)
    counts = (~np.isnan(table)).sum(0)
    mean = mean_of_present(table)
    several = counts > 1
    freedom = np.where(several, counts - 1, 1)
    deviation = np.sqrt(np.nansum((table - mean) ** 2, 0) / freedom / np.maximum(counts, 1))
    half = np.where(several, student_t.ppf((1.0 + CONFIDENCE) / 2.0, freedom) * deviation, np.nan)
    return mean, mean - half, mean + half
