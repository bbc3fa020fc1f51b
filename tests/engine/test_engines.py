"""Every engine returns results by index, and raises what the work raised."""

from __future__ import annotations

import pytest

from plastic_rl.engine import ENGINES


def square(item: int) -> int:
    if item < 0:
        raise ValueError(f"{item} is negative")
    return item * item


@pytest.mark.parametrize("name", sorted(ENGINES))
def test_results_come_by_index(name: str) -> None:
    with ENGINES[name]() as engine:
        assert engine.map(square, range(20)) == [item * item for item in range(20)]
        assert engine.map(square, []) == []


@pytest.mark.parametrize("name", sorted(ENGINES))
def test_the_first_failure_by_index_is_raised(name: str) -> None:
    with ENGINES[name]() as engine, pytest.raises(ValueError, match="-2 is negative"):
        engine.map(square, [1, -2, 3, -4])
