"""Binary threshold units: where they fire, and thresholds that are drawn."""

from __future__ import annotations

import torch

from plastic_rl.neurons import Binary, Drive


def test_a_unit_fires_at_its_threshold_and_above() -> None:
    neuron = Binary(threshold=0.25)
    params = {name: one.value for name, one in neuron.parameters(4).items()}
    output, state = neuron.step(params, Drive(torch.tensor([[0.2, 0.25, 0.3, -1.0]])), {})
    assert output.tolist() == [[0, 1, 1, 0]]
    assert state == {}


def test_spread_thresholds_follow_from_the_generator_and_each_unit_has_its_own() -> None:
    neuron = Binary(threshold=0.5, threshold_spread=0.5, learned=("threshold",))
    (threshold,) = neuron.parameters(2000, torch.Generator().manual_seed(0)).values()
    again = neuron.parameters(2000, torch.Generator().manual_seed(0))["threshold"]
    assert torch.equal(threshold.value, again.value)
    assert threshold.trainable
    # Uniform from 0 to 1: mean 1/2, variance 1/12.
    assert bool((threshold.value >= 0).all() and (threshold.value <= 1).all())
    assert abs(threshold.value.mean().item() - 0.5) < 0.02
    assert abs(threshold.value.var().item() - 1 / 12) < 0.005
    drive = Drive(torch.full((1, 2000), 0.3))
    output, _ = neuron.step({"threshold": threshold.value}, drive, {})
    assert torch.equal(output[0] == 1, threshold.value <= 0.3)
    # With a population each individual has thresholds of its own.
    stacked = torch.stack([threshold.value, 1 - threshold.value])
    output, _ = neuron.step({"threshold": stacked}, Drive(torch.full((2, 3, 2000), 0.3)), {})
    assert torch.equal(output[1, 2] == 1, 1 - threshold.value <= 0.3)


def test_without_a_spread_nothing_is_drawn() -> None:
    generator = torch.Generator().manual_seed(0)
    before = generator.get_state()
    assert Binary().parameters(5, generator)["threshold"].value.tolist() == [0.5]
    assert torch.equal(generator.get_state(), before)
