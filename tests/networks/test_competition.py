"""Layers whose units compete: caps and winners in a step, competitive learning, self-organising maps."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from plastic_rl.feedback import Feedback
from plastic_rl.networks import State
from tests.networks.test_plastic_units import NEVER, constant, quiet, units

LEARNING = {"rule": "instar", "trace_start": "weight"}
WINNER = {"name": "winner_take_all", "winner": "distance", "all_or_none": True}
MAP = {"name": "neighbourhood", "winner": "distance", "tau_width": 500.0}


def test_caps_and_winners_of_a_step_by_hand() -> None:
    """Drives 1 2 3 at x = 1: the cap keeps 2 3, and of what reaches the readout, 2 + 3 and -2 + 3, the larger stays."""
    readout = {"neuron": "linear", "population": 1, "competition": "winner_take_all", "scale": constant(1.0)}
    config = {"neuron": "linear", "hidden_size": 3, "competition": {"name": "k_cap", "k": 2}, "inputs": "features"}
    network = units(config | {"readout": readout}, inputs=6)
    params = dict(network.named_parameters())
    params["synapses.input.weight"] = torch.tensor([[1.0], [2.0], [3.0]], dtype=torch.float64)
    params["synapses.readout.weight"] = torch.tensor([[9.0, 1.0, 1.0], [9.0, -1.0, 1.0]], dtype=torch.float64)
    x = torch.tensor([[1.0, 0, 0, 0, 0, 0]], dtype=torch.float64)
    with torch.no_grad():
        features, state = network.step(params, x, quiet(), network.initial_state(1), NEVER)
    assert state["activity.hidden"].tolist() == [[0.0, 2.0, 3.0]]
    assert features.tolist() == [[5.0, 0.0]]


def test_the_nearest_unit_wins_and_moves_to_the_input() -> None:
    """Weights 0.5 and 4 at x = 1: the drive prefers 4, the distance 0.5, which moves a quarter of the way."""
    for winner, output, weights in (("drive", [0.0, 1.0], [0.5, 3.25]), ("distance", [1.0, 0.0], [0.625, 4.0])):
        competition = {"name": "winner_take_all", "winner": winner, "all_or_none": True}
        config = {"neuron": "linear", "hidden_size": 2, "inputs": "features", "competition": competition}
        network = units(config | {"input": LEARNING | {"eta": constant(0.25)}}, inputs=6)
        params = dict(network.named_parameters())
        params["synapses.input.weight"] = torch.tensor([[0.5], [4.0]], dtype=torch.float64)
        x = torch.tensor([[1.0, 0, 0, 0, 0, 0]], dtype=torch.float64)
        with torch.no_grad():
            features, state = network.step(params, x, quiet(), network.initial_state(1), ~NEVER)
        assert features.tolist() == [output]
        assert state["trace.input"].flatten().tolist() == weights


def test_the_nearest_unit_wins_whatever_the_layer_is_normalised_to() -> None:
    """Weights 0.5 and 4 at x = 4: the second is nearest, by 0 to 3.5; w x - w^2 / 2 is 1.875 and 8."""
    competition = {"name": "winner_take_all", "winner": "distance"}
    config = {"neuron": "linear", "hidden_size": 2, "inputs": "features", "competition": competition}
    network = units(config | {"layer_norm": 1.0}, inputs=6)
    params = dict(network.named_parameters())
    params["synapses.input.weight"] = torch.tensor([[0.5], [4.0]], dtype=torch.float64)
    x = torch.tensor([[4.0, 0, 0, 0, 0, 0]], dtype=torch.float64)
    with torch.no_grad():
        features, _ = network.step(params, x, quiet(), network.initial_state(1), ~NEVER)
    torch.testing.assert_close(features, torch.tensor([[0.0, 1.0]]).double(), atol=1e-8, rtol=0)


def test_a_trace_that_starts_at_the_weights_is_the_whole_weight() -> None:
    """Frozen at birth, such synapses drive their units as fixed ones of these weights do."""
    plain = {"neuron": "tanh", "hidden_size": 4}
    network, fixed = units(plain | {"input": LEARNING}), units(plain)
    weight = fixed.get_parameter("synapses.input.weight")
    assert torch.equal(network.get_parameter("synapses.input.weight"), weight)
    state = network.initial_state(3)
    assert torch.equal(state["trace.input"], weight.expand(3, -1, -1))
    x = torch.randn(3, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    no = torch.zeros(3, dtype=torch.bool)
    told = Feedback(torch.zeros(3, 2).double(), torch.zeros(3).double(), no, ~no)
    with torch.no_grad(), network.freeze_plasticity():
        features, _ = network.step(dict(network.named_parameters()), x, told, state, no)
        expected, _ = fixed.step(dict(fixed.named_parameters()), x, told, fixed.initial_state(3), no)
    torch.testing.assert_close(features, expected, atol=1e-15, rtol=0)


def lived(config: dict[str, Any], start: Tensor, inputs: Tensor, eta: float) -> State:
    """The state of lifetimes whose weights `(B, O, I)` began at `start` and saw `inputs (T, B, I)`."""
    network = units(
        {"neuron": "linear", "hidden_size": start.shape[1], "inputs": "features", **config}
        | {"input": LEARNING | {"eta": constant(eta)}},
        inputs=start.shape[-1] + 5,
    )
    batch = start.shape[0]
    no = torch.zeros(batch, dtype=torch.bool)
    told = Feedback(torch.zeros(batch, 2).double(), torch.zeros(batch).double(), no, ~no)
    state = network.initial_state(batch) | {"trace.input": start}
    params = dict(network.named_parameters())
    with torch.no_grad():
        for x in torch.cat([inputs, inputs.new_zeros(*inputs.shape[:-1], 5)], -1):
            _, state = network.step(params, x, told, state, no)
    return state


def test_competitive_learning_ends_at_the_means_of_clusters() -> None:
    """Three units, whose thresholds see to it that none stays idle, and three clusters: 20 random starts."""
    batch, steps, eta, spread = 20, 3000, 0.01, 0.3
    generator = torch.Generator().manual_seed(0)
    means = torch.tensor([[2.0, 0.0], [-1.0, 2.0], [-1.0, -2.0]], dtype=torch.float64)
    labels = torch.randint(3, (steps, batch), generator=generator)
    inputs = means[labels] + spread * torch.randn(steps, batch, 2, generator=generator, dtype=torch.float64)
    start = torch.randn(batch, 3, 2, generator=generator, dtype=torch.float64)
    conscience = {"name": "adapting_threshold", "rate": 0.03, "target": 1 / 3}
    weights = lived({"competition": WINNER, "intrinsic": conscience}, start, inputs, eta)["trace.input"]
    distances = (weights.unsqueeze(-2) - means).norm(dim=-1)
    assert torch.equal(distances.argmin(-1).sort(-1).values, torch.arange(3).expand(batch, 3))
    errors = distances.amin(-1)
    # A running mean at rate eta has the variance spread^2 eta / (2 - eta) in each of 2 dimensions: .030 in all.
    expected = spread * (2 * eta / (2 - eta)) ** 0.5
    assert errors.square().mean().sqrt().item() == pytest.approx(expected, rel=0.25)
    assert errors.max().item() < 4 * expected


def topographic_error(weights: Tensor) -> Tensor:
    """Share of uniform inputs whose nearest two units are no neighbours on the line, `(B,)`."""
    generator = torch.Generator().manual_seed(9)
    x = torch.rand(2000, weights.shape[-1], generator=generator, dtype=torch.float64)
    nearest = (x.unsqueeze(-2) - weights.unsqueeze(1)).square().sum(-1).topk(2, largest=False).indices
    return ((nearest[..., 0] - nearest[..., 1]).abs() > 1).double().mean(-1)


@pytest.mark.parametrize("competition", [MAP, WINNER], ids=["neighbourhood", "winner alone"])
def test_a_line_of_units_unfolds_over_what_it_sees(competition: dict[str, Any]) -> None:
    """Ten units from 20 random starts: ordered along [0, 1], and along a square; not without their neighbourhood."""
    batch, size, steps = 20, 10, 2500
    generator = torch.Generator().manual_seed(0)
    ordered, errors = [], []
    for dimensions in (1, 2):
        start = torch.rand(batch, size, dimensions, generator=generator, dtype=torch.float64)
        inputs = torch.rand(steps, batch, dimensions, generator=generator, dtype=torch.float64)
        weights = lived({"competition": competition}, start, inputs, 0.05)["trace.input"]
        if dimensions == 1:
            steps_along = weights[..., 0].diff(dim=-1)
            ordered = ((steps_along > 0).all(-1) | (steps_along < 0).all(-1)).tolist()
            if competition is MAP:
                assert steps_along.abs().mean().item() == pytest.approx(0.9 / 9, rel=0.1)
        errors.append(topographic_error(weights))
    if competition is MAP:
        assert all(ordered)
        assert errors[0].max().item() == 0
        assert errors[1].max().item() < 0.25
    else:
        assert not any(ordered)
        assert min(error.min().item() for error in errors) > 0.4


def test_a_map_on_a_grid_keeps_neighbours_of_the_square_together() -> None:
    batch, side, steps = 5, 5, 3000
    generator = torch.Generator().manual_seed(0)
    start = torch.rand(batch, side**2, 2, generator=generator, dtype=torch.float64)
    inputs = torch.rand(steps, batch, 2, generator=generator, dtype=torch.float64)
    weights = lived({"competition": MAP | {"columns": side}}, start, inputs, 0.05)["trace.input"]
    grid = weights.reshape(batch, side, side, 2)
    # The two directions of the grid are two directions of the square at right angles, everywhere.
    along, across = grid.diff(dim=2).flatten(1, 2), grid.diff(dim=1).flatten(1, 2)
    for steps_of in (along, across):
        mean = steps_of.mean(1, keepdim=True)
        assert (torch.cosine_similarity(steps_of, mean, -1) > 0.5).all()
    assert torch.cosine_similarity(along.mean(1), across.mean(1), -1).abs().max().item() < 0.2
