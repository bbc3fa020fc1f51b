"""Small pictures with NumPy alone: rectangles, a bitmap font, bars, grids; and their twins in text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from plastic_rl.arrays import BoolArray, FloatArray, Image

Colour = tuple[int, int, int]

WHITE: Colour = (250, 250, 250)
INK: Colour = (40, 44, 52)
GREY: Colour = (190, 195, 202)
LIGHT: Colour = (228, 231, 235)
BLUE: Colour = (66, 114, 196)
GREEN: Colour = (58, 158, 92)
RED: Colour = (204, 76, 68)
GOLD: Colour = (232, 176, 40)

# Each glyph is five rows of three pixels, read as bits.
_GLYPHS: dict[str, tuple[int, int, int, int, int]] = {
    "0": (7, 5, 5, 5, 7),
    "1": (2, 6, 2, 2, 7),
    "2": (7, 1, 7, 4, 7),
    "3": (7, 1, 7, 1, 7),
    "4": (5, 5, 7, 1, 1),
    "5": (7, 4, 7, 1, 7),
    "6": (7, 4, 7, 5, 7),
    "7": (7, 1, 1, 2, 2),
    "8": (7, 5, 7, 5, 7),
    "9": (7, 5, 7, 1, 7),
    "/": (1, 1, 2, 4, 4),
    ".": (0, 0, 0, 0, 2),
    "-": (0, 0, 7, 0, 0),
    "+": (0, 2, 7, 2, 0),
    "R": (6, 5, 6, 5, 5),
    "t": (2, 7, 2, 2, 3),
    " ": (0, 0, 0, 0, 0),
}


def render_metadata(frames_per_second: int) -> dict[str, Any]:
    """The render entries of an environment's metadata."""
    return {"render_modes": ["rgb_array", "ansi"], "render_fps": frames_per_second}


def canvas(height: int, width: int, colour: Colour = WHITE) -> Image:
    """A picture `(height, width, 3)` of one colour."""
    picture = np.empty((height, width, 3), dtype=np.uint8)
    picture[...] = colour
    return picture


def rectangle(picture: Image, top: int, left: int, height: int, width: int, colour: Colour) -> None:
    """Fill a rectangle, in place; what lies outside the picture is cut off."""
    picture[max(top, 0) : max(top + height, 0), max(left, 0) : max(left + width, 0)] = colour


def write(picture: Image, text: str, top: int, left: int, colour: Colour = INK, scale: int = 2) -> None:
    """Write digits and a few signs, in place, `5 * scale` pixels high; unknown signs are left blank."""
    for place, sign in enumerate(text):
        for line, bits in enumerate(_GLYPHS.get(sign, _GLYPHS[" "])):
            for column in range(3):
                if bits >> (2 - column) & 1:
                    x = left + (4 * place + column) * scale
                    rectangle(picture, top + line * scale, x, scale, scale, colour)


def bars(heights: FloatArray, labels: Sequence[str], chosen: int, paid: bool, head: str, size: int = 160) -> Image:
    """One bar for each arm, the tallest outlined in gold, the chosen one green (paid) or red.

    Args:
        heights: Share of the full height of each bar, `(k,)`, 0 to 1.
        labels: A short text below each bar, k of them.
        chosen: Which bar was chosen last, -1 for none.
        paid: Whether it paid.
        head: A line above the bars.
        size: Height of the picture in pixels.
    """
    slot = max(12, min(40, 480 // len(heights)))
    picture = canvas(size, max(140, slot * len(heights) + 16))
    write(picture, head, 6, 8)
    base, full = size - 22, size - 50
    for arm, height in enumerate(heights):
        left = 8 + arm * slot
        rectangle(picture, base - full, left + 2, full, slot - 4, LIGHT)
        tall = max(1, round(float(height) * full))
        if arm == int(np.argmax(heights)):
            rectangle(picture, base - tall - 2, left, tall + 4, slot, GOLD)
        colour = BLUE if arm != chosen else GREEN if paid else RED
        rectangle(picture, base - tall, left + 2, tall, slot - 4, colour)
        if slot >= 4 * 2 * len(labels[arm]):
            write(picture, labels[arm], base + 6, left + 2)
    return picture


def headline(time: int, steps: int, total: float) -> str:
    """The first line of a text picture.

    >>> headline(3, 100, 2.0)
    'step 3/100  return 2'
    """
    return f"step {time}/{steps}  return {total:g}"


def text_bar(share: float, width: int = 20) -> str:
    """A bar of `#` and `.` for a share between 0 and 1.

    >>> text_bar(0.5, 4)
    '##..'
    """
    filled = round(float(share) * width)
    return "#" * filled + "." * (width - filled)


def grid(walls: BoolArray, squares: dict[int, Colour], discs: dict[int, Colour], head: str, cell: int = 20) -> Image:
    """A board seen from above, with a line of text above it.

    Args:
        walls: Dark cells, `(rows, columns)` bool.
        squares: Colour of single cells, by number `row * columns + column`.
        discs: Colour of round pieces, by cell number.
        head: A line above the board.
        cell: Pixels of a cell.
    """
    rows, columns = walls.shape
    colours = np.full((rows * columns, 3), LIGHT, dtype=np.uint8)
    colours[walls.ravel()] = INK
    for number, colour in squares.items():
        colours[number] = colour
    board = colours.reshape(rows, columns, 3).repeat(cell, axis=0).repeat(cell, axis=1)
    offset = np.arange(cell) - (cell - 1) / 2
    round_piece = offset[:, None] ** 2 + offset[None, :] ** 2 <= (0.38 * cell) ** 2
    for number, colour in discs.items():
        top, left = (number // columns) * cell, (number % columns) * cell
        board[top : top + cell, left : left + cell][round_piece] = colour
    picture = canvas(rows * cell + 22, max(columns * cell, 150))
    write(picture, head, 6, 6)
    picture[22:, : columns * cell] = board
    return picture
