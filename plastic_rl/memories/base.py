"""What every attractor memory does: store patterns, recall them from a cue, and say how it went.

Axis letters: `N` units, `P` patterns, `T` steps of a recall; `..` is any number of cues side by side. A memory never
changes: `store` returns another one.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from typing import Any, ClassVar, NamedTuple, Self, final

import numpy as np
import numpy.typing as npt

from plastic_rl.arrays import BoolArray, FloatArray
from plastic_rl.config import ConfigModel, validate
from plastic_rl.config.signatures import arguments_of, model_of
from plastic_rl.errors import ConfigError

SETTLED = 1e-9
"""Differences up to this are rounding: a step that changes no unit by more is the last one."""


class Recall(NamedTuple):
    """Where a recall came to, and the course of it where that was asked for.

    Attributes:
        state: Of the units, `(.., N)`.
        settled: Whether the last step left it as it was, `(..)` bool.
        overlaps: With each pattern, before the first and after every step, `(T + 1, .., P)`; or None.
        energies: The same of the energy, `(T + 1, ..)`; or None.
    """

    state: FloatArray
    settled: BoolArray
    overlaps: FloatArray | None = None
    energies: FloatArray | None = None


class Memory(ABC):
    """A network of N units whose stable states are the patterns stored in it.

    A subclass declares its options in its constructor, as keyword-only arguments with ranges, and hands them on.

    Args:
        size: Number of units, N.
        **options: Of the subclass.

    Attributes:
        options: The checked options.
        patterns: What is stored, `(P, N)`.

    Raises:
        ConfigError: If the size is below 1, or an option out of its range.
    """

    options: Any
    values: ClassVar[tuple[float, ...]] = ()
    """What the entries of a pattern may be; empty: any finite number."""

    def __init__(self, size: int, **options: Any) -> None:
        if size < 1:
            raise ConfigError(f"a memory has 1 unit or more, got size={size}")
        self.size = size
        self.options = validate(self.options_model(), options, f"the options of {type(self).__name__}")
        self.patterns: FloatArray = np.zeros((0, size))
        self._stored()

    @classmethod
    def options_model(cls) -> type[ConfigModel]:
        """The options as a config model: names, types, ranges, defaults and a line of help each."""
        return model_of(f"{cls.__name__}Options", ConfigModel, arguments_of(cls, Memory).values())

    @final
    def store(self, patterns: npt.ArrayLike) -> Self:
        """Return a memory that holds `patterns (P, N)` (or one, `(N,)`) beside those that this one holds.

        Raises:
            ConfigError: If they are of another size, or hold what a pattern cannot hold.
        """
        added = np.atleast_2d(np.asarray(patterns, dtype=np.float64))
        if added.ndim != 2 or added.shape[1] != self.size:
            raise ConfigError(f"patterns must have shape (P, {self.size}), got {np.shape(patterns)}")
        if not np.isfinite(added).all() or (self.values and not np.isin(added, self.values).all()):
            valid = f"one of {', '.join(f'{value:g}' for value in self.values)}" if self.values else "finite"
            raise ConfigError(f"every entry of a pattern of {type(self).__name__} must be {valid}")
        following = copy.copy(self)
        following.patterns = np.concatenate([self.patterns, added])
        following._stored()
        return following

    @final
    def recall(
        self,
        cue: npt.ArrayLike,
        *,
        steps: int = 50,
        generator: np.random.Generator | None = None,
        course: bool = False,
    ) -> Recall:
        """Start in `cue` and go on until nothing changes, or for `steps` steps.

        Args:
            cue: `(.., N)`; 0 may stand for what is unknown.
            steps: T at most, 0 or more; each updates every unit once.
            generator: Draws what is random; without one, nothing may be.
            course: Whether to return overlaps and energies of every step.

        Raises:
            ConfigError: If the cue does not fit, `steps` is negative, or a generator is needed.
        """
        state = np.array(cue, dtype=np.float64)
        if state.ndim < 1 or state.shape[-1] != self.size or not np.isfinite(state).all():
            raise ConfigError(f"a cue must be finite and have shape (.., {self.size}), got {state.shape}")
        if steps < 0:
            raise ConfigError(f"a recall takes 0 steps or more, got {steps}")
        settled = np.zeros(state.shape[:-1], dtype=np.bool_)
        states = [state]
        for _ in range(steps):
            following = self.step(state, generator)
            settled = np.asarray((np.abs(following - state) <= SETTLED).all(axis=-1))
            state = following
            if course:
                states.append(state)
            if settled.all():
                break
        if not course:
            return Recall(state, settled)
        return Recall(state, settled, np.stack([*map(self.overlaps, states)]), np.stack([*map(self.energy, states)]))

    def overlaps(self, state: FloatArray) -> FloatArray:
        """How much of each pattern is in `state (.., N)`, `(.., P)`: 1 at the pattern itself.

        `m = p.S / p.p`, which is `p.S / N` for patterns of +1 and -1.
        """
        squares: FloatArray = (self.patterns**2).sum(axis=1)
        shares: FloatArray = state @ self.patterns.T / np.where(squares > 0, squares, 1.0)
        return shares

    def random_patterns(self, count: int, generator: np.random.Generator) -> FloatArray:
        """Draw `count` patterns of the kind that the model is made for, `(count, N)`: here +1 or -1, equally often."""
        return np.where(generator.random((count, self.size)) < 0.5, 1.0, -1.0)

    def expected_error(self, load: float) -> float | None:
        """Share of wrong units that theory expects after one step from one of `load * N` random patterns.

        None where it says nothing.
        """
        return None

    def expected_overlap(self, load: float) -> float | None:
        """Overlap that theory expects a recall from one of `load * N` random patterns to end in; None as above."""
        return None

    @abstractmethod
    def step(self, state: FloatArray, generator: np.random.Generator | None = None) -> FloatArray:
        """Update every unit of `state (.., N)` once, and return the new state."""

    @abstractmethod
    def energy(self, state: FloatArray) -> FloatArray:
        """The energy of `state (.., N)`, `(..)`."""

    @abstractmethod
    def _stored(self) -> None:
        """Make what recall needs of `patterns`, which are new; nothing that another memory holds is changed."""
