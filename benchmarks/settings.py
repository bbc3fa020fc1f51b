"""What is measured: sizes of it all."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any


@dataclass(frozen=True)
class Setting:
    """Training on the grid maze: that of the original experiments by default."""

    side: int = 11
    steps: int = 200
    batch: int = 30
    hidden: int = 100

    @property
    def env_kwargs(self) -> dict[str, Any]:
        """Arguments of the maze."""
        return {"side": self.side, "steps": self.steps}

    @property
    def name(self) -> str:
        """As rows have it."""
        return f"N{self.hidden}_B{self.batch}_T{self.steps}"

    def of_steps(self, steps: int) -> Setting:
        """The same with lifetimes of so many steps."""
        return replace(self, steps=steps)


@dataclass(frozen=True)
class GenerationSetting:
    """A generation of evolution on the reversal bandit."""

    population: int = 64
    lifetimes: int = 4
    steps: int = 200
    hidden: int = 20


@dataclass(frozen=True)
class Sizes:
    """All that is measured.

    Attributes:
        usual: Of an iteration.
        wide: Of a larger network.
        longest: Steps of a lifetime whose memory is measured, in the usual network.
        sweep: Of the iterations that are laid beside the loop once.
        generation: Of evolution.
        default: What differs from the default job.
        tables: What differs from the rule tables' configs.
    """

    usual: Setting = Setting()
    wide: Setting = Setting(batch=64, hidden=256)
    longest: int = 3200
    sweep: tuple[Setting, ...] = tuple(
        Setting(steps=steps, batch=batch, hidden=hidden)
        for hidden, batch, steps in product((32, 100, 256), (16, 64, 256), (50, 200))
    )
    generation: GenerationSetting = GenerationSetting()
    default: dict[str, Any] = field(default_factory=dict)
    tables: dict[str, Any] = field(default_factory=dict)
