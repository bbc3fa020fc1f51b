"""Units of two values, under weights that are kept as patterns: what the Hopfield memories of this package share.

The weights `W = sum_mu left_mu right_mu^T` are never written out. The field `h = W S` is that of P overlaps,
`m = right S` and `h = left^T m`, which takes 2 P N products in place of N^2 (the overlap form; Hertz, Krogh & Palmer
1991, section 2.2).
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar, Literal

import numpy as np
from typing_extensions import override

from plastic_rl.arrays import Array, FloatArray
from plastic_rl.errors import ConfigError
from plastic_rl.memories.base import SETTLED, Memory

Update = Literal["synchronous", "asynchronous"]


class BinaryMemory(Memory):
    """Units that take the higher of two values where their field is above the threshold.

    Deterministic: `S_i <- high` where `h_i > threshold`, `low` where below, and as it was where equal (but for
    rounding). Stochastic, with an inverse temperature beta: `P(S_i = high) = (1 + tanh(beta (h_i - threshold))) / 2`
    (Glauber 1963).

    Attributes:
        threshold: The same for all units.
        left: `(P, N)`.
        right: `(P, N)`.
        self_coupling: The diagonal of W, `(N,)`, which the field leaves out; zero where it is kept.
    """

    low: ClassVar[float] = -1.0
    high: ClassVar[float] = 1.0
    threshold: float = 0.0
    left: FloatArray
    right: FloatArray
    self_coupling: FloatArray

    @abstractmethod
    def factors(self) -> tuple[FloatArray, FloatArray]:
        """`left` and `right` of the present patterns, `(P, N)` each."""

    @property
    def keeps_diagonal(self) -> bool:
        """Whether a unit's own value is in its field."""
        return False

    @override
    def _stored(self) -> None:
        self.left, self.right = self.factors()
        diagonal: FloatArray = (self.left * self.right).sum(axis=0)
        self.self_coupling = np.zeros(self.size) if self.keeps_diagonal else diagonal

    def weights(self) -> FloatArray:
        """The weights written out, `(N, N)`, post by pre."""
        return self.left.T @ self.right - np.diag(self.self_coupling)

    def field(self, state: FloatArray) -> FloatArray:
        """`h = W S` of `state (.., N)`, `(.., N)`."""
        return np.asarray(state @ self.right.T @ self.left - self.self_coupling * state)

    @override
    def energy(self, state: FloatArray) -> FloatArray:
        """`-1/2 S W S + threshold sum S`; where W is symmetric, no update of a single unit raises it."""
        return np.asarray(-0.5 * (state * self.field(state)).sum(axis=-1) + self.threshold * state.sum(axis=-1))

    @override
    def step(self, state: FloatArray, generator: np.random.Generator | None = None) -> FloatArray:
        if self.options.update == "synchronous":
            return self.updated(state, self.field(state), self._uniforms(state.shape, generator))
        return self._sweep(state, generator)

    def updated(self, state: Array, field: Array, uniforms: FloatArray | None) -> FloatArray:
        """Values of units that have the values `state (..)` and are in the fields `field (..)`.

        `uniforms (..)` are random numbers in [0, 1), which stochastic units need and others do not.
        """
        excess = field - self.threshold
        beta = self.options.beta
        if beta is None:
            return np.where(excess > SETTLED, self.high, np.where(excess < -SETTLED, self.low, state))
        return np.where(uniforms < (1 + np.tanh(beta * excess)) / 2, self.high, self.low)

    def _uniforms(self, shape: tuple[int, ...], generator: np.random.Generator | None) -> FloatArray | None:
        if self.options.beta is None:
            return None
        if generator is None:
            raise ConfigError(
                f"units with an inverse temperature (beta = {self.options.beta:g}) are random: give recall a "
                "generator, e.g. numpy.random.default_rng(0), or leave beta out"
            )
        return generator.random(shape)

    def _sweep(self, state: FloatArray, generator: np.random.Generator | None) -> FloatArray:
        """Update one unit after the other: in random order where there is a generator, else from first to last.

        All cues have the same order. P overlaps are kept up to date, so that a unit costs P products, not N.
        """
        state = state.copy()
        order = np.arange(self.size) if generator is None else generator.permutation(self.size)
        uniforms = self._uniforms(state.shape, generator)
        overlaps = state @ self.right.T
        for unit in order.tolist():
            before = state[..., unit]
            field = overlaps @ self.left[:, unit] - self.self_coupling[unit] * before
            after = self.updated(before, field, None if uniforms is None else uniforms[..., unit])
            change: Any = after - before
            if np.any(change):
                overlaps += change[..., None] * self.right[:, unit]
                state[..., unit] = after
        return state
