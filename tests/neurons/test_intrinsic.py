"""Units that adapt their excitability reach the distribution that they are told to."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from plastic_rl.neurons.intrinsic import INTRINSICS, LOWEST_GAIN, AdaptingThreshold, Intrinsic, Schrauwen, Triesch

UNITS, STEPS = 200, 6000


def adapted(part: Intrinsic, unit: object, scale: float = 1.0) -> Tensor:
    """Outputs of many units for Gaussian input, in the last third of their lives."""
    params = {name: parameter.value.double() for name, parameter in part.numbers().items()}
    state = {
        name: torch.full((1, UNITS), float(entry.start), dtype=torch.float64)
        for name, entry in part.state_entries(UNITS).items()
    }
    generator = torch.Generator().manual_seed(0)
    late = []
    for step in range(STEPS):
        current = scale * torch.randn(1, UNITS, generator=generator, dtype=torch.float64)
        output = unit(part.excited(params, current, state))  # type: ignore[operator]
        state |= part.next_state(params, current, output, state)
        assert set(state) == set(part.state_entries(UNITS))
        if 3 * step > 2 * STEPS:
            late.append(output)
    return torch.stack(late)


@pytest.mark.parametrize("scale", [0.5, 2.0])
def test_sigmoid_rates_become_exponential(scale: float) -> None:
    rates = adapted(Triesch(rate=0.005, mean=0.1), torch.sigmoid, scale)
    assert rates.mean().item() == pytest.approx(0.1, rel=0.05)
    # An exponential distribution has a coefficient of variation of 1.
    assert 0.85 < (rates.std() / rates.mean()).item() < 1.2


def test_tanh_outputs_become_normal() -> None:
    outputs = adapted(Schrauwen(rate=0.005, mean=0.1, deviation=0.3), torch.tanh)
    assert outputs.mean().item() == pytest.approx(0.1, abs=0.02)
    assert outputs.std().item() == pytest.approx(0.3, rel=0.05)


def test_the_threshold_finds_its_target_rate() -> None:
    spikes = adapted(AdaptingThreshold(rate=0.02, target=0.2), lambda drive: (drive > 0).double())
    assert spikes.mean().item() == pytest.approx(0.2, rel=0.01)


def test_one_step_by_hand_and_the_gain_stays_above_zero() -> None:
    part = Triesch(rate=0.5, mean=0.5)
    params = {name: parameter.value.double() for name, parameter in part.numbers().items()}
    state = {"gain": torch.tensor([[2.0, 1.0]]).double(), "shift": torch.tensor([[0.0, 0.0]]).double()}
    current, output = torch.tensor([[1.0, 100.0]]).double(), torch.tensor([[0.5, 1.0]]).double()
    moved = part.next_state(params, current, output, state)
    # 1 - 4 * .5 + .25 / .5 = -.5 and 1 - 4 + 2 = -1, times .5; g: 2 + .25 - .25, and 1 + .5 - 50.
    assert moved["shift"].tolist() == [[-0.25, -0.5]]
    assert moved["gain"].tolist() == [[2.0, LOWEST_GAIN]]


@pytest.mark.parametrize("name", INTRINSICS)
def test_a_population_is_its_individuals_stacked(name: str) -> None:
    part = INTRINSICS[name]()
    generator = torch.Generator().manual_seed(1)
    entries = part.state_entries(3)
    one = {key: 1 + torch.rand(2, 4, 3, generator=generator) for key in entries}
    params = {key: value.value.expand(2, 1) * torch.tensor([[1.0], [0.5]]) for key, value in part.numbers().items()}
    current, output = torch.randn(2, 4, 3, generator=generator), torch.rand(2, 4, 3, generator=generator)
    together = part.next_state(params, current, output, one)
    excited = part.excited(params, current, one)
    for index in range(2):
        own = {key: value[index] for key, value in params.items()}, current[index]
        state = {key: value[index] for key, value in one.items()}
        torch.testing.assert_close(part.excited(*own, state), excited[index])
        for key, value in part.next_state(*own, output[index], state).items():
            torch.testing.assert_close(value, together[key][index])
