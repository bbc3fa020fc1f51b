"""What goes on in a network while it acts, as pictures to lay beside those of its environment: outputs and weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import PIL.Image
from torch import Tensor

from plastic_rl.arrays import FloatArray, Image
from plastic_rl.envs.drawing import BLUE, GREY, INK, RED, WHITE, Canvas, Colour
from plastic_rl.networks import Inside

MOST_CELLS = 100
"""Rows and columns of a picture; what has more is averaged over neighbours."""
COLUMNS = 160
"""Substeps that a picture of outputs shows, the newest at the right."""
WIDTH = 320
"""Pixels of a panel."""
MARGIN, HEAD = 8, 22


@dataclass(frozen=True)
class Glimpse:
    """The inside of a network in one step of one lifetime, small enough to keep.

    Attributes:
        outputs: By layer, `(S, O)`: of each substep and unit.
        weights: By synapses, `(O, I)`.
        sizes: Sizes of the whole, by the same names.
    """

    outputs: dict[str, FloatArray]
    weights: dict[str, FloatArray]
    sizes: dict[str, str]

    @classmethod
    def of(cls, inside: Inside) -> Self:
        """That of the first row of `inside`."""
        outputs = {name: _array(one) for name, one in inside.outputs.items()}
        weights = {name: _array(one) for name, one in inside.weights.items()}
        sizes = {name: f"{one.shape[1]} units" for name, one in outputs.items()}
        sizes |= {name: f"{one.shape[0]} x {one.shape[1]}" for name, one in weights.items()}
        return cls(
            {name: _coarse(one.T, (MOST_CELLS, one.shape[0])).T for name, one in outputs.items()},
            {name: _coarse(one, (MOST_CELLS, MOST_CELLS)) for name, one in weights.items()},
            sizes,
        )


def panels(glimpses: Sequence[Glimpse]) -> list[Image]:
    """A picture for each of the steps of a lifetime, `(height, width, 3)`, all of one size.

    Outputs of the latest substeps are drawn as dots, from white (0) to dark where they are never negative and else from
    blue (negative) to red; weights from blue to red. What is darkest is the largest of the whole lifetime.
    """
    outputs = {name: np.concatenate([one.outputs[name] for one in glimpses]) for name in glimpses[0].outputs}
    weights = {name: max(_largest(one.weights[name]) for one in glimpses) for name in glimpses[0].weights}
    pictures: list[Image] = []
    for place, glimpse in enumerate(glimpses):
        blocks: list[tuple[str, Image]] = []
        for name, course in outputs.items():
            substeps = len(glimpse.outputs[name])
            end = (place + 1) * substeps
            shown = course[max(0, end - COLUMNS) : end]
            shown = np.pad(shown, ((COLUMNS - len(shown), 0), (0, 0)))
            steps = COLUMNS // substeps
            said = (
                f"{name}: {glimpse.sizes[name]}, last {steps} steps" if steps > 1 else f"{name}: {glimpse.sizes[name]}"
            )
            negative = course.min() < 0
            blocks.append(
                (said, _coloured(shown.T / _largest(course), BLUE if negative else WHITE, RED if negative else INK))
            )
        for name, largest in weights.items():
            said = f"weights, {name}: {glimpse.sizes[name]}, blue -{largest:.2g} to red {largest:.2g}"
            blocks.append((said, _coloured(glimpse.weights[name] / largest, BLUE, RED)))
        pictures.append(_stacked(blocks))
    return pictures


def beside(left: Image, right: Image) -> Image:
    """Two pictures beside each other, the smaller one on white."""
    height = max(len(left), len(right))
    both = [np.pad(one, ((0, height - len(one)), (0, 0), (0, 0)), constant_values=WHITE[0]) for one in (left, right)]
    return np.concatenate(both, axis=1)


def _array(entry: Tensor) -> FloatArray:
    return np.asarray(entry[0].detach().cpu().numpy(), np.float64)


def _largest(values: FloatArray) -> float:
    return float(np.abs(values).max()) or 1.0


def _coarse(values: FloatArray, most: tuple[int, int]) -> FloatArray:
    """Means over blocks of neighbours, so that no axis is longer than `most`."""
    for axis, limit in enumerate(most):
        length = values.shape[axis]
        if length > limit:
            starts = np.arange(limit) * length // limit
            counts = np.diff([*starts, length]).reshape((-1, 1) if axis == 0 else (1, -1))
            values = np.add.reduceat(values, starts, axis) / counts
    return values


def _coloured(shares: FloatArray, low: Colour, high: Colour) -> Image:
    """Values from -1 to 1 as colours: 0 is white, -1 is `low`, 1 is `high`."""
    white = np.array(WHITE, np.float64)
    size = np.abs(shares).clip(0, 1)[..., None]
    ends = np.where((shares < 0)[..., None], np.array(low, np.float64), np.array(high, np.float64))
    return np.asarray(white + size * (ends - white)).astype(np.uint8)


def _stacked(blocks: Sequence[tuple[str, Image]]) -> Image:
    """Pictures below each other, each as wide as the panel under a line of text and in a frame."""
    inner = WIDTH - 2 * MARGIN
    sized = [(said, one, max(3, min(10, inner // max(one.shape[:2]))) * one.shape[0]) for said, one in blocks]
    sized = [(said, one, min(max(height, 40), inner)) for said, one, height in sized]
    canvas = Canvas(MARGIN + sum(height + HEAD + MARGIN for _, _, height in sized), WIDTH, "")
    top = MARGIN
    for said, picture, height in sized:
        canvas.write(said, top, MARGIN)
        top += HEAD
        canvas.rectangle(top - 1, MARGIN - 1, height + 2, inner + 2, GREY)
        canvas.paste(
            np.asarray(PIL.Image.fromarray(picture).resize((inner, height), PIL.Image.Resampling.NEAREST)), top, MARGIN
        )
        top += height + MARGIN
    return canvas.pixels()
