"""Hodgkin and Huxley's axon: rest, thresholds, rates and bifurcations."""

from __future__ import annotations

import pytest
import torch

from plastic_rl.neurons import Drive, HodgkinHuxley, exact_numbers, nernst_potential
from tests.neurons.cases import hopf_currents, newborn, rates, spike_times


def test_rest_and_gates() -> None:
    state = newborn(HodgkinHuxley())
    assert state["voltage"].item() == pytest.approx(-65.00, abs=0.005)
    assert [state[gate].item() for gate in "mhn"] == pytest.approx([0.0530, 0.5960, 0.3177], abs=5e-5)
    following = HodgkinHuxley(50.0).step(exact_numbers(HodgkinHuxley()), Drive(torch.zeros(1, 1)), state)[1]
    assert all(torch.allclose(following[name], state[name], atol=1e-5, rtol=0) for name in state)


def test_single_spikes_and_the_onset_of_repetitive_firing() -> None:
    times = spike_times(HodgkinHuxley(1.0), [2.20, 2.25, 6.24, 6.28], 250)
    assert [len(times[0]), len(times[1])] == [0, 1]
    assert times[2][-1] < 120  # a few spikes, then rest
    assert times[3][-1] > 230


def test_the_rate_at_10() -> None:
    (fine,) = rates(HodgkinHuxley(0.02), [10.0], 160, 20)
    assert fine == pytest.approx(68.3, abs=1.0)
    (coarse,) = rates(HodgkinHuxley(1.0), [10.0], 250, 20)
    assert coarse == pytest.approx(fine, rel=0.01)


def test_hopf_bifurcations() -> None:
    low, high = hopf_currents(HodgkinHuxley(), -64, -40)
    assert low == pytest.approx(9.775, abs=0.005)
    assert high == pytest.approx(154.5, abs=0.1)


def test_nernst_potentials() -> None:
    assert nernst_potential(2.718281828459045, 1.0) == pytest.approx(24.08, abs=0.005)  # kT/q at 6.3 C
    assert nernst_potential(440, 50) == pytest.approx(52.4, abs=0.05)
    assert nernst_potential(20, 400) == pytest.approx(-72.1, abs=0.05)
    assert nernst_potential(2, 1, valence=2) == pytest.approx(nernst_potential(2, 1) / 2)


def test_a_conductance_is_a_current_towards_its_reversal_potential() -> None:
    neuron = HodgkinHuxley(sodium_conductance=0.0, potassium_conductance=0.0)
    conductance = torch.full((1, 1), 0.6, dtype=torch.float64)
    state = newborn(neuron)
    for _ in range(30):
        _, state = neuron.step(exact_numbers(neuron), Drive(conductance * -80, conductance), state)
    # Leak .3 to -54.387 and .6 to -80.
    assert state["voltage"].item() == pytest.approx((0.3 * -54.387 + 0.6 * -80) / 0.9, abs=1e-9)
