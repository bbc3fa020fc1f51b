"""The modern Hopfield network (Ramsauer et al. 2020, arXiv 2008.02217): units of any value, attention as recall.

Update (eq. 3): `S <- X^T softmax(beta X S)`, X the patterns `(P, N)`. Energy (eq. 2):
`E = -lse(beta, X S) + S.S / 2 + log(P) / beta + M^2 / 2`, `lse(beta, z) = log(sum exp(beta z)) / beta`, M the largest
norm of a pattern. No update raises it, and it lies between 0 and 2 M^2 (theorem 1 and its proof).
"""

from __future__ import annotations

import math
from typing import Annotated

import numpy as np
from pydantic import Field
from typing_extensions import override

from plastic_rl.arrays import FloatArray
from plastic_rl.errors import ConfigError
from plastic_rl.memories.base import Memory


class ModernHopfield(Memory):
    """Modern Hopfield network: real-valued patterns, exponentially many of them, mostly recalled in a single step.

    Args:
        size: Number of units, N.
        beta: Inverse temperature of the softmax: the smaller, the more patterns a recall is a mean of; null:
            1 / sqrt(N), as in attention.

    >>> memory = ModernHopfield(3, beta=20.0).store([[1.0, 0.5, 0.0], [0.0, -1.0, 2.0]])
    >>> memory.recall([0.9, 0.0, 0.0]).state.round(3).tolist()
    [1.0, 0.5, 0.0]
    """

    def __init__(self, size: int, *, beta: Annotated[float | None, Field(gt=0)] = None) -> None:
        super().__init__(size, beta=beta)
        self.beta = size**-0.5 if beta is None else beta

    @override
    def _stored(self) -> None:
        """Patterns are used as they are."""

    def _similarities(self, state: FloatArray) -> FloatArray:
        """`beta X S`, `(.., P)`."""
        if not len(self.patterns):
            raise ConfigError("a modern Hopfield network without patterns has no states to settle in; store some first")
        return np.asarray(self.beta * (state @ self.patterns.T))

    @override
    def step(self, state: FloatArray, generator: np.random.Generator | None = None) -> FloatArray:
        similarities = self._similarities(state)
        shares = np.exp(similarities - similarities.max(axis=-1, keepdims=True))
        return np.asarray(shares / shares.sum(axis=-1, keepdims=True) @ self.patterns)

    @override
    def energy(self, state: FloatArray) -> FloatArray:
        """Equation 2, `(..)`."""
        log_sum = np.logaddexp.reduce(self._similarities(state), axis=-1) / self.beta
        largest: float = (self.patterns**2).sum(axis=1).max()
        constant = math.log(len(self.patterns)) / self.beta + largest / 2
        return np.asarray(-log_sum + (state**2).sum(axis=-1) / 2 + constant)
