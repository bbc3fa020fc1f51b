"""Memory of sparse patterns (Tsodyks & Feigelman 1988, doi:10.1209/0295-5075/6/2/002): units of 0 and 1.

`W = c sum_mu (p - b)(p - a)^T`, `c = 1 / (N a (1 - a))`, with the activity a, the share of ones. At a stored pattern
the field is `p - a` plus noise of variance `P a / N` (for b = a), so that the threshold lies half-way, at `1/2 - a`.
"""

from __future__ import annotations

from typing import Annotated

import numpy as np
from pydantic import Field
from typing_extensions import override

from plastic_rl.arrays import FloatArray
from plastic_rl.memories import theory
from plastic_rl.memories.binary import BinaryMemory, Update


class LowActivityHopfield(BinaryMemory):
    """Hopfield network of 0/1 units with few ones, which keeps far more patterns the fewer ones they have.

    Args:
        size: Number of units, N.
        activity: Share a of units that are 1 in a pattern.
        post_offset: b, taken from the postsynaptic value; null: as large as a, which makes W symmetric.
        threshold: What a field must exceed; null: 1/2 - a.
        update: synchronous: all units at once; asynchronous: one after the other, in random order.
        beta: Inverse temperature of stochastic units; null: deterministic ones.

    >>> memory = LowActivityHopfield(400, activity=0.1)
    >>> patterns = memory.random_patterns(40, np.random.default_rng(0))
    >>> cue = patterns[0] * (np.arange(400) % 5 > 0)  # a fifth of the ones is missing
    >>> bool((memory.store(patterns).recall(cue).state == patterns[0]).all())
    True
    """

    values = (0.0, 1.0)
    low = 0.0
    high = 1.0

    def __init__(
        self,
        size: int,
        *,
        activity: Annotated[float, Field(gt=0, lt=1)] = 0.1,
        post_offset: Annotated[float | None, Field(ge=0, le=1)] = None,
        threshold: float | None = None,
        update: Update = "synchronous",
        beta: Annotated[float | None, Field(gt=0)] = None,
    ) -> None:
        super().__init__(
            size, activity=activity, post_offset=post_offset, threshold=threshold, update=update, beta=beta
        )
        self.threshold = 0.5 - activity if threshold is None else threshold

    @override
    def factors(self) -> tuple[FloatArray, FloatArray]:
        a: float = self.options.activity
        b: float | None = self.options.post_offset
        scale = 1 / (self.size * a * (1 - a))
        return (self.patterns - (a if b is None else b)) * scale, self.patterns - a

    @override
    def expected_error(self, load: float) -> float | None:
        own = self.options
        if own.update != "synchronous" or own.beta is not None or (own.post_offset, own.threshold) != (None, None):
            return None
        return theory.low_activity_error(load, own.activity)

    @override
    def overlaps(self, state: FloatArray) -> FloatArray:
        """`m = sum (p - a) S / (N a (1 - a))`, `(.., P)`: about 1 at a pattern, about 0 elsewhere."""
        a: float = self.options.activity
        shares: FloatArray = state @ (self.patterns - a).T / (self.size * a * (1 - a))
        return shares

    @override
    def random_patterns(self, count: int, generator: np.random.Generator) -> FloatArray:
        """`(count, N)`: each unit is 1 with probability a."""
        return np.where(generator.random((count, self.size)) < self.options.activity, 1.0, 0.0)
