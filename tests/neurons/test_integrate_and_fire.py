"""LIF units against their closed forms."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from plastic_rl.errors import ConfigError
from plastic_rl.neurons import LIF, AdaptiveLIF, Drive
from plastic_rl.neurons import exact_numbers as exact
from tests.neurons.cases import newborn, spike_times


@pytest.mark.parametrize(("drive", "rate"), [(20.0, 63.04), (30.0, 111.96)])
@pytest.mark.parametrize("step_size", [0.05, 0.5, 1.0])
def test_the_f_i_curve_is_its_closed_form(drive: float, rate: float, step_size: float) -> None:
    (times,) = spike_times(LIF(step_size, tau=10.0, threshold=15.0, refractory=2.0), [drive], 500)
    interval = 2 + 10 * math.log(drive / (drive - 15))
    assert 1000 / interval == pytest.approx(rate, abs=0.005)
    gaps = [after - before for before, after in itertools.pairwise(times)]
    assert all(interval - 1e-9 <= gap <= interval + step_size for gap in gaps)


def test_below_the_rheobase_there_is_no_spike() -> None:
    below, above = spike_times(LIF(0.1), [14.99, 15.01], 300)
    assert (below, above != []) == ([], True)


@pytest.mark.parametrize("step_size", [0.1, 1.0, 7.0])
def test_passive_decay_is_exact_at_any_step(step_size: float) -> None:
    neuron = LIF(step_size, tau=10.0, rest=-65.0, threshold=-50.0, reset=-70.0)
    params, state = exact(neuron), newborn(neuron)
    state["voltage"] = torch.full((1, 1), -55.0, dtype=torch.float64)
    for step in range(10):
        _, state = neuron.step(params, Drive(torch.zeros(1, 1, dtype=torch.float64)), state)
        expected = -65 + 10 * math.exp(-(step + 1) * step_size / 10)
        assert state["voltage"].item() == pytest.approx(expected, abs=1e-12)


def test_a_conductance_pulls_to_its_reversal_potential() -> None:
    # R (I - g u) with I = g E: u_inf = R g E / (1 + R g), reached with tau / (1 + R g).
    neuron = LIF(1.0, tau=10.0, threshold=1000.0, resistance=2.0)
    params, state = exact(neuron), newborn(neuron)
    conductance = torch.full((1, 1), 1.5, dtype=torch.float64)
    for step in range(5):
        _, state = neuron.step(params, Drive(conductance * 80, conductance), state)
        expected = 60 * (1 - math.exp(-(step + 1) * 4 / 10))  # 240 / 4
        assert state["voltage"].item() == pytest.approx(expected, abs=1e-12)


def test_without_beta_the_adaptive_unit_is_the_plain_one_bit_for_bit() -> None:
    plain, adaptive = LIF(0.5), AdaptiveLIF(0.5, beta=0.0)
    generator = torch.Generator().manual_seed(0)
    states = [newborn(neuron) for neuron in (plain, adaptive)]
    fired = 0.0
    for _ in range(300):
        drive = Drive(60 * torch.rand(1, 1, generator=generator, dtype=torch.float64))
        for which, neuron in enumerate((plain, adaptive)):
            output, states[which] = neuron.step(exact(neuron), drive, states[which])
            if which == 0:
                expected = output
        assert torch.equal(output, expected)
        assert all(torch.equal(states[1][name], states[0][name]) for name in states[0])
        fired += output.item()
    assert fired > 5


def test_the_rate_of_the_adaptive_unit_solves_its_equation() -> None:
    neuron = AdaptiveLIF(0.1, tau=10.0, threshold=15.0, refractory=2.0, beta=100.0, tau_adaptation=200.0)
    (times,) = spike_times(neuron, [30.0], 2000)
    late = [time for time in times if time > 1200]
    rate = (len(late) - 1) / (late[-1] - late[0])
    assert 1000 * rate == pytest.approx(67.2, rel=0.02)
    assert 1 / rate == pytest.approx(2 + 10 * math.log(30 / (30 - 15 - 100 * rate)), rel=0.02)


@pytest.mark.parametrize("options", [{"rest": 15.0}, {"reset": 20.0}])
def test_a_threshold_below_rest_or_reset_is_refused(options: dict[str, float]) -> None:
    (name,) = options
    with pytest.raises(ConfigError, match=f"{name} of LIF must be below its threshold, got {name}="):
        LIF(**options)


def test_a_threshold_that_was_learned_below_the_rest_fires_at_once() -> None:
    neuron = LIF(1.0, refractory=2.0)
    params, state = exact(neuron), newborn(neuron)
    params["threshold"] = torch.tensor([-1.0], dtype=torch.float64)
    spikes = 0.0
    for _ in range(30):
        output, state = neuron.step(params, Drive(torch.zeros(1, 1, dtype=torch.float64)), state)
        spikes += output.item()
    assert spikes == 10.0
