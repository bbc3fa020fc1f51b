"""The table of an evaluation in terminals of any width: nothing cut, no score shortened."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from plastic_rl.evaluation import Evaluation
from plastic_rl.evaluation.table import Column, fit

AGENTS = Path(__file__).parents[2] / "agents"
LONG = "an-agent-whose-name-has_forty_characters"
SHOWN = ["reversal_bandit", "rule_table_digits", "bernoulli_bandit_lstm", "cartpole", "swapped_cartpole_abcd"]


def stored(agent: str) -> Evaluation:
    return Evaluation.load(AGENTS / agent / "evaluation.json")


def numbers(text: str) -> list[str]:
    """Whole numbers of a table's body: a cut one is another."""
    return re.findall(r"(?<![\w.])-?\d+\.\d+(?![\w.])", text)


def body(table: str) -> list[str]:
    """The lines of agents, without titles, headings and notes."""
    lines, inside = [], False
    for line in table.splitlines():
        if set(line) in ({" ", "-"}, {" ", "\u2500"}):
            inside = True
        elif not line:
            inside = False
        elif inside:
            lines.append(line)
    return lines


@pytest.mark.parametrize("width", [60, 80, 100, 200])
@pytest.mark.parametrize("agent", SHOWN)
@pytest.mark.parametrize("name", ["agent", LONG])
@pytest.mark.parametrize("rich", [False, True])
def test_every_line_fits_and_every_score_is_whole(width: int, agent: str, name: str, rich: bool) -> None:
    assert len(LONG) == 40
    evaluation = stored(agent).model_copy(update={"agent": name})
    table = re.sub(r"\x1b\[[0-9;]*m", "", evaluation.table(rich=rich, width=width))
    assert max(map(len, table.splitlines())) <= width
    assert "\u2026" not in table
    shown = numbers("\n".join(body(table)))
    for split in evaluation.splits.values():
        entries = split.entries(name).values()
        largest = max(abs(score.raw_score) for score in entries)
        decimals = 1 if largest >= 100 else 2 if largest >= 10 else 3
        for score in entries:
            wanted = [f"{value:.{decimals}f}" for value in (score.raw_score, *score.raw_score_interval)]
            if score.normalised_score is not None:
                wanted.append(f"{score.normalised_score:.3f}")
            for point in score.accuracy_after:
                wanted += [f"{value:.3f}" for value in (point.accuracy, *point.accuracy_interval)]
            assert set(wanted) <= set(shown)


def test_at_80_columns_a_bandit_is_one_table() -> None:
    evaluation = stored("reversal_bandit").model_copy(update={"agent": "bandit"})
    lines = evaluation.table(rich=False, width=80).splitlines()
    assert lines[:12] == [
        "plastic_rl/ReversalBandit-v0, split test: 10,000 lifetimes, 100 steps each, one",
        "on each task; expected reward per lifetime",
        "  agent                      score    95% interval  normalised  adaptation",
        "  ------------------------------------------------------------------------",
        "  oracle                     80.00  [80.00, 80.00]       1.242      +0.000",
        "  bayes (limit)              74.16  [74.09, 74.23]       1.000      +0.046",
        "> bandit, greedy             73.88  [73.81, 73.95]       0.988      +0.047",
        "> bandit, sampled            73.49  [73.42, 73.57]       0.972      +0.052",
        "> bandit, plasticity frozen  73.39  [73.31, 73.47]       0.968      +0.053",
        "  win_stay_lose_shift        67.15  [67.10, 67.19]       0.709      +0.018",
        "  random                     50.06  [50.01, 50.12]       0.000      +0.000",
        "",
    ]
    assert " ".join(lines[-2:]) == (
        "Too few columns for: 95% interval of the normalised score, regret, 95% interval of the adaptation (a wider "
        "terminal shows them, the JSON file has them)."
    )
    assert "Too few columns" not in evaluation.table(rich=False, width=120)


def lines_of(width: int | None) -> tuple[list[str], list[str]]:
    columns = [
        Column("score", ["1.00", "22.00"]),
        Column("95% interval", ["[0.9, 1.1]", "[21.0, 23.0]"], joined=True),
        Column("regret", ["21.0", "0.0"], spare="regret"),
        Column("per step: first", ["0.1 -> 0.2", "0.3 -> 0.4"]),
    ]
    blocks, left_out = fit(Column("agent", ["short", "a longer name, plasticity frozen"]), columns, width)
    return [
        line for block in blocks for line in [*block.header, *(line for row in block.rows for line in row)]
    ], left_out


def test_headings_and_names_fold_before_columns_are_left_out_before_there_are_several_blocks() -> None:
    assert lines_of(None) == (
        [
            "agent                             score  95% interval  regret  per step: first",
            "short                              1.00    [0.9, 1.1]    21.0       0.1 -> 0.2",
            "a longer name, plasticity frozen  22.00  [21.0, 23.0]     0.0       0.3 -> 0.4",
        ],
        [],
    )
    assert lines_of(78) == lines_of(None)
    assert lines_of(63) == (
        [
            "                                                   per step:",
            "agent                score  95% interval  regret       first",
            "short                 1.00    [0.9, 1.1]    21.0  0.1 -> 0.2",
            "a longer name,       22.00  [21.0, 23.0]     0.0  0.3 -> 0.4",
            "  plasticity frozen",
        ],
        [],
    )
    assert lines_of(55) == (
        [
            "                                           per step:",
            "agent                score  95% interval       first",
            "short                 1.00    [0.9, 1.1]  0.1 -> 0.2",
            "a longer name,       22.00  [21.0, 23.0]  0.3 -> 0.4",
            "  plasticity frozen",
        ],
        ["regret"],
    )
    assert lines_of(50) == (
        [
            "agent                      score  95% interval",
            "short                       1.00    [0.9, 1.1]",
            "a longer name, plasticity  22.00  [21.0, 23.0]",
            "  frozen",
            "                            per step:",
            "agent                           first",
            "short                      0.1 -> 0.2",
            "a longer name, plasticity  0.3 -> 0.4",
            "  frozen",
        ],
        ["regret"],
    )


def test_the_cards_hold_the_table_of_any_width() -> None:
    """A file has no width, whatever terminal it was written from."""
    for agent in sorted(AGENTS.iterdir()):
        assert stored(agent.name).table(rich=False).rstrip() in (agent / "README.md").read_text(), agent.name
