"""Random numbers of rows, each from a stream of its own, so that a row's do not depend on who lives beside it."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Literal

import numpy as np

from plastic_rl.arrays import FloatArray, IntArray

BLOCK = 256
"""Numbers that are drawn at a time for each row."""


class RowNoise:
    """Streams of random numbers keyed by a seed and each row's position among all tasks.

    Args:
        seed: 0 or more.
        positions: One for each row, B of them.

    Attributes:
        generators: Of the rows, B of them, for what `draw` does not offer.

    >>> two, one = RowNoise(0, [3, 7]), RowNoise(0, [7])
    >>> bool((two.draw("uniform", 5)[1] == one.draw("uniform", 5)[0]).all())
    True
    """

    def __init__(self, seed: int, positions: Sequence[int]) -> None:
        stream = zlib.crc32(b"agent")
        self.generators = [
            np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed, spawn_key=(stream, position))))
            for position in positions
        ]
        self._drawn = {kind: np.zeros((len(positions), 0)) for kind in ("uniform", "normal")}

    def keys(self) -> IntArray:
        """A whole number of each row, `(B,)`."""
        return np.array([generator.integers(2**62) for generator in self.generators], dtype=np.int64)

    def draw(self, kind: Literal["uniform", "normal"], count: int) -> FloatArray:
        """The next `count` numbers of each row, `(B, count)`: uniform in [0, 1), or standard normal."""
        drawn = self._drawn[kind]
        if drawn.shape[1] < count:
            size = max(BLOCK, count)
            fresh = [
                generator.random(size) if kind == "uniform" else generator.standard_normal(size)
                for generator in self.generators
            ]
            drawn = np.concatenate([drawn, np.stack(fresh)], axis=1)
        self._drawn[kind] = drawn[:, count:]
        return drawn[:, :count]
