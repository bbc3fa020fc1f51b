"""Exponential integrate-and-fire unit: a leak and the upstroke of the sodium current (Fourcaud-Trocme et al. 2003).

Source: Fourcaud-Trocmé, Hansel, van Vreeswijk & Brunel 2003, J. Neurosci. 23, doi 10.1523/JNEUROSCI.23-37-11628.2003.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

from plastic_rl.config.signatures import handed_on
from plastic_rl.errors import ConfigError
from plastic_rl.neurons.base import NEURONS, Drive, IntegratedNeuron, ResettingNeuron, Voltage
from plastic_rl.plasticity.gains import NamedTensors

STEEPEST = 40.0
"""Slope factors from threshold to cut-off: more would overflow."""


class Exponential(IntegratedNeuron, ResettingNeuron):
    """Exponential integrate-and-fire: a leak, and an upstroke that runs away.

        tau du/dt = -(u - rest) + D exp((u - theta) / D) + R I
        at the cut-off a spike, then u = reset

    From rest it spikes for a held R I beyond the rheobase
    `theta - rest - D`. With a conductance g the unit gets `R (I - g u)`. The surrogate gradient's v is the distance
    from the cut-off over that from reset to cut-off. At the largest step rates up to 100 Hz are within 1% of those of
    fine ones.

    Args:
        tau: Membrane time constant, ms.
        resistance: R, mV a unit of current.
        rest: Resting voltage of the leak, mV.
        threshold: theta, where the upstroke begins, mV.
        slope_factor: D, sharpness of the upstroke, mV; towards 0 the unit becomes `lif`.
        cutoff: Voltage of a spike, mV.
        reset: Voltage after a spike, mV.

    Raises:
        ConfigError: If not rest < threshold < cutoff and reset < cutoff, or the cut-off is 40 slope factors or more
            above the threshold.
    """

    takes_conductance = True
    largest_step = 0.1
    variables = ("voltage",)

    def __init__(
        self,
        step_size: float = 1.0,
        *,
        tau: Annotated[float, Field(ge=0.1, le=1e4)] = 10.0,
        resistance: Annotated[float, Field(ge=0, le=1e4)] = 1.0,
        rest: Voltage = 0.0,
        threshold: Voltage = 15.0,
        slope_factor: Annotated[float, Field(ge=0.01, le=100)] = 2.0,
        cutoff: Voltage = 30.0,
        reset: Voltage = 0.0,
        **shared: Any,
    ) -> None:
        super().__init__(step_size, **handed_on(locals()))
        self.check_increasing("rest", "threshold", "cutoff")
        self.check_increasing("reset", "cutoff")
        highest = self.options.threshold + STEEPEST * self.options.slope_factor
        if self.options.cutoff >= highest:
            raise ConfigError(
                f"cutoff of Exponential must be below threshold + {STEEPEST:g} slope_factor = {highest:g}, got "
                f"{self.options.cutoff:g}; the spike is over long before"
            )

    def coefficients(
        self, params: NamedTensors, drive: Drive, values: Sequence[Tensor]
    ) -> Sequence[tuple[Tensor, Tensor]]:
        """See `IntegratedNeuron.coefficients`."""
        tau, resistance, sharpness = params["tau"], params["resistance"], params["slope_factor"]
        voltage = torch.minimum(values[0], params["cutoff"])
        # Numbers that were learned may come to lie outside of what the constructor takes.
        upstroke = sharpness * torch.exp(((voltage - params["threshold"]) / sharpness).clamp_max(STEEPEST))
        leak = torch.ones_like(voltage) if drive.conductance is None else 1 + resistance * drive.conductance
        return [((params["rest"] + upstroke + resistance * drive.current) / tau, leak / tau)]

    def restless_start(self) -> float:
        """See `IntegratedNeuron.restless_start`: its reset."""
        return float(self.options.reset)

    def inner_step(self, params: NamedTensors, drive: Drive, values: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """See `IntegratedNeuron.inner_step`."""
        (voltage,) = self.advance(params, drive, values)
        reset = self.below(params["cutoff"], params["reset"])
        distance = (voltage - params["cutoff"]) / (params["cutoff"] - reset)
        return distance, [self.reset(self.spikes(distance), voltage, reset)]


NEURONS.register("exponential", Exponential)
