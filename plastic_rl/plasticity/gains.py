"""Gains of a synapse (alpha, eta): one number, one per neuron or one per synapse, learned or fixed."""

from __future__ import annotations

from typing import Literal, NamedTuple, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from plastic_rl.config import ConfigModel

Granularity = Literal["scalar", "neuron", "synapse"]


class Parameter(NamedTuple):
    """A start value, and whether the outer loop may change it."""

    value: Tensor
    trainable: bool = True


class GainConfig(ConfigModel):
    """Shape and start values of a gain."""

    granularity: Granularity = Field(
        "synapse", description="One number for all synapses (scalar), one per post neuron, or one per synapse."
    )
    low: float = Field(description="Start values are uniform between low and high; equal bounds give a constant.")
    high: float = Field(description="Upper end of the start values.")
    trainable: bool = Field(True, description="Whether the outer loop changes it; else it keeps its start value.")

    @model_validator(mode="after")
    def _bounds_in_order(self) -> Self:
        if self.low > self.high:
            raise ValueError(f"low must not exceed high, got low={self.low}, high={self.high}.")
        return self

    @property
    def is_zero(self) -> bool:
        """True where the gain is 0 and stays so."""
        return not self.trainable and self.low == self.high == 0.0

    def draw(self, post_size: int, pre_size: int, generator: torch.Generator | None = None) -> Parameter:
        """Start values: `(1, 1)`, `(O, 1)` or `(O, I)` by granularity; all broadcast against `(.., B, O, I)`."""
        rows = 1 if self.granularity == "scalar" else post_size
        columns = pre_size if self.granularity == "synapse" else 1
        value = torch.empty(rows, columns, dtype=torch.float32)
        if self.low == self.high:
            value.fill_(self.low)
        else:
            value.uniform_(self.low, self.high, generator=generator)
        return Parameter(value, self.trainable)


class GainOverride(ConfigModel):
    """Changes to the gain of a rule; what is left out stays as the rule has it."""

    granularity: Granularity | None = Field(
        None, description="One number for all synapses (scalar), one per post neuron, or one per synapse."
    )
    low: float | None = Field(None, description="Lower end of the uniform start values.")
    high: float | None = Field(None, description="Upper end of the uniform start values.")
    trainable: bool | None = Field(None, description="Whether the outer loop changes it.")

    def applied_to(self, gain: GainConfig) -> GainConfig:
        """Return `gain` with these changes.

        >>> GainOverride(granularity="scalar").applied_to(GainConfig(low=0.1, high=0.1)).granularity
        'scalar'
        """
        return GainConfig.model_validate(gain.model_dump() | self.model_dump(exclude_none=True))
