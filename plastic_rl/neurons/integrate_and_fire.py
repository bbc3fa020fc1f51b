"""Leaky integrate-and-fire units, with a fixed threshold (Lapicque 1907) and with an adapting one (Bellec et al. 2018).

Source: Gerstner, Kistler, Naud & Paninski 2014, Neuronal Dynamics, chapters 1 and 6; Bellec et al., arXiv 1803.09574.
"""

from __future__ import annotations

from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

from plastic_rl.config.signatures import handed_on
from plastic_rl.neurons.base import NEURONS, Drive, ResettingNeuron, Voltage, number
from plastic_rl.plasticity import StateEntry
from plastic_rl.plasticity.gains import NamedTensors


class LIF(ResettingNeuron):
    """Leaky integrate-and-fire: a leak, a threshold, a reset.

        tau du/dt = -(u - rest) + R I
        at the threshold a spike, then u = reset for the refractory time

    Steps are exact while the current is held: `u(t + h) = u_inf + (u - u_inf) exp(-h / tau)`. For a refractory time
    after a spike the voltage stays at the reset; a step in which it ends integrates over what is left of it. With a
    conductance g the unit gets `R (I - g u)`, so that `tau` and `u_inf` are divided by `1 + R g`.

    Args:
        tau: Membrane time constant, ms.
        resistance: R, mV a unit of current.
        rest: Resting voltage, mV.
        threshold: Voltage of a spike, mV.
        reset: Voltage after a spike, mV.
        refractory: Time after a spike in which nothing reaches the voltage, ms.
    """

    takes_conductance = True

    def __init__(
        self,
        step_size: float = 1.0,
        *,
        tau: Annotated[float, Field(ge=0.1, le=1e4)] = 10.0,
        resistance: Annotated[float, Field(ge=0, le=1e4)] = 1.0,
        rest: Voltage = 0.0,
        threshold: Voltage = 15.0,
        reset: Voltage = 0.0,
        refractory: Annotated[float, Field(ge=0, le=1e4)] = 2.0,
        **shared: Any,
    ) -> None:
        super().__init__(step_size, **handed_on(locals()))
        self.check_increasing("rest", "threshold")
        self.check_increasing("reset", "threshold")

    def state_entries(self, size: int) -> dict[str, StateEntry]:
        """`voltage` u, mV, from rest; `refractory_left`, ms."""
        return {"voltage": StateEntry((size,), start="rest"), "refractory_left": StateEntry((size,))}

    def step(self, params: NamedTensors, drive: Drive, state: NamedTensors) -> tuple[Tensor, dict[str, Tensor]]:
        """See `Neuron.step`."""
        return self.fire(params, drive, state, number(params, "threshold"))

    def fire(
        self, params: NamedTensors, drive: Drive, state: NamedTensors, threshold: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Integrate, spike at the `threshold (.., B, O)`, reset."""
        h = self.step_size
        resistance, left = number(params, "resistance"), state["refractory_left"]
        leak = 1.0 if drive.conductance is None else 1 + resistance * drive.conductance
        target = (number(params, "rest") + resistance * drive.current) / leak
        free = (h - left).clamp(0, h)
        voltage = target + (state["voltage"] - target) * torch.exp(-free * leak / number(params, "tau"))
        # A threshold that was learned may come to lie below the rest, and the reset.
        scale = (number(params, "threshold") - number(params, "rest")).abs().clamp_min(1e-3)
        spikes = self.spikes((voltage - threshold) / scale) * (free > 0)
        fired = spikes.detach() > 0.5
        return spikes, {
            "voltage": self.reset(spikes, voltage, number(params, "reset")),
            "refractory_left": torch.where(fired, number(params, "refractory"), (left - h).clamp_min(0)),
        }


class AdaptiveLIF(LIF):
    """The `lif` unit with a threshold that rises with its own spikes.

        theta = threshold + beta a
        a <- a exp(-h / tau_a) + spike / tau_a

    With rest and reset 0, the rate r that it settles at solves
    `1/r = refractory + tau ln(R I / (R I - threshold - beta r))`.

    Args:
        beta: How far the threshold rises with the rate a, mV ms; with 0 the unit is `lif`.
        tau_adaptation: tau_a, ms.
    """

    def __init__(
        self,
        step_size: float = 1.0,
        *,
        beta: Annotated[float, Field(ge=0, le=1e6)] = 100.0,
        tau_adaptation: Annotated[float, Field(ge=1, le=1e6)] = 200.0,
        **shared: Any,
    ) -> None:
        super().__init__(step_size, **handed_on(locals()))

    def state_entries(self, size: int) -> dict[str, StateEntry]:
        """Those of `LIF`, and `adaptation` a, spikes per ms."""
        return super().state_entries(size) | {"adaptation": StateEntry((size,))}

    def step(self, params: NamedTensors, drive: Drive, state: NamedTensors) -> tuple[Tensor, dict[str, Tensor]]:
        """See `Neuron.step`."""
        adaptation, tau = state["adaptation"], number(params, "tau_adaptation")
        threshold = number(params, "threshold") + number(params, "beta") * adaptation
        spikes, following = self.fire(params, drive, state, threshold)
        return spikes, following | {"adaptation": adaptation * torch.exp(-self.step_size / tau) + spikes / tau}


NEURONS.register("lif", LIF)
NEURONS.register("adaptive_lif", AdaptiveLIF)
