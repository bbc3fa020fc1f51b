"""The associative memory of Hopfield (1982, doi:10.1073/pnas.79.8.2554): units of +1 and -1.

Storage: Hebb's rule, `W = (1/N) sum_mu p p^T`; the pseudo-inverse (Personnaz, Guyon & Dreyfus 1985), the projection
onto the patterns, `W = (1/N) sum_mu,nu p_mu (C^-1)_mu,nu p_nu^T` with `C = p p^T / N`; the delta rule (Diederich &
Opper 1987, doi:10.1103/PhysRevLett.58.949), which comes to the pseudo-inverse by local steps.
"""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from pydantic import Field
from typing_extensions import override

from plastic_rl.arrays import FloatArray
from plastic_rl.memories import theory
from plastic_rl.memories.binary import BinaryMemory, Update

Storage = Literal["hebb", "pseudo_inverse", "delta"]


class Hopfield(BinaryMemory):
    """Hopfield network: +1/-1 units that settle in the stored pattern nearest to the cue, up to .138 N patterns.

    The energy never rises when units are updated one at a time and weights are symmetric: always with the storage hebb
    and pseudo_inverse, with delta only once it has converged. Patterns are +1 and -1; in a cue, 0 is an unknown unit.

    Args:
        size: Number of units, N.
        storage: How patterns are written: hebb; pseudo_inverse, by which up to N of them are stable; or delta, local
            steps towards the same.
        update: synchronous: all units at once; asynchronous: one after the other, in random order.
        beta: Inverse temperature of stochastic units; null: deterministic ones.
        self_coupling: Whether units feel their own value (the diagonal of W).
        rate: Share of a pattern's error that a step of the delta rule takes away.
        epochs: How often the delta rule goes through all patterns.

    >>> patterns = np.array([[1, 1, 1, 1, -1, -1, -1, -1], [1, -1, 1, -1, 1, -1, 1, -1]])
    >>> memory = Hopfield(8).store(patterns)
    >>> memory.recall([1, 1, 1, 0, -1, -1, 0, 0]).state.astype(int).tolist()
    [1, 1, 1, 1, -1, -1, -1, -1]
    """

    values = (-1.0, 1.0)

    def __init__(
        self,
        size: int,
        *,
        storage: Storage = "hebb",
        update: Update = "synchronous",
        beta: Annotated[float | None, Field(gt=0)] = None,
        self_coupling: bool = False,
        rate: Annotated[float, Field(gt=0, lt=2)] = 1.0,
        epochs: Annotated[int, Field(ge=1)] = 1,
    ) -> None:
        super().__init__(
            size,
            storage=storage,
            update=update,
            beta=beta,
            self_coupling=self_coupling,
            rate=rate,
            epochs=epochs,
        )

    @property
    @override
    def keeps_diagonal(self) -> bool:
        return bool(self.options.self_coupling)

    @override
    def factors(self) -> tuple[FloatArray, FloatArray]:
        patterns, units = self.patterns, self.size
        match self.options.storage:
            case "pseudo_inverse":
                # The pseudo-inverse of the correlations: patterns may depend on each other linearly.
                return np.linalg.pinv(patterns @ patterns.T, hermitian=True) @ patterns, patterns
            case "delta":
                return self._errors() @ patterns / units, patterns
        return patterns / units, patterns

    @property
    def _has_theory(self) -> bool:
        own = self.options
        return own.storage == "hebb" and own.beta is None and not own.self_coupling

    @override
    def expected_error(self, load: float) -> float | None:
        # A sweep of units one after the other is no single step of all.
        at_once = self._has_theory and self.options.update == "synchronous"
        return theory.one_step_error(self.size, load * self.size) if at_once else None

    @override
    def expected_overlap(self, load: float) -> float | None:
        return theory.retained_overlap(load) if self._has_theory else None

    def _errors(self) -> FloatArray:
        """How much of each pattern (columns) the delta rule has written for each one (rows), `(P, P)`.

        After a write `W = (1/N) sum_mu,nu p_nu written_mu,nu p_mu^T`: all that the rule needs of the patterns is `C`.
        """
        count, rate = len(self.patterns), self.options.rate
        correlations = self.patterns @ self.patterns.T / self.size
        written = np.zeros((count, count))
        for _ in range(self.options.epochs):
            for number in range(count):
                written[number] -= rate * (correlations[number] @ written)
                written[number, number] += rate
        return written
