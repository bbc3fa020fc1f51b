"""`plastic-rl memories`: what it lists, what it says of each memory, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest

from plastic_rl.memories import MEMORIES
from tests.cli.conftest import Call


def test_the_list_names_each_memory_in_a_line_that_fits(call: Call) -> None:
    outcome = call("memories", "list")
    assert outcome.code == 0
    lines = outcome.out.splitlines()
    assert [line.split()[0] for line in lines if not line.startswith(" ")] == list(MEMORIES)
    assert max(map(len, lines)) <= 80
    assert "up to .138 N patterns" in " ".join(outcome.out.split())


def test_hopfield_beside_its_theory(call: Call, tmp_path: Path) -> None:
    picture = tmp_path / "hopfield.png"
    outcome = call("memories", "show", "hopfield", "--units", "400", "--load", ".1", "--plot", picture)
    assert outcome.code == 0, outcome.err
    lines = outcome.out.splitlines()
    assert max(map(len, lines[:-1])) <= 80
    assert "400 units, 40 random patterns: load 0.1" in lines
    by_load = {
        line.split()[0]: line.split() for line in lines[lines.index("overlap in which the recall ends") + 2 : -2]
    }
    # erfc(sqrt(400 / (2 * 39))) / 2, and the retained overlaps of loads .1 and .3.
    assert by_load["0.1"][2] == "0.00068"
    assert (by_load["0.1"][-1], by_load["0.3"][-1]) == ("0.998", "0.000")
    assert float(by_load["0.3"][1]) == pytest.approx(float(by_load["0.3"][2]), rel=0.15)
    assert lines[-1] == f"written: {picture}"
    assert picture.stat().st_size > 20_000
    assert call("memories", "show", "hopfield", "--plot", picture).code == 2


@pytest.mark.parametrize("name", MEMORIES)
def test_every_memory_can_be_shown_and_drawn(call: Call, tmp_path: Path, name: str) -> None:
    picture = tmp_path / "memory.svg"
    outcome = call("memories", "show", name, "--units", "60", "--load", ".05", "--seed", "3", "--plot", picture)
    assert outcome.code == 0, outcome.err
    assert max(map(len, outcome.out.splitlines()[:-1])) <= 80
    assert all(f"  {option} = " in outcome.out for option in MEMORIES[name].options_model().model_fields)
    assert "</svg>" in picture.read_text()
    assert outcome.out == call("memories", "show", name, "--units", "60", "--load", ".05", "--seed", "3").out + (
        f"\nwritten: {picture}\n"
    )


def test_options_reach_the_memory(call: Call) -> None:
    outcome = call("memories", "show", "hopfield", "storage=pseudo_inverse", "--units", "100", "--load", ".3")
    assert outcome.code == 0
    assert "storage = pseudo_inverse" in outcome.out
    # Without theory for it, and without an error up to .9 N patterns.
    assert "  0.9     0.00000  -        ################  1.000  -" in outcome.out.splitlines()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["hopfeild"], "Did you mean 'hopfield'?"),
        (["hopfield", "storge=hebb"], "Did you mean 'storage'?"),
        (["hopfield", "storage=hebbian"], "storage: must be 'hebb', 'pseudo_inverse' or 'delta'"),
        (["hopfield", "beta=-1"], "beta: must be greater than 0, got -1"),
        (["modern", "beta"], "takes KEY=VALUE"),
        (["hopfield", "--load", "0"], "a load above 0"),
        (["hopfield", "--load", "inf"], "a load above 0"),
        (["hopfield", "--units", "0"], "greater than or equal to 1"),
        (["hopfield", "--units", "100000"], "are too many"),
        (["hopfield", "--zeroed", "1.5"], "less than or equal to 1"),
        (["hopfield", "--plot", "memory.gif"], "a picture ends in .png, .svg or .pdf"),
        (["hopfield", "--units", "20", "--plot", "no/such/folder.png"], "No such file or directory"),
    ],
)
def test_bad_input_is_told_with_exit_code_2(call: Call, arguments: list[str], message: str) -> None:
    outcome = call("memories", "show", *arguments)
    assert outcome.code == 2
    assert message in " ".join(outcome.err.replace("│", " ").split())
