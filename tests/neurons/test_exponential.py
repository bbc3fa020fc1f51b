"""The exponential unit against its rheobase and the integral that is its period."""

from __future__ import annotations

import math

import pytest
from scipy.integrate import quad

from plastic_rl.errors import ConfigError
from plastic_rl.neurons import Exponential
from tests.neurons.cases import rates, spike_times

OPTIONS = {"tau": 10.0, "threshold": 15.0, "slope_factor": 2.0, "cutoff": 30.0}


def test_the_rheobase_is_threshold_less_rest_and_slope_factor() -> None:
    options = {**OPTIONS, "rest": -3.0}
    below, above = spike_times(Exponential(0.5, **options), [16.0 - 0.01, 16.0 + 0.01], 700)
    assert (below, above != []) == ([], True)


def test_the_rate_is_one_over_the_integral_of_the_inverse_change() -> None:
    drives = [14.0, 16.0, 25.0]
    exact = []
    for drive in drives:
        change = lambda u, drive=drive: (-u + 2 * math.exp((u - 15) / 2) + drive) / 10  # noqa: E731
        exact.append(1000 / quad(lambda u, change=change: 1 / change(u), 0, 30, limit=200)[0])
    assert rates(Exponential(0.1, **OPTIONS), drives, 400, 50) == pytest.approx(exact, rel=0.01)


def test_a_cut_off_that_would_overflow_is_refused() -> None:
    with pytest.raises(ConfigError, match="cutoff of Exponential must be below threshold \\+ 40 slope_factor = 19"):
        Exponential(slope_factor=0.1)


def test_steps_that_are_too_long_are_refused_with_the_longest() -> None:
    with pytest.raises(ConfigError, match=r"bears steps of 0\.1 ms at the most, got 1 ms in 5 inner.*inner_steps=10"):
        Exponential(1.0, inner_steps=5)
    assert Exponential(1.0).inner_steps == 10
