"""The quadratic unit against its closed form."""

from __future__ import annotations

import math

import pytest
import torch

from plastic_rl.errors import ConfigError
from plastic_rl.neurons import Drive, Quadratic, exact_numbers
from tests.neurons.cases import newborn, spike_times

OPTIONS = {"tau": 10.0, "curvature": 0.08, "centre": 7.5, "offset": -4.5, "cutoff": 30.0, "reset": -5.0}


def period(drive: float) -> float:
    root = math.sqrt(0.08 * (drive - 4.5))
    return 10 / root * (math.atan(0.08 * 22.5 / root) - math.atan(0.08 * -12.5 / root))


@pytest.mark.parametrize("step_size", [0.2, 1.0, 4.0])
def test_the_period_is_the_arctangent_form_at_any_step(step_size: float) -> None:
    drives = [5.0, 10.0, 50.0]
    for drive, times in zip(drives, spike_times(Quadratic(step_size, **OPTIONS), drives, 1000), strict=True):
        intervals = len(times) - 1
        assert intervals > 5
        # Ends of steps tell each of the two times to within a step.
        assert times[-1] - times[0] == pytest.approx(intervals * period(drive), abs=step_size + 1e-9)


def test_the_rheobase_is_minus_the_offset() -> None:
    below, above = spike_times(Quadratic(5.0, **OPTIONS), [4.5 - 1e-4, 4.5 + 0.001], 5000)
    assert (below, above != []) == ([], True)


@pytest.mark.parametrize("drive", [-40.0, 4.5, 6.0, 30.0])
@pytest.mark.parametrize("conductance", [None, 0.3])
def test_one_long_step_is_many_short_ones(drive: float, conductance: float | None) -> None:
    states, fired = [], []
    for steps in (1, 40):
        neuron = Quadratic(12.0 / steps, **OPTIONS)
        params, state, spikes = exact_numbers(neuron), newborn(neuron), 0.0
        held = None if conductance is None else torch.full((1, 1), conductance, dtype=torch.float64)
        for _ in range(steps):
            output, state = neuron.step(params, Drive(torch.full((1, 1), drive, dtype=torch.float64), held), state)
            spikes += output.item()
        states.append(state["voltage"].item())
        fired.append(spikes)
    assert states[0] == pytest.approx(states[1], abs=1e-9)
    assert fired == [float(drive == 30.0)] * 2


def test_a_conductance_moves_the_rest_to_where_the_currents_cancel() -> None:
    neuron = Quadratic(5.0, **OPTIONS, resistance=2.0)
    params, state = exact_numbers(neuron), newborn(neuron)
    conductance = torch.full((1, 1), 0.5, dtype=torch.float64)
    for _ in range(100):
        _, state = neuron.step(params, Drive(conductance * -20, conductance), state)
    u = state["voltage"].item()
    assert 0.08 * (u - 7.5) ** 2 - 4.5 + 2 * 0.5 * (-20 - u) == pytest.approx(0, abs=1e-9)


def test_without_a_rest_it_starts_at_the_reset() -> None:
    assert Quadratic(offset=-4.5).state_entries(1)["voltage"].start == 0.0
    assert Quadratic(offset=1.0, reset=-3.0).state_entries(1)["voltage"].start == "reset"


def test_a_reset_above_the_cut_off_is_refused() -> None:
    with pytest.raises(ConfigError, match="reset of Quadratic must be below its cutoff, got reset=40, cutoff=30"):
        Quadratic(reset=40.0)
