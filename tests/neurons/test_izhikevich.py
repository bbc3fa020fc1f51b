"""Izhikevich's unit: firing patterns, and its integration against a fine one of its equations."""

from __future__ import annotations

import pytest
import torch

from plastic_rl.errors import ConfigError
from plastic_rl.neurons import Drive, Izhikevich, exact_numbers
from tests.neurons.cases import newborn, spike_times

PATTERNS = {
    "regular": {"a": 0.02, "b": 0.2, "c": -65.0, "d": 8.0},
    "fast": {"a": 0.1, "b": 0.2, "c": -65.0, "d": 2.0},
    "chattering": {"a": 0.02, "b": 0.2, "c": -50.0, "d": 2.0},
}


def euler(options: dict[str, float], step: float, duration: float, after: float) -> int:
    """Spikes `after` so many ms at I = 10, by Euler's method on the model's own equations."""
    a, b, c, d = options.values()
    v, u, count = -70.0, -14.0, 0
    for index in range(round(duration / step)):
        v, u = v + step * (0.04 * v * v + 5 * v + 140 - u + 10), u + step * a * (b * v - u)
        if v >= 30:
            v, u = c, u + d
            count += index * step > after
    return count


@pytest.mark.parametrize(("pattern", "rate"), [("regular", 22.2), ("fast", 130.0), ("chattering", 82.0)])
def test_by_eulers_method_the_equations_have_the_rates_that_are_known_of_it(pattern: str, rate: float) -> None:
    assert euler(PATTERNS[pattern], 0.05, 3000, 1000) / 2 == pytest.approx(rate, rel=0.03)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_the_rate_is_that_of_a_very_fine_integration(pattern: str) -> None:
    (times,) = spike_times(Izhikevich(1.0, **PATTERNS[pattern]), [10.0], 1500)
    count = sum(time > 500 for time in times)
    assert count == pytest.approx(euler(PATTERNS[pattern], 0.002, 1500, 500), rel=0.01, abs=1)


def test_change_is_the_published_equation() -> None:
    neuron = Izhikevich()
    values = [torch.tensor([[-60.0]], dtype=torch.float64), torch.tensor([[-10.0]], dtype=torch.float64)]
    drive = Drive(torch.tensor([[3.0]], dtype=torch.float64), torch.tensor([[0.5]], dtype=torch.float64))
    # .04 3600 - 300 + 140 + 10 + 3 - .5 (-60) = 27; .02 (.2 (-60) + 10) = -.04
    assert [entry.item() for entry in neuron.change(exact_numbers(neuron), drive, values)] == [
        pytest.approx(27.0),
        pytest.approx(-0.04),
    ]


def test_without_a_rest_it_starts_at_its_reset() -> None:
    # b = .2: .04 v^2 + 4.8 v + 140 = 0 at -70 (stable) and -50; b = .3: no root.
    assert newborn(Izhikevich())["voltage"].item() == pytest.approx(-70, abs=1e-5)
    assert newborn(Izhikevich())["recovery"].item() == pytest.approx(-14, abs=1e-5)
    restless = newborn(Izhikevich(b=0.3, c=-61.0))
    assert (restless["voltage"].item(), restless["recovery"].item()) == (-61.0, pytest.approx(-18.3))


def test_a_reset_above_the_cut_off_is_refused() -> None:
    with pytest.raises(ConfigError, match="c of Izhikevich must be below its cutoff"):
        Izhikevich(c=30.0)
