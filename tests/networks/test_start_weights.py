"""Start weights drawn from keys: their distribution, their independence, and what they depend on."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch

from plastic_rl.networks import start_weights, structure
from plastic_rl.networks.start_weights import draw_keys, next_keys, normal_weights, step_numbers, uniform_numbers
from plastic_rl.plasticity.structure import Rewire
from tests.networks.cases import ALL, at, make_case, run_steps


def reference(state: int, count: int) -> list[int]:
    """SplitMix64 in Python's whole numbers: the outputs after `state`."""
    outputs, mask = [], 2**64 - 1
    for index in range(1, count + 1):
        bits = (state + index * 0x9E3779B97F4A7C15) & mask
        bits = ((bits ^ (bits >> 30)) * 0xBF58476D1CE4E5B9) & mask
        bits = ((bits ^ (bits >> 27)) * 0x94D049BB133111EB) & mask
        outputs.append(bits ^ (bits >> 31))
    return outputs


def test_the_successor_of_a_key_is_that_of_splitmix64() -> None:
    # The published first output for the seed 0.
    assert reference(0, 1) == [0xE220A8397B1DCDAF]
    for key in (0, 1, 2**61 + 12345):
        expected = reference(key, 1)[0]
        found = int(next_keys(torch.tensor([key]), torch.tensor([True])))
        assert found % 2**64 == expected


def test_numbers_have_the_moments_of_their_distribution_and_no_correlations() -> None:
    keys = draw_keys(200, torch.Generator().manual_seed(0))
    weights = normal_weights(keys, 0, (100, 50)).double()
    count = weights.numel()
    assert abs(weights.mean()) < 4 / count**0.5
    assert abs(weights.square().mean() - 1) < 4 * 2**0.5 / count**0.5
    assert abs(weights.pow(4).mean() - 3) < 4 * 96**0.5 / count**0.5
    flat = weights.reshape(200, -1)
    neighbours = (flat[:, 1:] * flat[:, :-1]).mean()
    lifetimes = (flat[1:] * flat[:-1]).mean()
    streams = (normal_weights(keys, 1, (100, 50)).double() * weights).mean()
    successors = (normal_weights(next_keys(keys, keys > 0), 0, (100, 50)).double() * weights).mean()
    for correlation in (neighbours, lifetimes, streams, successors):
        assert abs(correlation) < 4 / count**0.5


def test_neighbouring_keys_give_independent_numbers() -> None:
    flat = uniform_numbers(torch.arange(1000), 0, 1000) - 0.5
    assert abs((flat[1:] * flat[:-1]).mean()) < 4 / 12 / 1e6**0.5


def test_numbers_depend_on_the_key_alone_not_on_its_company() -> None:
    keys = torch.tensor([[5, 9], [9, 5]])
    weights = normal_weights(keys, 3, (4,))
    assert weights.shape == (2, 2, 4)
    assert torch.equal(weights[0, 0], weights[1, 1])
    assert torch.equal(weights[0, 1], normal_weights(torch.tensor([9]), 3, (4,))[0])


def test_only_lifetimes_that_start_get_new_keys() -> None:
    keys = torch.tensor([5, 5, 6])
    later = next_keys(keys, torch.tensor([True, False, True]))
    assert later[1] == 5
    assert later[0] != 5
    assert later[2] not in {6, int(later[0])}


def test_the_first_step_of_a_lifetime_and_its_successors_birth_share_a_stream() -> None:
    """Why no network may use a stream for both: see the module. The second step shares nothing."""
    keys, age = torch.tensor([5, 2**61]), torch.tensor([0, 0])
    later = uniform_numbers(next_keys(keys, keys > 0), 3, 4)
    assert torch.equal(step_numbers(keys, age, 3, (4,)), later)
    assert not torch.isclose(step_numbers(keys, age + 1, 3, (4,)), later).any()


NOISY_AND_DRAWN: dict[str, Any] = {
    "kind": "plastic_units",
    "coding": "poisson",
    "on_off": True,
    "input": {"rule": "oja", "structure": {"name": "sparse", "drawn": "lifetime"}},
    "recurrent": {"rule": "oja", "structure": {"name": "rewire", "drawn": "lifetime"}},
}


@pytest.mark.parametrize("config", [*ALL.values(), NOISY_AND_DRAWN], ids=[*ALL, "noisy_and_drawn"])
def test_no_network_draws_its_first_step_from_a_stream_of_birth(
    config: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    born: set[int] = set()
    first: set[int] = set()

    def watched(name: str, streams: set[int]) -> Callable[..., torch.Tensor]:
        original = getattr(start_weights, name)

        def draw(keys: torch.Tensor, *arguments: Any) -> torch.Tensor:
            streams.add(arguments[-2])
            return original(keys, *arguments)

        return draw

    modules = {module for name, module in sys.modules.items() if name.startswith("plastic_rl.networks.")}
    for module in modules - {start_weights}:
        for name, streams in (("normal_weights", born), ("uniform_numbers", born), ("step_numbers", first)):
            # Rewiring draws for all lifetimes, but nothing comes of it where it is not due.
            if hasattr(module, name) and (module, name) != (structure, "step_numbers"):
                monkeypatch.setattr(module, name, watched(name, streams))
    case = make_case(config, steps=6, start_rate=0.3)
    run_steps(case)
    assert not born & first, f"drawn from at birth and in the first step: {born & first}"


def test_rewiring_is_never_due_in_the_first_step() -> None:
    for every in (1, 2, 5):
        due = Rewire(every=every).due(torch.arange(11))
        assert due.nonzero().flatten().tolist() == list(range(every, 11, every))


def test_all_that_is_drawn_in_a_step_has_streams_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Poisson inputs, spontaneous activity, rewiring of two kinds of synapses, turnover: each at its time."""
    rewired = {"rule": "oja", "structure": {"name": "rewire", "density": 0.5, "every": 4}}
    config = {
        "kind": "plastic_units",
        "coding": "poisson",
        "input": rewired,
        "recurrent": rewired,
        "readout": {"rule": "reward_gated", "neuron": "linear"},
        "turnover": {"every": 4, "maturity": 0},
        "development": {"steps": 4, "process": "poisson"},
    }
    drawn: list[tuple[int, int]] = []
    original = start_weights.step_numbers

    def draw(keys: torch.Tensor, ages: torch.Tensor, stream: int, shape: tuple[int, ...]) -> torch.Tensor:
        drawn.append((int(ages[0]), stream))
        return original(keys, ages, stream, shape)

    for module in {module for name, module in sys.modules.items() if name.startswith("plastic_rl.networks.")}:
        if module is not start_weights and hasattr(module, "step_numbers"):
            monkeypatch.setattr(module, "step_numbers", draw)
    case = make_case(config, steps=1, batch=1)
    case.network.step(case.params, case.xs[0], at(case.feedbacks, 0), case.state, torch.ones(1, dtype=torch.bool))
    assert len(drawn) == len(set(drawn)) == 2 * 4 + 1 + 2 + 3
