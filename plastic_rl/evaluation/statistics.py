"""Scores and their intervals: pure functions on arrays of one number (or one curve) per task.

All agents of an evaluation live the same tasks, so every interval comes from one resampling of tasks that is shared by
all agents: differences and ratios are paired. The intervals are percentile bootstrap intervals (Efron & Tibshirani
1993, chapter 13). They cover the draw of tasks, of the environment's noise and of the agent's actions; they do not
cover the training run, which takes several seeds (`student_t_interval`).

Axes: `N` tasks, `K` columns (agents, or points of their curves), `R` resamples, `S` seeds (training runs).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from plastic_rl.arrays import FloatArray

_CHUNK_ELEMENTS = 4_000_000
"""Indices drawn at once (32 MB): 10,000 tasks and 10,000 resamples would take 800 MB in one piece."""


class Interval(NamedTuple):
    """Both ends of a confidence interval."""

    low: float
    high: float


def column_means(values: npt.ArrayLike) -> FloatArray:
    """Mean over tasks of each column; NaN marks what a task does not have (a trial it never reached).

    Args:
        values: `(N, K)`.

    Returns:
        `(K,)`; NaN only where no task has a value.

    >>> column_means([[1.0, 2.0], [3.0, float("nan")]]).tolist()
    [2.0, 2.0]
    """
    table = np.asarray(values, np.float64)
    present = ~np.isnan(table)
    counts = present.sum(0)
    sums = np.where(present, table, 0.0).sum(0)
    means: FloatArray = np.divide(sums, counts, out=np.full(table.shape[1], np.nan), where=counts > 0)
    return means


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
    centre = column_means(table)
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
        means[start : start + rows] = np.divide(sums, sizes, out=np.full(sums.shape, np.nan), where=sizes > 0)
    return means + centre


def percentile_interval(samples: npt.ArrayLike, confidence: float = 0.95) -> tuple[FloatArray, FloatArray]:
    """Both ends of the central interval that holds a share `confidence` of the samples.

    Args:
        samples: `(R, ...)`; NaN samples are left out.
        confidence: Between 0 and 1.

    Returns:
        Low and high ends, each of shape `(...)`.

    >>> low, high = percentile_interval([float(i) for i in range(101)], 0.9)
    >>> round(float(low), 6), round(float(high), 6)
    (5.0, 95.0)
    """
    tail = (1.0 - _checked_confidence(confidence)) / 2.0
    low, high = np.nanquantile(np.asarray(samples, np.float64), [tail, 1.0 - tail], axis=0)
    return np.asarray(low), np.asarray(high)


def bootstrap_interval(
    values: npt.ArrayLike, *, confidence: float = 0.95, resamples: int = 2000, seed: int = 0
) -> Interval:
    """Interval of the mean of `values` `(N,)` over tasks. For a paired difference, pass the differences.

    >>> bootstrap_interval([2.0, 2.0, 2.0])
    Interval(low=2.0, high=2.0)
    """
    column = np.asarray(values, np.float64)[:, None]
    low, high = percentile_interval(bootstrap_means(column, resamples, np.random.default_rng(seed))[:, 0], confidence)
    return Interval(float(low), float(high))


def crossed_interval(
    values: npt.ArrayLike, *, confidence: float = 0.95, resamples: int = 2000, seed: int = 0
) -> tuple[float, float, float]:
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
    low, high = percentile_interval(means, confidence)
    return float(table.mean()), float(low), float(high)


def normalise(raw: npt.ArrayLike, random: npt.ArrayLike, limit: npt.ArrayLike) -> FloatArray:
    """`(raw - random) / (limit - random)` of means: 0 is acting at random, 1 the limit; it may be negative.

    Elementwise. NaN where the limit is not above random, since the ratio then ranks agents in reverse.

    >>> normalise(72.3, 50.0, 74.07).round(4).item()
    0.9265
    """
    above, span = np.broadcast_arrays(np.subtract(raw, random), np.subtract(limit, random))
    ratio: FloatArray = np.divide(above, span, out=np.full(span.shape, np.nan), where=span > 0)
    return ratio


def normalised_interval(
    raw: npt.ArrayLike, random: npt.ArrayLike, limit: npt.ArrayLike, confidence: float = 0.95
) -> Interval | None:
    """Interval of `normalise` from paired bootstrap means.

    Args:
        raw: Bootstrap means of the agent's score, `(R,)`.
        random: Those of the random agent on the same resamples, `(R,)`.
        limit: Those of the limit's agent, `(R,)`.
        confidence: Between 0 and 1.

    Returns:
        The interval, or None where `limit - random` is not clearly above zero: some resample has it at zero or below,
        and then an interval of the ratio has no bounds.
    """
    ratios = normalise(raw, random, limit)
    if bool(np.isnan(ratios).any()):
        return None
    low, high = percentile_interval(ratios, confidence)
    return Interval(float(low), float(high))


def student_t_interval(values: npt.ArrayLike, confidence: float = 0.95) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Mean over training runs and its Student t interval: few runs, for which a bootstrap would be far too narrow.

    Args:
        values: `(S, ...)`, one row for each run, NaN where a run has no value.
        confidence: Between 0 and 1.

    Returns:
        Mean, low and high, each `(...)`; low and high are NaN where fewer than two runs have a value.

    >>> mean, low, high = student_t_interval([1.0, 2.0, 3.0])
    >>> round(float(low), 3), float(mean), round(float(high), 3)
    (-0.484, 2.0, 4.484)
    """
    from scipy.stats import t as student_t

    table = np.asarray(values, np.float64)
    shape = table.shape[1:]
    table = table.reshape(table.shape[0], -1)
    counts = (~np.isnan(table)).sum(0)
    mean = column_means(table)
    squares = np.where(np.isnan(table), 0.0, table - mean) ** 2
    several = counts > 1
    freedom = np.where(several, counts - 1, 1)
    half = student_t.ppf((1.0 + _checked_confidence(confidence)) / 2.0, freedom) * np.sqrt(
        squares.sum(0) / freedom / np.maximum(counts, 1)
    )
    half = np.where(several, half, np.nan)
    return mean.reshape(shape), (mean - half).reshape(shape), (mean + half).reshape(shape)


def _checked_confidence(confidence: float) -> float:
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"confidence must lie between 0 and 1, got {confidence}")
    return confidence
