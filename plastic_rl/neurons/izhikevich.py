"""The simple model of spiking of Izhikevich (2003), with a recovery variable; its four numbers choose a firing pattern.

Source: Izhikevich 2003, IEEE Trans. Neural Netw. 14, doi 10.1109/TNN.2003.820440, eq. 1-3.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

from plastic_rl.config.signatures import handed_on
from plastic_rl.neurons.base import NEURONS, Drive, IntegratedNeuron, ResettingNeuron, Voltage
from plastic_rl.neurons.quadratic import Parabola, rise
from plastic_rl.plasticity.gains import NamedTensors

CURVATURE, SLOPE, OFFSET = 0.04, 5.0, 140.0
"""Of the voltage's parabola, as published: 1/(mV ms), 1/ms and mV/ms."""


class Izhikevich(IntegratedNeuron, ResettingNeuron):
    """The simple model of spiking: a voltage, and a variable that recovers.

        dv/dt = .04 v^2 + 5 v + 140 - u + I
        du/dt = a (b v - u)
        at the cut-off a spike, then v = c and u grows by d

    Regular spiking (a, b, c, d) = (.02, .2, -65, 8), fast spiking (.1, .2, -65, 2), chattering (.02, .2, -50, 2). I is
    in mV/ms. Each of the two equations has a closed form while the other variable is held: an inner step is half a step
    of u, one of v with the time of its spike, half a step of u (second order). With a conductance g the unit gets
    `I - g v`. The surrogate gradient's v is the distance from the cut-off over that from c to the cut-off.

    Args:
        a: Rate of the recovery variable, 1/ms.
        b: How far the recovery variable follows the voltage, 1/ms.
        c: Voltage after a spike, mV.
        d: What a spike adds to the recovery variable, mV/ms.
        cutoff: Voltage of a spike, mV.

    Raises:
        ConfigError: If c is not below `cutoff`.
    """

    takes_conductance = True
    largest_step = 0.25
    variables = ("voltage", "recovery")

    def __init__(
        self,
        step_size: float = 1.0,
        *,
        a: Annotated[float, Field(ge=1e-4, le=10)] = 0.02,
        b: Annotated[float, Field(ge=-10, le=10)] = 0.2,
        c: Voltage = -65.0,
        d: Annotated[float, Field(ge=-100, le=100)] = 8.0,
        cutoff: Voltage = 30.0,
        **shared: Any,
    ) -> None:
        super().__init__(step_size, **handed_on(locals()))
        self.check_increasing("c", "cutoff")

    def coefficients(
        self, params: NamedTensors, drive: Drive, values: Sequence[Tensor]
    ) -> Sequence[tuple[Tensor, Tensor]]:
        """See `IntegratedNeuron.coefficients`."""
        v, u = values
        pull = -SLOPE if drive.conductance is None else drive.conductance - SLOPE
        a = params["a"].expand_as(v)
        return [(OFFSET - u + drive.current, pull - CURVATURE * v), (a * params["b"] * v, a)]

    def restless_start(self) -> float:
        """See `IntegratedNeuron.restless_start`: its reset."""
        return float(self.options.c)

    def inner_step(self, params: NamedTensors, drive: Drive, values: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """See `IntegratedNeuron.inner_step`."""
        v, u = values
        a, b, c, d, cutoff = (params[name] for name in ("a", "b", "c", "d", "cutoff"))
        h, c = self.inner_step_size, self.below(cutoff, c)
        kept = torch.exp(-a * h / 2)
        u = b * v + (u - b * v) * kept
        pull = -SLOPE if drive.conductance is None else drive.conductance - SLOPE
        centre = pull / (2 * CURVATURE)
        drift = OFFSET - u + drive.current - CURVATURE * centre**2
        parabola = Parabola(torch.full_like(drift, CURVATURE), drift)
        through = self.options.differentiate_reset
        spike = rise(parabola, torch.minimum(v, cutoff) - centre, h, cutoff - centre, c - centre, d, through=through)
        v, u = spike.x + centre, torch.where(spike.fired, u + d, u)
        return spike.beyond / (cutoff - c), [v, b * v + (u - b * v) * kept]


NEURONS.register("izhikevich", Izhikevich)
