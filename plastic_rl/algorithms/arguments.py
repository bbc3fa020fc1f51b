"""The values that an algorithm's arguments may have, as the config models have them too."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from plastic_rl.errors import ConfigError

_SHARE: tuple[Callable[[Any], bool], str] = (lambda value: 0 <= value <= 1, "a number from 0 to 1")
_WEIGHT: tuple[Callable[[Any], bool], str] = (lambda value: 0 <= value < math.inf, "a number of 0 or more")
_SIZE: tuple[Callable[[Any], bool], str] = (lambda value: 0 < value < math.inf, "a number above 0")
_COUNT: tuple[Callable[[Any], bool], str] = (
    lambda value: isinstance(value, int | np.integer) and bool(value >= 1),
    "a whole number of 1 or more",
)
MOST_ROWS = 1_000_000
"""Environments or individuals side by side; more would only be found out when memory has run out."""
_ROWS: tuple[Callable[[Any], bool], str] = (
    lambda value: isinstance(value, int | np.integer) and bool(1 <= value <= MOST_ROWS),
    f"a whole number from 1 to {MOST_ROWS:,}",
)
_SEVERAL: tuple[Callable[[Any], bool], str] = (
    lambda value: isinstance(value, int | np.integer) and bool(4 <= value <= MOST_ROWS),
    f"a whole number from 4 to {MOST_ROWS:,}",
)
_SEED: tuple[Callable[[Any], bool], str] = (
    lambda value: isinstance(value, int | np.integer) and bool(value >= 0),
    "a whole number of 0 or more",
)
_SWITCH: tuple[Callable[[Any], bool], str] = (lambda value: isinstance(value, bool), "true or false")

RANGES = {
    "gamma": _SHARE,
    "gae_lambda": _SHARE,
    "vf_coef": _WEIGHT,
    "plasticity_lr_scale": _WEIGHT,
    "max_grad_norm": _SIZE,
    "optimizer_eps": _SIZE,
    "reward_scale": _SIZE,
    "n_envs": _ROWS,
    "n_steps": _COUNT,
    "trials": _COUNT,
    "same_task_each_trial": _SWITCH,
    "stats_window_size": _COUNT,
    "population_size": _SEVERAL,
    "lifetimes": _ROWS,
    "individuals_per_chunk": _COUNT,
    "sigma": _SIZE,
    "seed": _SEED,
    "deterministic": _SWITCH,
    "normalize_advantage": _SWITCH,
    "center_rewards": _SWITCH,
    "expected_rewards": _SWITCH,
}


def check_ranges(values: Mapping[str, Any]) -> None:
    """Refuse arguments outside their range, all at once.

    Raises:
        ConfigError: Naming each, what was got, and what is valid.

    >>> check_ranges({"gamma": 1.5, "n_envs": 32})
    Traceback (most recent call last):
        ...
    plastic_rl.errors.ConfigError: gamma must be a number from 0 to 1, got 1.5
    """
    problems = []
    for name, value in values.items():
        holds, valid = RANGES[name]
        number = isinstance(value, int | float | np.number) and isinstance(value, bool) == (RANGES[name] is _SWITCH)
        # NaN lies in no range.
        if not number or not holds(value):
            problems.append(f"{name} must be {valid}, got {value!r}")
    if problems:
        raise ConfigError("; ".join(problems))
