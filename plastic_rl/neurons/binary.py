"""Binary threshold unit (McCulloch & Pitts 1943).

Source: McCulloch & Pitts 1943, doi 10.1007/BF02478259; thresholds drawn at random: Lazar, Pipa & Triesch 2009, doi
10.3389/neuro.10.023.2009.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

from plastic_rl.config.signatures import handed_on
from plastic_rl.neurons.base import NEURONS, Drive, SpikingNeuron, number
from plastic_rl.plasticity import Parameter, Setting
from plastic_rl.plasticity.gains import NamedTensors


class Binary(SpikingNeuron):
    """Binary threshold: `y = 1` where `I >= theta`, else 0.

    Nothing of it is left in the next step. The surrogate gradient's v is I - theta.

    Args:
        threshold: theta; the mean where thresholds are spread.
        threshold_spread: Thresholds of units are drawn with the start weights, uniform within so much of their mean.
    """

    def __init__(
        self,
        step_size: float = 1.0,
        *,
        threshold: Annotated[float, Field(ge=-1e3, le=1e3)] = 0.5,
        threshold_spread: Annotated[float, Field(ge=0, le=1e3), Setting] = 0.0,
        **shared: Any,
    ) -> None:
        super().__init__(step_size, **handed_on(locals()))

    def parameters(self, size: int, generator: torch.Generator | None = None) -> dict[str, Parameter]:
        """`threshold`, one for all, or `(O,)` where thresholds are spread."""
        numbers, spread = self.numbers(), self.options.threshold_spread
        if spread == 0:
            return numbers
        mean = numbers["threshold"]
        drawn = mean.value + spread * (2 * torch.rand(size, generator=generator, dtype=torch.float32) - 1)
        return numbers | {"threshold": replace(mean, value=drawn.clamp(*mean.valid))}

    def step(self, params: NamedTensors, drive: Drive, state: NamedTensors) -> tuple[Tensor, dict[str, Tensor]]:
        """See `Neuron.step`."""
        return self.spikes(drive.current - number(params, "threshold")), {}


NEURONS.register("binary", Binary)
