"""Competition among units: caps, winners and neighbourhoods against numbers worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from plastic_rl.config.signatures import arguments_of
from plastic_rl.errors import ConfigError
from plastic_rl.neurons import COMPETITIONS, k_cap, winners
from plastic_rl.neurons.competition import KCap, Neighbourhood, WinnerTakeAll
from plastic_rl.plasticity import Part

OUTPUT = torch.tensor([[0.5, 2.0, 2.0, -1.0, 0.0, 0.0]], dtype=torch.float64)
everywhere = pytest.mark.parametrize("name", COMPETITIONS)


def first_of_largest(row: list[float], k: int) -> list[float]:
    """Sort by value, then by index; keep the first k."""
    kept = sorted(range(len(row)), key=lambda unit: (-row[unit], unit))[:k]
    return [value if unit in kept else 0.0 for unit, value in enumerate(row)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("k", [1, 3, 6, 7])
def test_k_cap_keeps_the_largest_and_of_equal_ones_the_first(k: int, dtype: torch.dtype) -> None:
    # Whole numbers between -2 and 2, so that nearly every row has ties, at the threshold and at zero.
    values = torch.randint(-2, 3, (200, 7), generator=torch.Generator().manual_seed(k)).to(dtype)
    expected = torch.tensor([first_of_largest(row, k) for row in values.tolist()])
    assert torch.equal(k_cap(values, k).float(), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("k", [1, 3, 6])
def test_as_many_win_as_are_asked_for_also_of_equal_ones(k: int, dtype: torch.dtype) -> None:
    values = torch.randint(-1, 2, (200, 7), generator=torch.Generator().manual_seed(k)).to(dtype)
    chosen = winners(values, k)
    assert (chosen.sum(-1) == k).all()
    for row, marks in zip(values.tolist(), chosen.tolist(), strict=True):
        kept = sorted(range(7), key=lambda unit: (-row[unit], unit))[:k]
        assert [unit for unit in range(7) if marks[unit]] == sorted(kept)


def test_without_a_cap_everything_stays() -> None:
    values = torch.tensor([[1.0, -2.0, 0.0]])
    assert k_cap(values, None) is values
    assert k_cap(values, 3) is values


def test_the_gradient_of_k_cap_reaches_what_is_kept() -> None:
    values = torch.tensor([1.0, 3.0, 3.0, 2.0], requires_grad=True)
    k_cap(values, 2).sum().backward()
    assert values.grad is not None
    assert values.grad.tolist() == [0, 1, 1, 0]


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        (KCap(k=2), [0, 2, 2, 0, 0, 0]),
        (KCap(k=3), [0.5, 2, 2, 0, 0, 0]),
        (KCap(k=4, all_or_none=True), [1, 1, 1, 0, 1, 0]),  # of the two zeros the first
        (WinnerTakeAll(), [0, 2, 0, 0, 0, 0]),
        (WinnerTakeAll(all_or_none=True), [0, 1, 0, 0, 0, 0]),
    ],
)
def test_caps_and_winners_by_hand(part: WinnerTakeAll, expected: list[float]) -> None:
    assert part.outputs({}, OUTPUT, {}).tolist() == [expected]


def test_a_neighbourhood_falls_off_with_the_distance_on_a_line_and_a_grid() -> None:
    state = {"neighbourhood_width": torch.tensor([[2.0]], dtype=torch.float64)}
    line = Neighbourhood().outputs({}, OUTPUT, state)[0].tolist()
    # Unit 1 wins: distances 1 0 1 2 3 4, and 2 s^2 = 8.
    assert line == pytest.approx([math.exp(-(distance**2) / 8) for distance in (1, 0, 1, 2, 3, 4)], abs=1e-12)
    grid = Neighbourhood(columns=3).outputs({}, OUTPUT, state)[0].tolist()
    # Rows 0 1 2 and 3 4 5: squares 1 0 1 and 1 + (1 0 1).
    assert grid == pytest.approx([math.exp(-square / 8) for square in (1, 0, 1, 2, 1, 2)], abs=1e-12)
    alone = Neighbourhood().outputs({}, OUTPUT, {"neighbourhood_width": torch.zeros(1, 1)})
    assert alone.tolist() == [[0, 1, 0, 0, 0, 0]]


def test_the_width_goes_exponentially_to_its_end() -> None:
    part = Neighbourhood(2.0, width=5.0, final_width=1.0, tau_width=50.0)
    params = {name: one.value.double() for name, one in part.numbers().items()}
    state = {"neighbourhood_width": torch.full((1, 1), 5.0, dtype=torch.float64)}
    for step in range(1, 101):
        state = part.next_state(params, state)
        assert state["neighbourhood_width"].item() == pytest.approx(1 + 4 * math.exp(-2 * step / 50), abs=1e-12)


@everywhere
def test_a_population_is_its_individuals_stacked(name: str) -> None:
    part = COMPETITIONS[name](**({"k": 2} if name == "k_cap" else {}))
    generator = torch.Generator().manual_seed(1)
    state = {
        key: 1 + torch.rand(2, 4, *entry.shape, generator=generator) for key, entry in part.state_entries().items()
    }
    params = {key: one.value.expand(2, 1) * torch.tensor([[1.0], [0.5]]) for key, one in part.numbers().items()}
    output = torch.randn(2, 4, 6, generator=generator)
    before = output.clone()
    together, moved = part.outputs(params, output, state), part.next_state(params, state)
    assert set(moved) == set(part.state_entries())
    for index in range(2):
        own = {key: one[index] for key, one in params.items()}
        single = {key: one[index] for key, one in state.items()}
        torch.testing.assert_close(part.outputs(own, output[index], single), together[index])
        for key, one in part.next_state(own, single).items():
            torch.testing.assert_close(one, moved[key][index])
    assert torch.equal(output, before)


@everywhere
def test_every_competition_says_what_it_does_and_what_its_options_are(name: str) -> None:
    part = COMPETITIONS[name]
    first = (part.__doc__ or "").split("\n")[0]
    assert first.endswith(".")
    assert "`" in first or name == "none"
    assert [option for option, one in arguments_of(part, Part).items() if not one.help] == []


@pytest.mark.parametrize(
    ("part", "size", "message"),
    [
        (WinnerTakeAll(), 1, "all of 1 units would win where 1 do; use 2 units or more"),
        (KCap(k=6), 6, "all of 6 units would win where 6 do; use 7 units or more, or competition: none"),
        (Neighbourhood(columns=4), 6, r"rows of 4 units \(columns\) do not make up 6 units: use a divisor of 6"),
    ],
)
def test_layers_with_nothing_to_compete_for_are_refused(part: WinnerTakeAll, size: int, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        part.check_size(size)
    part.check_size(8)
