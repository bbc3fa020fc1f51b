"""The terminal's view of an evaluation: one table per split, best agent first, in the columns that there are."""

from __future__ import annotations

import io
import shutil
import sys
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from plastic_rl.evaluation.report import Evaluation, Pair, Score, SplitEvaluation

GAP = "  "
"""Between columns, and before each line of an evaluation's table (`> ` before the agent's own)."""
NARROWEST = 20
"""Columns that names keep at least, on several lines if need be."""


class Column(NamedTuple):
    """One column of a table, a cell a row."""

    heading: str
    cells: Sequence[str]
    joined: bool = False
    """Whether it must not be parted from the column before it."""
    spare: str = ""
    """What it is called where it is left out for want of room, the last of such columns first; empty: it never is."""


class Block(NamedTuple):
    """Columns that stand beside each other, under the lines of their headings."""

    header: list[str]
    rows: list[list[str]]
    """The lines of each row: several where its name is folded."""
    breadth: int


def fit(names: Column, columns: Sequence[Column], width: int | None) -> tuple[list[Block], list[str]]:
    """Lay a table out in `width` columns; no cell is ever shortened.

    Where it is too wide, headings and names take several lines, then spare columns are left out, then the others go
    into several blocks, each with the names.

    Args:
        names: What the rows are.
        columns: All others.
        width: Of the terminal; None: as wide as it takes.

    Returns:
        The blocks, and what was left out.
    """
    longest = max(map(len, (names.heading, *names.cells)))
    whole = _block(names, longest, columns, stacked=False)
    if width is None or whole.breadth <= width:
        return [whole], []
    kept, left_out = list(columns), list[str]()
    while True:
        room = width - _breadth(kept)
        if room >= min(longest, NARROWEST):
            return [_block(names, min(longest, room), kept)], left_out
        spare = [column for column in kept if column.spare]
        if not spare:
            break
        kept.remove(spare[-1])
        left_out.insert(0, spare[-1].spare)
    groups: list[list[Column]] = []
    for column in kept:
        groups = [*groups[:-1], [*groups[-1], column]] if column.joined else [*groups, [column]]
    least = min(longest, NARROWEST)
    most = max(least, min(longest, width - max(map(_breadth, groups))))
    # Narrower names fold, and may save a block.
    choices = (_packed(names, room, groups, width) for room in range(most, least - 1, -1))
    return min(choices, key=_height), left_out


def _height(blocks: Sequence[Block]) -> int:
    return sum(2 + len(block.header) + sum(map(len, block.rows)) for block in blocks)


def _packed(names: Column, room: int, groups: Sequence[list[Column]], width: int) -> list[Block]:
    blocks: list[list[Column]] = [[]]
    for group in groups:
        if blocks[-1] and room + _breadth([*blocks[-1], *group]) > width:
            blocks.append([])
        blocks[-1] += group
    return [_block(names, room, columns) for columns in blocks]


def _heading(column: Column, *, stacked: bool) -> list[str]:
    if not stacked:
        return [column.heading]
    # The narrowest of those with as few lines as its cells allow.
    widest = max(map(len, (*column.heading.split(), *column.cells)))
    choices = (textwrap.wrap(column.heading, width) for width in range(1, widest + 1))
    return min(choices, key=len)


def _breadth(columns: Sequence[Column], *, stacked: bool = True) -> int:
    """Of the columns with the gaps before them."""
    return sum(len(GAP) + max(map(len, (*_heading(column, stacked=stacked), *column.cells))) for column in columns)


def _block(names: Column, room: int, columns: Sequence[Column], *, stacked: bool = True) -> Block:
    folded_names = [textwrap.wrap(name, room, subsequent_indent=GAP) or [""] for name in names.cells]
    room = max(map(len, (names.heading, *(line for lines in folded_names for line in lines))))
    widths = [_breadth([column], stacked=stacked) for column in columns]
    headings = [_heading(column, stacked=stacked) for column in columns]
    height = max(map(len, headings), default=1)
    padded = [[""] * (height - len(lines)) + lines for lines in headings]

    def line(name: str, cells: Sequence[str]) -> str:
        aligned = "".join(cell.rjust(width) for cell, width in zip(cells, widths, strict=True))
        return f"{name.ljust(room)}{aligned}".rstrip()

    cells = zip(*(column.cells for column in columns), strict=True)
    rows = [[line(first, row), *more] for (first, *more), row in zip(folded_names, cells, strict=True)]
    header = [line("", [lines[place] for lines in padded]) for place in range(height - 1)]
    return Block([*header, line(names.heading, [lines[-1] for lines in padded])], rows, room + sum(widths))


def evaluation_table(evaluation: Evaluation, *, rich: bool | None = None, width: int | None = None) -> str:
    """Return the tables of all splits, with what a reader must know to read them.

    Args:
        evaluation: What to show.
        rich: With colours and rules, as plain text, or (None) whichever suits stdout.
        width: Columns that no line goes beyond; None: those of the terminal (rich), or as wide as it takes (plain).
    """
    if rich is None:
        rich = sys.stdout.isatty()
    if width is None and rich:
        width = shutil.get_terminal_size().columns
    lines: list[tuple[str, str]] = []
    narrow: dict[str, None] = {}
    for split, result in evaluation.splits.items():
        lines += [(line, "bold") for line in folded(_title(evaluation, split, result), width)]
        entries = _ranked(evaluation, result)
        blocks, left_out = fit(*_columns(evaluation, result, entries), None if width is None else width - len(GAP))
        narrow |= dict.fromkeys(left_out)
        for block in blocks:
            lines += [(GAP + line, "") for line in [*block.header, ("\u2500" if rich else "-") * block.breadth]]
            for name, (first, *more) in zip(entries, block.rows, strict=True):
                mark, style = (GAP, "") if name in result.reference_agents else ("> ", "bold cyan")
                lines += [(mark + first, style), *((GAP + each, style) for each in more)]
            lines.append(("", ""))
    lines += [(line, "") for note in _notes(evaluation, narrow) for line in folded(note, width)]
    return _coloured(lines) if rich else "".join(f"{text}\n" for text, _ in lines)


def folded(text: str, width: int | None) -> list[str]:
    """Return a text in lines of `width`; None: in one."""
    return [text] if width is None else textwrap.wrap(text, width, break_on_hyphens=False)


def _coloured(lines: Sequence[tuple[str, str]]) -> str:
    from rich.console import Console

    console = Console(file=io.StringIO(), force_terminal=True)
    with console.capture() as captured:
        for text, style in lines:
            console.print(text, style=style, markup=False, highlight=False, soft_wrap=True)
    return captured.get()


def _title(evaluation: Evaluation, split: str, result: SplitEvaluation) -> str:
    arguments = ", ".join(f"{key}={value}" for key, value in evaluation.env_kwargs.items())
    steps = f"{evaluation.lifetime_steps} steps each" if evaluation.lifetime_steps else "of varying length"
    replaced = ", ".join(
        f"{name} {low:g}" if low == high else f"{name} {low:g} to {high:g}"
        for name, (low, high) in result.environment_overrides.items()
    )
    return (
        f"{evaluation.env_id}{f' ({arguments})' if arguments else ''}, split {split}: {result.tasks:,} lifetimes, "
        f"{steps}, one on each task{f' with {replaced}' if replaced else ''}; "
        f"{result.score_of.replace('_', ' ')} per lifetime"
    )


def _ranked(evaluation: Evaluation, result: SplitEvaluation) -> dict[str, Score]:
    entries = result.entries(evaluation.agent)
    return dict(sorted(entries.items(), key=lambda entry: -entry[1].raw_score))


def _columns(
    evaluation: Evaluation, result: SplitEvaluation, entries: Mapping[str, Score]
) -> tuple[Column, list[Column]]:
    """The names of the agents, and all that is said of them."""
    interval = f"{evaluation.confidence:.0%} interval"
    scores = list(entries.values())
    decimals = _decimals(max(abs(score.raw_score) for score in scores))
    names = Column("agent", [f"{name} (limit)" if name == result.limit_kind else name for name in entries])
    columns = [
        Column("score", [f"{score.raw_score:.{decimals}f}" for score in scores]),
        Column(interval, [_interval(score.raw_score_interval, decimals) for score in scores], joined=True),
    ]
    if result.limit_kind != "none":
        normalised = [score.normalised_score_interval for score in scores]
        columns += [
            Column("normalised", [_number(score.normalised_score, 3) for score in scores]),
            Column(interval, [_interval(pair, 3) for pair in normalised], True, f"{interval} of the normalised score"),
            Column("regret", [_number(score.regret, decimals) for score in scores], spare="regret"),
        ]
    if any(score.adaptation is not None for score in scores):
        places = _decimals(max(abs(score.adaptation or 0.0) for score in scores))
        adapted = [score.adaptation_interval for score in scores]
        columns += [
            Column("adaptation", [_signed(score.adaptation, places) for score in scores]),
            Column(interval, [_interval(pair, places) for pair in adapted], True, f"{interval} of the adaptation"),
        ]
    for name in evaluation.measures:
        found = [score.measures.get(name) for score in scores]
        places = _decimals(max((abs(each.mean) for each in found if each), default=0.0))
        cells = [f"{each.mean:.{places}f} {_interval(each.interval, places)}" if each else "-" for each in found]
        columns.append(Column(name, cells, spare=name))
    for place, point in enumerate(result.accuracy_after):
        points = [score.accuracy_after[place] for score in scores]
        cells = [f"{each.accuracy:.3f} {_interval(each.accuracy_interval, 3)}" for each in points]
        columns.append(Column(f"accuracy after {point.samples:,}", cells))
    return names, columns


def _signed(value: float | None, decimals: int) -> str:
    return "-" if value is None else f"{round(value, decimals) + 0.0:+.{decimals}f}"


def _decimals(size: float) -> int:
    return 1 if size >= 100 else 2 if size >= 10 else 3


def _number(value: float | None, decimals: int) -> str:
    return "-" if value is None else f"{value:.{decimals}f}"


def _interval(pair: Pair | None, decimals: int) -> str:
    return "-" if pair is None else "[" + ", ".join(f"{round(end, decimals) + 0.0:.{decimals}f}" for end in pair) + "]"


def _notes(evaluation: Evaluation, left_out: Iterable[str]) -> list[str]:
    coverage = "cover tasks, noise and action sampling, paired between agents; not the training run."
    notes = [f"Intervals ({evaluation.confidence:.0%}, bootstrap) {coverage}"]
    if any(split.limit_kind != "none" for split in evaluation.splits.values()):
        notes.append("normalised = (score - random) / (limit - random); regret = limit - score, on the same tasks.")
    else:
        notes.append("This environment has no known limit, so there is no normalised score.")
    adapted = [split.curve for split in evaluation.splits.values() if split.adaptation is not None]
    if adapted:
        unit = adapted[0].unit if adapted[0].develops else "step"
        notes.append(
            f"adaptation: mean score per {unit} in the last tenth of a lifetime minus that in its first tenth."
        )
    notes += [f"{name}: {what}." for name, what in evaluation.measures.items()]
    if any(split.accuracy_after for split in evaluation.splits.values()):
        notes.append(
            "accuracy after n: share of held-out samples answered rightly, greedily, after n streamed samples."
        )
    told = {
        name: score.privileged
        for split in evaluation.splits.values()
        for name, score in split.reference_agents.items()
        if score.privileged != "none"
    }
    explained = {"task": "told the hidden task", "environment": "shown more than the agent sees (its position)"}
    if told:
        notes.append("; ".join(f"{name}: {explained[what]}" for name, what in told.items()) + ".")
    if evaluation.single_task:
        notes.append(
            "All splits but shift are one and the same task: this measures learning within a lifetime, not "
            "generalisation to new tasks."
        )
    if left_out:
        notes.append(
            f"Too few columns for: {', '.join(left_out)} (a wider terminal shows them, the JSON file has them)."
        )
    return notes
