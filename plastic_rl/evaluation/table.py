"""Tables of plain text that fit any width: nothing cut, no cell shortened."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import NamedTuple

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
    # The narrowest of those with as few lines as its cells allow; no word is cut.
    narrowest = max(map(len, column.heading.split()), default=1)
    widest = max((narrowest, *map(len, column.cells)))
    choices = (textwrap.wrap(column.heading, width) for width in range(narrowest, widest + 1))
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


def folded(text: str, width: int | None) -> list[str]:
    """Return a text in lines of `width`; None: in one."""
    return [text] if width is None else textwrap.wrap(text, width, break_on_hyphens=False)
