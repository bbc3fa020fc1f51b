"""Small pictures of environments, drawn with Pillow, and bars in text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import PIL.Image
import PIL.ImageDraw

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


def render_metadata(frames_per_second: int) -> dict[str, Any]:
    """The render entries of an environment's metadata."""
    return {"render_modes": ["rgb_array", "ansi"], "render_fps": frames_per_second}


class Canvas:
    """A white picture with a line of text on top; what lies outside of it is cut off.

    Attributes:
        pen: Draws on it, for what the methods do not offer.
    """

    def __init__(self, height: int, width: int, head: str) -> None:
        self._picture = PIL.Image.new("RGB", (width, height), WHITE)
        self.pen = PIL.ImageDraw.Draw(self._picture)
        self.write(head, 6, 8)

    def rectangle(self, top: int, left: int, height: int, width: int, colour: Colour) -> None:
        """Fill a rectangle."""
        self.pen.rectangle((left, top, left + width - 1, top + height - 1), colour)

    def write(self, text: str, top: int, left: int) -> None:
        """Write a line of text."""
        self.pen.text((left, top), text, INK)

    def paste(self, picture: Image, top: int, left: int) -> None:
        """Lay a picture `(height, width, 3)` on it."""
        self._picture.paste(PIL.Image.fromarray(picture), (left, top))

    def pixels(self) -> Image:
        """The picture, `(height, width, 3)`."""
        return np.array(self._picture)


def bars(heights: FloatArray, labels: Sequence[str], chosen: int, paid: bool, head: str) -> Image:
    """One bar for each arm, the tallest outlined in gold, the chosen one green (paid) or red.

    Args:
        heights: Share of the full height of each bar, `(k,)`, 0 to 1.
        labels: A short text below each bar, k of them.
        chosen: Which bar was chosen last, -1 for none.
        paid: Whether it paid.
        head: A line above the bars.
    """
    slot = max(12, min(40, 480 // len(heights)))
    canvas = Canvas(160, max(140, slot * len(heights) + 16), head)
    base, full = 138, 110
    for arm, height in enumerate(heights):
        left = 8 + arm * slot
        canvas.rectangle(base - full, left + 2, full, slot - 4, LIGHT)
        tall = max(1, round(float(height) * full))
        if arm == int(np.argmax(heights)):
            canvas.rectangle(base - tall - 2, left, tall + 4, slot, GOLD)
        colour = BLUE if arm != chosen else GREEN if paid else RED
        canvas.rectangle(base - tall, left + 2, tall, slot - 4, colour)
        if slot >= 8 * len(labels[arm]):
            canvas.write(labels[arm], base + 6, left + 2)
    return canvas.pixels()


def text_bar(share: float) -> str:
    """A bar of 20 `#` and `.` for a share between 0 and 1.

    >>> text_bar(0.5)
    '##########..........'
    """
    filled = round(float(share) * 20)
    return "#" * filled + "." * (20 - filled)


def grid(walls: BoolArray, square: int, square_colour: Colour, disc: int, head: str) -> Image:
    """A board seen from above.

    Args:
        walls: Dark cells, `(rows, columns)` bool.
        square: Number `row * columns + column` of a cell that has a colour of its own.
        square_colour: That colour.
        disc: Number of the cell on which a round blue piece stands.
        head: A line above the board.
    """
    cell, top = 20, 22
    rows, columns = walls.shape
    canvas = Canvas(rows * cell + top, max(columns * cell, 150), head)
    for number, wall in enumerate(walls.ravel().tolist()):
        row, column = divmod(number, columns)
        colour = square_colour if number == square else INK if wall else LIGHT
        canvas.rectangle(top + row * cell, column * cell, cell, cell, colour)
    row, column = divmod(disc, columns)
    left, above = column * cell, top + row * cell
    canvas.pen.ellipse((left + 2, above + 2, left + cell - 3, above + cell - 3), BLUE)
    return canvas.pixels()
