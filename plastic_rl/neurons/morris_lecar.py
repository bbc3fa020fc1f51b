"""The barnacle muscle fibre of Morris & Lecar (1981): a calcium and a potassium current, two variables.

Source: Morris & Lecar 1981, Biophys. J. 35, doi 10.1016/S0006-3495(81)84782-0, eq. 9.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

from plastic_rl.config.signatures import handed_on
from plastic_rl.neurons.base import NEURONS, CrossingNeuron, Drive, Voltage
from plastic_rl.plasticity.gains import NamedTensors

Conductance = Annotated[float, Field(ge=0, le=1000)]
"""mS/cm2."""
Slope = Annotated[float, Field(ge=5, le=200)]
"""mV."""
SATURATED = 200.0
"""mV either way beyond which the potassium gate gets no faster."""


class MorrisLecar(CrossingNeuron):
    """The barnacle muscle fibre: a voltage, and a slow potassium gate.

        C dV/dt = -gCa m (V - VCa) - gK w (V - VK) - gL (V - VL) + I
        dw/dt = phi cosh((V - V3) / (2 V4)) (w_inf - w)
        m = (1 + tanh((V - V1)/V2)) / 2
        w_inf = (1 + tanh((V - V3)/V4)) / 2

    The calcium gate m follows at once. I is in uA/cm2; with a conductance g, in mS/cm2, the unit gets `I - g V`.
    The defaults are type II: spiking sets in at once with its full rate, by a Hopf bifurcation. Type I, from rate 0 at
    a saddle-node: `calcium_conductance: 4, rate: 0.0667, potassium_half: 12, potassium_slope: 17.4`. At the largest
    step rates are within 0.5% of those of fine ones. A spike is an upward crossing of the threshold, v of its surrogate
    gradient in units of 50 mV.

    Args:
        capacitance: C, uF/cm2.
        calcium_conductance: gCa, mS/cm2.
        potassium_conductance: gK, mS/cm2.
        leak_conductance: gL, mS/cm2.
        calcium_reversal: VCa, mV.
        potassium_reversal: VK, mV.
        leak_reversal: VL, mV.
        calcium_half: V1, where half of the calcium gates are open, mV.
        calcium_slope: V2, mV.
        potassium_half: V3, where half of the potassium gates are open, mV.
        potassium_slope: V4, mV.
        rate: phi, least rate of the potassium gate, 1/ms.
    """

    takes_conductance = True
    largest_step = 0.5
    variables = ("voltage", "w")

    def __init__(
        self,
        step_size: float = 1.0,
        *,
        capacitance: Annotated[float, Field(ge=0.1, le=1000)] = 20.0,
        calcium_conductance: Conductance = 4.4,
        potassium_conductance: Conductance = 8.0,
        leak_conductance: Conductance = 2.0,
        calcium_reversal: Voltage = 120.0,
        potassium_reversal: Voltage = -84.0,
        leak_reversal: Voltage = -60.0,
        calcium_half: Voltage = -1.2,
        calcium_slope: Slope = 18.0,
        potassium_half: Voltage = 2.0,
        potassium_slope: Slope = 30.0,
        rate: Annotated[float, Field(ge=1e-4, le=10)] = 0.04,
        **shared: Any,
    ) -> None:
        super().__init__(step_size, **handed_on(locals()))

    def coefficients(
        self, params: NamedTensors, drive: Drive, values: Sequence[Tensor]
    ) -> Sequence[tuple[Tensor, Tensor]]:
        """See `IntegratedNeuron.coefficients`."""
        w, u = values[1], values[0].clamp(-SATURATED, SATURATED)
        m = (1 + torch.tanh((u - params["calcium_half"]) / params["calcium_slope"])) / 2
        above = (u - params["potassium_half"]) / params["potassium_slope"]
        rate = params["rate"] * torch.cosh(above / 2)
        calcium, potassium = params["calcium_conductance"] * m, params["potassium_conductance"] * w
        leak, capacitance = params["leak_conductance"], params["capacitance"]
        pull = calcium + potassium + leak
        source = (
            calcium * params["calcium_reversal"]
            + potassium * params["potassium_reversal"]
            + leak * params["leak_reversal"]
            + drive.current
        )
        if drive.conductance is not None:
            pull = pull + drive.conductance
        return [(source / capacitance, pull / capacitance), (rate * (1 + torch.tanh(above)) / 2, rate)]


NEURONS.register("morris_lecar", MorrisLecar)
