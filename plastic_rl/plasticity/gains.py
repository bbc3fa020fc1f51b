"""Gains of a synapse (alpha, eta): one number, one per neuron or one per synapse, learned or fixed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from typing import Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from plastic_rl.config import ConfigModel

NamedTensors = Mapping[str, Tensor]
Granularity = Literal["scalar", "neuron", "synapse"]
Range = tuple[float, float]
"""Lowest and highest valid value of a parameter."""

UNBOUNDED: Range = (-math.inf, math.inf)
RATE: Range = (0.0, 1.0)
"""Of a rate: the share of the way that something moves in a step."""
LOGARITHM: Range = (-20.0, 20.0)
"""Of the logarithm of a factor: its exponential leaves room for products in float32."""


@dataclass(frozen=True)
class Parameter:
    """A start value, and what the outer loop may make of it.

    Attributes:
        value: Where it starts.
        trainable: Whether the outer loop may change it.
        valid: The range that it stays in: evolution mirrors at its ends, a gradient step is projected onto it.
        is_gain: Whether `plasticity_lr_scale` scales its learning rate.
    """

    value: Tensor
    trainable: bool = True
    _: KW_ONLY
    valid: Range = UNBOUNDED
    is_gain: bool = True


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

    def draw(
        self,
        post_size: int,
        pre_size: int,
        generator: torch.Generator | None = None,
        *,
        valid: Range = UNBOUNDED,
        is_gain: bool = True,
    ) -> Parameter:
        """Start values: `(1, 1)`, `(O, 1)` or `(O, I)` by granularity; all broadcast against `(.., B, O, I)`."""
        rows = 1 if self.granularity == "scalar" else post_size
        columns = pre_size if self.granularity == "synapse" else 1
        value = torch.empty(rows, columns, dtype=torch.float32)
        if self.low == self.high:
            value.fill_(self.low)
        else:
            value.uniform_(self.low, self.high, generator=generator)
        return Parameter(value, self.trainable, valid=valid, is_gain=is_gain)
