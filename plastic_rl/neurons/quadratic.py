"""Quadratic integrate-and-fire unit: what a unit near the saddle-node of its rest comes down to (Latham et al. 2000).

Source: Latham, Richmond, Nelson & Nirenberg 2000, J. Neurophysiol. 83, doi 10.1152/jn.2000.83.2.808; Gerstner, Kistler,
Naud & Paninski 2014, Neuronal Dynamics, section 5.3.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, NamedTuple

import torch
from pydantic import Field
from torch import Tensor

from plastic_rl.config.signatures import handed_on
from plastic_rl.neurons.base import NEURONS, Drive, ResettingNeuron, Voltage, number
from plastic_rl.plasticity import StateEntry
from plastic_rl.plasticity.gains import NamedTensors

TINY = 1e-12


class Parabola(NamedTuple):
    """The equation `dx/dt = curvature x^2 + drift`, whose solutions are known.

    Attributes:
        curvature: Above 0, `(.., B, O)`.
        drift: Where it is above 0, x passes all values; else there are two fixed points, `(.., B, O)`.
    """

    curvature: Tensor
    drift: Tensor

    def after(self, x: Tensor, time: Tensor | float, finite: Tensor) -> Tensor:
        """Where x is a time later, `(.., B, O)`: `(x C + drift S) / (C - curvature x S)`; 0 where not `finite`.

        C and S are the cosine and sine, hyperbolic where the drift is negative (then both divided by C).
        """
        passes, root = self._frequency()
        cosine = torch.where(passes, torch.cos(root * time), 1.0)
        sine = torch.where(passes, torch.sin(root * time), torch.tanh(root * time)) / root
        divisor = torch.where(finite, cosine - self.curvature * x * sine, 1.0)
        return torch.where(finite, (x * cosine + self.drift * sine) / divisor, 0.0)

    def time_to(self, x: Tensor, end: Tensor) -> Tensor:
        """Time from x to `end`, which is x or above, `(.., B, O)`; infinite where x does not rise so far."""
        passes, root = self._frequency()
        opposite, adjacent = (end - x) * root, self.drift + self.curvature * x * end
        rises = ~passes & (self.curvature * x > root) & (opposite < adjacent)  # from beyond the upper fixed point
        ratio = torch.where(rises, opposite / torch.where(rises, adjacent, 1.0), 0.0).clamp_max(1 - 1e-7)
        angle = torch.where(passes, torch.atan2(opposite, torch.where(passes, adjacent, 1.0)), torch.atanh(ratio))
        return torch.where(passes | rises, angle / root, torch.inf)

    def _frequency(self) -> tuple[Tensor, Tensor]:
        product = self.curvature * self.drift
        return product > 0, product.abs().clamp_min(TINY).sqrt()


class Spike(NamedTuple):
    """What `rise` finds, `(.., B, O)` each.

    Attributes:
        beyond: How far x is beyond the cut-off, 0 or more where it spikes: as if it had gone on at the speed with
            which it met the cut-off.
        x: After the step.
        fired: Whether x met the cut-off.
    """

    beyond: Tensor
    x: Tensor
    fired: Tensor


def rise(
    parabola: Parabola, x: Tensor, h: float, cutoff: Tensor, reset: Tensor, jump: Tensor | float, *, through: bool
) -> Spike:
    """Follow a parabola for a step; from the cut-off on, anew from the reset, in mid-step too. Exact.

    Where x meets the cut-off twice it waits there for the next step.

    Args:
        parabola: The equation.
        x: Up to `cutoff`, `(.., B, O)`.
        h: Length of the step.
        cutoff: Where a spike is.
        reset: Where x is after it.
        jump: What a spike takes off the drift.
        through: Whether gradients flow through the time of the spike into what follows it.
    """
    left = h - parabola.time_to(x, cutoff)
    fired = left >= 0
    left = torch.where(fired, left, 0.0)
    quiet = parabola.after(x, h, ~fired)
    speed = parabola.curvature * cutoff.square() + parabola.drift
    beyond = torch.where(fired, (speed * left).clamp_min(0), (quiet - cutoff).clamp_max(-TINY))
    since = left if through else left.detach()
    following = Parabola(parabola.curvature, parabola.drift - jump)
    waits = since >= following.time_to(reset, cutoff)
    anew = torch.where(waits, cutoff, following.after(reset, since, ~waits))
    return Spike(beyond, torch.where(fired, anew, torch.minimum(quiet, cutoff)), fired)


class Quadratic(ResettingNeuron):
    """Quadratic integrate-and-fire: a voltage that runs away beyond a point.

        tau du/dt = c2 (u - c1)^2 + c0 + R I
        at the cut-off a spike, then u = reset

    Steps are exact while the drive is held, the time of the spike within the step included: the period from reset to
    cut-off is `tau / s [atan(c2 (cutoff - c1) / s) - atan(c2 (reset - c1) / s)]` with `s = sqrt(c2 (c0 + R I))`, where
    R I exceeds the rheobase `-c0`. With a conductance g the unit gets `R (I - g u)`, another parabola. The surrogate
    gradient's v is the distance from the cut-off over that from reset to cut-off.

    Args:
        tau: Membrane time constant, ms.
        resistance: R, mV a unit of current.
        curvature: c2, 1/mV.
        centre: c1, midway between the rest and the voltage from which the unit runs away, mV.
        offset: c0, mV; above 0 the unit spikes without a drive.
        cutoff: Voltage of a spike, mV.
        reset: Voltage after a spike, mV.

    Raises:
        ConfigError: If `reset` or `centre` is not below `cutoff`.
    """

    takes_conductance = True
    variables = ("voltage",)

    def __init__(
        self,
        step_size: float = 1.0,
        *,
        tau: Annotated[float, Field(ge=0.1, le=1e4)] = 10.0,
        resistance: Annotated[float, Field(ge=0, le=1e4)] = 1.0,
        curvature: Annotated[float, Field(ge=1e-3, le=10)] = 0.08,
        centre: Voltage = 7.5,
        offset: Voltage = -4.5,
        cutoff: Voltage = 30.0,
        reset: Voltage = 0.0,
        **shared: Any,
    ) -> None:
        super().__init__(step_size, **handed_on(locals()))
        self.check_increasing("reset", "cutoff")
        self.check_increasing("centre", "cutoff")

    def state_entries(self, size: int) -> dict[str, StateEntry]:
        """`voltage` u, mV, from rest: `c1 - sqrt(-c0 / c2)`; without one, from the reset."""
        options = self.options
        below = -options.offset / options.curvature
        return {"voltage": StateEntry((size,), start=options.centre - below**0.5 if below >= 0 else "reset")}

    def change(self, params: NamedTensors, drive: Drive, values: Sequence[Tensor]) -> list[Tensor]:
        """See `Neuron.change`."""
        parabola, centre = self.parabola(params, drive)
        return [parabola.curvature * (values[0] - centre).square() + parabola.drift]

    def parabola(self, params: NamedTensors, drive: Drive) -> tuple[Parabola, Tensor]:
        """The equation of `u - centre`, in ms, and this centre, `(.., B, O)`: a conductance moves it from c1."""
        tau, resistance, curvature, centre, offset = (
            number(params, name) for name in ("tau", "resistance", "curvature", "centre", "offset")
        )
        drift = offset + resistance * drive.current
        if drive.conductance is not None:
            shift = resistance * drive.conductance / (2 * curvature)
            drift = drift - curvature * shift * (2 * centre + shift)
            centre = centre + shift
        return Parabola((curvature / tau).expand_as(drift), drift / tau), centre

    def step(self, params: NamedTensors, drive: Drive, state: NamedTensors) -> tuple[Tensor, dict[str, Tensor]]:
        """See `Neuron.step`."""
        parabola, centre = self.parabola(params, drive)
        cutoff = number(params, "cutoff")
        reset = self.below(cutoff, number(params, "reset"))
        x = torch.minimum(state["voltage"], cutoff) - centre
        spike = rise(
            parabola, x, self.step_size, cutoff - centre, reset - centre, 0.0, through=self.options.differentiate_reset
        )
        return self.spikes(spike.beyond / (cutoff - reset)), {"voltage": spike.x + centre}


NEURONS.register("quadratic", Quadratic)
