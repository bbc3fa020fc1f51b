"""The squid giant axon of Hodgkin & Huxley (1952), and the Nernst potential that its reversal potentials come from.

Source: Hodgkin & Huxley 1952, J. Physiol. 117, doi 10.1113/jphysiol.1952.sp004764, with the voltage shifted to a rest
of -65 mV; Gerstner, Kistler, Naud & Paninski 2014, Neuronal Dynamics, sections 2.1 and 2.2.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

from plastic_rl.config.signatures import handed_on
from plastic_rl.neurons.base import NEURONS, CrossingNeuron, Drive, Voltage, phi_1
from plastic_rl.plasticity.gains import NamedTensors

Conductance = Annotated[float, Field(ge=0, le=1000)]
"""mS/cm2."""
BOLTZMANN, ELEMENTARY_CHARGE, ZERO_CELSIUS = 1.380649e-23, 1.602176634e-19, 273.15
SATURATED = 200.0
"""mV either way at which every gate is open or shut: rates are no longer computed beyond."""


def nernst_potential(outside: float, inside: float, celsius: float = 6.3, valence: int = 1) -> float:
    """Voltage, inside against outside, at which an ion's diffusion and drift cancel: `kT / (z q) ln(n_out / n_in)`, mV.

    Args:
        outside: Concentration outside, mM.
        inside: Concentration inside, mM.
        celsius: Temperature.
        valence: z, charges of the ion.

    >>> round(nernst_potential(440, 50), 1), round(nernst_potential(20, 400), 1)  # sodium, potassium of the squid
    (52.4, -72.1)
    """
    return 1000 * BOLTZMANN * (ZERO_CELSIUS + celsius) / (valence * ELEMENTARY_CHARGE) * math.log(outside / inside)


class HodgkinHuxley(CrossingNeuron):
    """The squid giant axon: a voltage, and three gates of sodium and potassium.

        C du/dt = -gNa m^3 h (u - ENa) - gK n^4 (u - EK) - gl (u - El) + I
        dx/dt = a_x (1 - x) - b_x x, for the gates x = m, h, n
        a_m = e((u + 40)/10)            b_m = 4 exp(-(u + 65)/18)
        a_h = .07 exp(-(u + 65)/20)     b_h = 1 / (1 + exp(-(u + 35)/10))
        a_n = .1 e((u + 55)/10)         b_n = .125 exp(-(u + 65)/80)
        e(x) = x / (1 - exp(-x))

    Rates of gates are in 1/ms, I in uA/cm2; with a conductance g, in mS/cm2, the unit gets `I - g u`. From rest it
    spikes once for I from 2.25, again and again from 6.3 to 154. Each gate and the voltage relax exactly with the
    others held, so that gates stay in [0, 1] under any drive; at the largest step rates are within 0.5% of those of
    fine ones. A spike is an upward crossing of the threshold, v of its surrogate gradient in units of 50 mV.

    Args:
        capacitance: C, uF/cm2.
        sodium_conductance: gNa, mS/cm2.
        potassium_conductance: gK, mS/cm2.
        leak_conductance: gl, mS/cm2.
        sodium_reversal: ENa, mV.
        potassium_reversal: EK, mV.
        leak_reversal: El, mV.
    """

    takes_conductance = True
    largest_step = 0.05
    variables = ("voltage", "m", "h", "n")

    def __init__(
        self,
        step_size: float = 1.0,
        *,
        capacitance: Annotated[float, Field(ge=0.1, le=100)] = 1.0,
        sodium_conductance: Conductance = 120.0,
        potassium_conductance: Conductance = 36.0,
        leak_conductance: Conductance = 0.3,
        sodium_reversal: Voltage = 50.0,
        potassium_reversal: Voltage = -77.0,
        leak_reversal: Voltage = -54.387,
        **shared: Any,
    ) -> None:
        super().__init__(step_size, **handed_on(locals()))

    def coefficients(
        self, params: NamedTensors, drive: Drive, values: Sequence[Tensor]
    ) -> Sequence[tuple[Tensor, Tensor]]:
        """See `IntegratedNeuron.coefficients`."""
        m, h, n = values[1:]
        u = values[0].clamp(-SATURATED, SATURATED)
        opening_m, closing_m = 1 / phi_1(-(u + 40) / 10), 4 * torch.exp(-(u + 65) / 18)
        opening_h, closing_h = 0.07 * torch.exp(-(u + 65) / 20), torch.sigmoid((u + 35) / 10)
        opening_n, closing_n = 0.1 / phi_1(-(u + 55) / 10), 0.125 * torch.exp(-(u + 65) / 80)
        sodium = params["sodium_conductance"] * m**3 * h
        potassium = params["potassium_conductance"] * n**4
        leak, capacitance = params["leak_conductance"], params["capacitance"]
        pull = sodium + potassium + leak
        source = (
            sodium * params["sodium_reversal"]
            + potassium * params["potassium_reversal"]
            + leak * params["leak_reversal"]
            + drive.current
        )
        if drive.conductance is not None:
            pull = pull + drive.conductance
        return [
            (source / capacitance, pull / capacitance),
            (opening_m, opening_m + closing_m),
            (opening_h, opening_h + closing_h),
            (opening_n, opening_n + closing_n),
        ]


NEURONS.register("hodgkin_huxley", HodgkinHuxley)
