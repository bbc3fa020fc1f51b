"""Synaptic scaling and heterosynaptic plasticity against their closed forms."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from plastic_rl.plasticity import Synapse, SynapseConfig
from plastic_rl.plasticity.homeostasis import HOMEOSTASES, Heterosynaptic, SynapticScaling


def exact(part: Any, **others: float) -> dict[str, Tensor]:
    values = {name: getattr(part.options, name) for name in part.numbers()} | others
    return {name: torch.tensor([value], dtype=torch.float64) for name, value in values.items()}


def matrix(*rows: list[float]) -> Tensor:
    return torch.tensor([rows], dtype=torch.float64)


@pytest.mark.parametrize("start", [0.1, 2.0])
def test_scaling_brings_a_linear_units_rate_to_the_target_by_the_logistic_curve(start: float) -> None:
    target, rate, shares = 0.8, 0.02, [0.3, 0.5, 0.2]
    options = {"scaling_target": target, "scaling_rate": rate, "scaling_average": 1.0, "largest": 100.0}
    config = SynapseConfig(homeostasis={"name": "synaptic_scaling", **options})
    synapse = Synapse(config, 1, 3)
    params = exact(synapse.homeostasis) | {"eta": torch.zeros(1, 1).double(), "alpha": torch.ones(1, 1).double()}
    weight, pre = start * torch.tensor([shares], dtype=torch.float64), torch.ones(1, 3).double()
    state = {name: torch.zeros(1, *entry.shape).double() for name, entry in synapse.state_entries().items()}
    state["scale"] = torch.ones(1, 1).double()
    for step in range(500):
        rates = synapse.driven(params, weight, pre, state)
        expected = target / (1 + (target / start - 1) * math.exp(-rate * target * step))
        assert rates.item() == pytest.approx(expected, abs=1e-10)
        scaled = synapse.weight(params, weight, state)[0, 0]
        torch.testing.assert_close(scaled / scaled.sum(), torch.tensor(shares, dtype=torch.float64), atol=1e-12, rtol=0)
        state |= synapse.update(params, pre, rates, state)
    assert rates.item() == pytest.approx(target, abs=0.01)


def test_the_scale_moves_by_the_equation_and_stays_within_its_bounds() -> None:
    scaling = SynapticScaling(scaling_rate=1e-4, scaling_target=0.5, largest=3.0)
    params, trace = exact(scaling), matrix([1.0])
    rates = torch.tensor([[0.1, 0.5, 2.0]]).double()
    begun = torch.tensor([[2.0, 2.0, 2.0]]).double()
    kept, moved = scaling.held(params, trace, None, {"scale": begun, "mean_activity": rates})
    assert kept is trace
    # ds = eta s (rho - rbar), to first order in eta.
    torch.testing.assert_close((moved["scale"] - begun) / 1e-4, 2 * (0.5 - rates), atol=1e-3, rtol=0)
    strong = exact(scaling, scaling_rate=1.0, scaling_target=50.0)
    for activity, bound in ((0.0, 3.0), (1e4, 1 / 3)):
        state = {"scale": torch.ones(1, 1).double(), "mean_activity": torch.tensor([[activity]]).double()}
        assert scaling.held(strong, trace, None, state)[1]["scale"].item() == pytest.approx(bound)


def test_the_mean_activity_is_of_substeps_and_steps() -> None:
    # |y| = (1, 0, 1, 0): .5; a quarter of the way from .1.
    scaling = SynapticScaling(scaling_average=0.25)
    post = torch.tensor([[[1.0], [0.0], [-1.0], [0.0]]]).double()
    observed = scaling.observed(exact(scaling), post, {"mean_activity": torch.tensor([[0.1]]).double()})
    assert observed["mean_activity"].item() == pytest.approx(0.2)


def test_bursts_pull_all_synapses_of_a_unit_to_the_slow_copy() -> None:
    """Spikes in substeps 1, 3, 4 of 5: z before each is 0, e^-2/tau, and that decayed once and raised by 1."""
    hetero = Heterosynaptic(1.0, heterosynaptic_rate=0.3, tau_heterosynaptic=5.0)
    params = exact(hetero)
    post = torch.tensor([[[1.0, 0.0], [0.0, 0.0], [1.0, 0.0], [1.0, 0.0], [0.0, 0.0]]]).double()
    begun = {name: torch.zeros(1, 2).double() for name in hetero.state_entries(2)}
    observed = hetero.observed(params, post, begun)
    before = [0.0, math.exp(-2 / 5), (math.exp(-2 / 5) + 1) * math.exp(-1 / 5)]
    bursts = sum(z**3 for z in before)
    assert observed["bursts"].tolist() == [[pytest.approx(bursts, abs=1e-12), 0.0]]
    assert observed["burst_trace"][0, 0].item() == pytest.approx((before[-1] + 1) * math.exp(-1 / 5), abs=1e-12)
    trace, slow = matrix([0.5, -0.2], [0.5, -0.2]), matrix([0.1, -0.2], [0.1, -0.2])
    moved, entries = hetero.held(params, trace, slow, observed)
    assert entries == {}
    # The distance to F_slow shrinks by exp(-beta sum z^3 y); -.2 is at its fixed point; the silent unit's stay.
    left = math.exp(-0.3 * bursts)
    torch.testing.assert_close(moved, matrix([0.1 + 0.4 * left, -0.2], [0.5, -0.2]), atol=1e-12, rtol=0)
    torch.testing.assert_close(hetero.held(params, trace, None, observed)[0][0, 0], left * trace[0, 0])


def test_unstimulated_synapses_of_an_active_unit_move_and_those_of_a_silent_one_do_not() -> None:
    config = SynapseConfig(homeostasis="heterosynaptic", consolidation={"name": "two_speeds", "slow_pull": 0.0})
    synapse = Synapse(config, 2, 2)
    params = exact(synapse.homeostasis) | exact(synapse.consolidation) | {"eta": torch.full((1, 1), 0.1).double()}
    state = {name: torch.zeros(1, *entry.shape).double() for name, entry in synapse.state_entries().items()}
    state |= {"trace": matrix([0.5, 0.5], [0.5, 0.5]), "slow_trace": matrix([0.2, 0.5], [0.2, 0.5])}
    params["slow_rate"] = torch.zeros(1).double()
    # Only the first presynaptic unit and the first postsynaptic one are active.
    x, y = torch.tensor([[0.0, 0.0]]).double(), torch.tensor([[2.0, 0.0]]).double()
    for _ in range(3):
        state |= synapse.update(params, x, y, state)
    assert 0.2 < state["trace"][0, 0, 0].item() < 0.3
    assert state["trace"][0, 0, 1].item() == pytest.approx(0.5, abs=1e-12)
    assert state["trace"][0, 1].tolist() == [0.5, 0.5]


@pytest.mark.parametrize("name", sorted(HOMEOSTASES))
def test_gradients(name: str) -> None:
    synapse = Synapse(SynapseConfig(homeostasis=name, consolidation="two_speeds"), 2, 3)
    numbers = exact(synapse.homeostasis) | exact(synapse.consolidation)
    numbers |= {"eta": torch.full((1, 1), 0.3).double(), "alpha": torch.full((1, 1), 0.7).double()}
    generator = torch.Generator().manual_seed(0)
    weight, pre = (torch.randn(*shape, generator=generator).double() for shape in ((2, 3), (6, 2, 3)))

    def run(start: Tensor, *values: Tensor) -> Tensor:
        params = dict(zip(numbers, values, strict=True))
        state = {name: torch.ones(2, *entry.shape).double() for name, entry in synapse.state_entries().items()}
        for x in pre:
            state |= synapse.update(params, x, torch.tanh(synapse.driven(params, start, x, state)), state)
        return torch.cat([entry.flatten() for entry in state.values()])

    leaves = [value.requires_grad_() for value in (weight, *numbers.values())]
    assert torch.autograd.gradcheck(run, leaves)
