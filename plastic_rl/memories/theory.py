"""What theory says of Hopfield memories with random patterns, for many units N and P patterns, load P / N.

Sources: Hertz, Krogh & Palmer 1991, sections 2.2 to 2.5; Amit, Gutfreund & Sompolinsky 1985,
doi:10.1103/PhysRevLett.55.1530; Tsodyks & Feigelman 1988, doi:10.1209/0295-5075/6/2/002.
"""

from __future__ import annotations

import math

import numpy as np

CAPACITY = 0.138
"""Load above which `Hopfield` under Hebb's rule loses all of its patterns at once."""


def one_step_error(units: int, patterns: float) -> float:
    """Share of a stored pattern's bits that a first update of `Hopfield` flips: `erfc(sqrt(N / (2 (P - 1)))) / 2`.

    >>> round(one_step_error(1000, 138), 4)
    0.0034
    """
    return math.erfc(math.sqrt(units / (2 * (patterns - 1)))) / 2 if patterns > 1 else 0.0


def low_activity_error(load: float, activity: float) -> float:
    """The same of `LowActivityHopfield` with its usual offset and threshold: `Phi(-1 / (2 sqrt(load a)))`.

    >>> round(low_activity_error(0.4, 0.1), 4)
    0.0062
    """
    return math.erfc(1 / (2 * math.sqrt(2 * load * activity))) / 2


def mean_overlap(beta: float) -> float:
    """Overlap with a pattern at inverse temperature beta, with few patterns: the largest root of `m = tanh(beta m)`.

    >>> round(mean_overlap(2.0), 4), mean_overlap(0.9)
    (0.9575, 0.0)
    """
    if beta <= 1:
        return 0.0
    low, high = 1e-9, 1.0  # tanh(beta m) - m is positive at the one and negative at the other
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if math.tanh(beta * middle) > middle else (low, middle)
    return low


def retained_overlap(load: float) -> float:
    """Overlap in which a recall from the pattern itself ends, without noise: 0 above `CAPACITY`.

    `m = erf(y)`, y the largest root of `y (sqrt(2 load) + 2 exp(-y^2) / sqrt(pi)) = erf(y)`.

    >>> round(retained_overlap(0.1), 4), round(retained_overlap(0.137), 3), retained_overlap(0.14)
    (0.998, 0.975, 0.0)
    """
    if load <= 0:
        return 1.0
    y = np.linspace(1e-3, max(6.0, 2 / math.sqrt(2 * load)), 20001)
    erf = np.array([math.erf(value) for value in y])
    excess = erf - y * (math.sqrt(2 * load) + 2 / math.sqrt(math.pi) * np.exp(-(y**2)))
    above = np.flatnonzero(excess > 0)
    return float(erf[above[-1]]) if len(above) else 0.0
