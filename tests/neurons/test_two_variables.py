"""Models of two variables: FitzHugh-Nagumo, Morris-Lecar and the linear reduction, by their fixed points."""

from __future__ import annotations

import cmath
import math

import pytest
import torch

from plastic_rl.neurons import Drive, FitzHughNagumo, Linear2D, MorrisLecar, exact_numbers
from tests.neurons.cases import growth, held_by, hopf_currents, newborn, rates, spike_times

TYPE_I = {"calcium_conductance": 4.0, "rate": 0.0667, "potassium_half": 12.0, "potassium_slope": 17.4}


def test_fitzhugh_nagumo_rests_and_loses_stability_where_it_should() -> None:
    state = newborn(FitzHughNagumo())
    assert [state["v"].item(), state["w"].item()] == pytest.approx([-1.1994, -0.6243], abs=5e-5)
    assert hopf_currents(FitzHughNagumo(), -1.5, 1.5) == pytest.approx([0.3313, 1.4187], abs=1e-4)


def test_fitzhugh_nagumo_spikes_between_its_hopf_bifurcations() -> None:
    quiet, excitable, spiking, blocked = spike_times(FitzHughNagumo(1.0), [0.05, 0.3, 0.5, 1.7], 400)
    assert (len(quiet), len(excitable), len(blocked)) == (0, 1, 1)  # blocked: it rises once and stays
    assert len(spiking) == 11
    coarse, fine = (rates(FitzHughNagumo(step), [0.5, 0.8], 400, 50) for step in (0.5, 0.05))
    assert coarse == pytest.approx(fine, rel=0.01)


def test_morris_lecar_rest_and_hopf_bifurcations() -> None:
    assert newborn(MorrisLecar())["voltage"].item() == pytest.approx(-60.86, abs=0.005)
    assert hopf_currents(MorrisLecar(), -50, 10) == pytest.approx([93.86, 212.0], abs=0.05)


def test_morris_lecar_type_i_has_a_saddle_node_and_starts_from_rate_0() -> None:
    neuron = MorrisLecar(0.5, **TYPE_I)
    voltages = torch.linspace(-60, -15, 20001, dtype=torch.float64)
    assert held_by(neuron, voltages).max().item() == pytest.approx(39.96, abs=0.005)
    below, *above = rates(neuron, [39.9, 40.5, 42.0, 50.0], 2500, 300)
    assert below == 0
    assert above == sorted(above)
    assert above[0] < 5 < above[2]


def test_morris_lecar_at_its_largest_step_has_the_rate_of_a_fine_one() -> None:
    coarse, fine = (rates(MorrisLecar(step), [100.0, 150.0], 800, 200) for step in (0.5, 0.1))
    assert coarse == pytest.approx(fine, rel=0.01)


def eigenvalues(neuron: Linear2D) -> list[complex]:
    tau, tau_w, a, c = (getattr(neuron.options, name) for name in ("tau", "tau_w", "a", "c"))
    half = (a / tau - 1 / tau_w) / 2
    root = cmath.sqrt(half**2 - (c - a) / (tau * tau_w))
    return [half + root, half - root]


@pytest.mark.parametrize(
    "options",
    [{}, {"a": -3.0, "c": 0.5}, {"a": -1.0, "c": -3.0}, {"tau": 10.0, "tau_w": 10.0, "a": 0.9, "c": 1.0}],
    ids=["focus", "node", "saddle", "slow focus"],
)
@pytest.mark.parametrize("step_size", [0.1, 7.0])
def test_the_linear_unit_moves_along_its_eigenvectors(options: dict[str, float], step_size: float) -> None:
    neuron = Linear2D(step_size, **options)
    params, state = exact_numbers(neuron), newborn(neuron)
    drive = Drive(torch.full((1, 1), 2.0, dtype=torch.float64))
    a, c = neuron.options.a, neuron.options.c
    rest = 2 / (c - a)  # a u - w + I = 0, w = c u
    state["u"] += 1.0
    # (u, w) - rest = sum of amplitude (1, a - tau lambda) exp(lambda t)
    first, second = eigenvalues(neuron)
    tau = neuron.options.tau
    start_u, start_w = 1.0 - rest, -c * rest
    of_second = (start_w - (a - tau * first) * start_u) / (tau * (first - second))
    for step in range(4):
        output, state = neuron.step(params, drive, state)
        time = (step + 1) * step_size
        moved = (start_u - of_second) * cmath.exp(first * time) + of_second * cmath.exp(second * time)
        assert output.item() == pytest.approx(rest + moved.real, rel=1e-10, abs=1e-10)
        assert torch.equal(output, state["u"])


def test_the_linear_unit_rings_at_35_hz_by_default() -> None:
    first, _ = eigenvalues(Linear2D())
    assert first.real == pytest.approx(-0.075)
    assert 1000 * first.imag / (2 * math.pi) == pytest.approx(35.4, abs=0.1)


def test_near_its_rest_morris_lecar_is_the_linear_unit() -> None:
    model = MorrisLecar(0.05)
    rest = newborn(model)
    exact = exact_numbers(model)

    def change(voltage: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        return torch.stack(model.change(exact, Drive(torch.zeros(1, 1)), [voltage, w]))

    by_voltage, by_w = torch.autograd.functional.jacobian(change, (rest["voltage"], rest["w"]))
    (uu, wu), (uw, ww) = by_voltage.flatten().tolist(), by_w.flatten().tolist()
    # In units of w' = -tau uw w: tau du = a u - w' + I, tau_w dw' = c u - w'; tau = C, so that I is the model's own.
    tau, tau_w = 20.0, -1 / ww
    linear = Linear2D(0.05, tau=tau, tau_w=tau_w, a=tau * uu, c=-tau * uw * wu * tau_w)
    assert max(value.real for value in eigenvalues(linear)) == pytest.approx(growth(model, rest["voltage"].item()))
    small, state = Drive(torch.full((1, 1), 0.05, dtype=torch.float64)), newborn(linear)
    moved = rest
    for _ in range(1000):
        u, state = linear.step(exact_numbers(linear), small, state)
        _, moved = model.step(exact, small, moved)
    assert u.item() == pytest.approx((moved["voltage"] - rest["voltage"]).item(), rel=0.01)
