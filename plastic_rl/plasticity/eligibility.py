"""Eligibility: which past of a synapse a modulator reaches."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from plastic_rl.config.signatures import handed_on
from plastic_rl.plasticity.gains import NamedTensors, Parameter
from plastic_rl.plasticity.parts import Part
from plastic_rl.registry import Registry


class Eligibility(Part):
    """No eligibility: the modulator reaches the change of this very step, `S_t = D_t`.

    Attributes:
        has_trace: True where there is an `E`, which is state entry `eligibility` `(B, O, I)`.
        uses_eta: True where E moves by the parameter `eta_eligibility`.
        by_substep: True where E takes in every substep of units that take several in a step.
    """

    has_trace: ClassVar[bool] = False
    uses_eta: ClassVar[bool] = False
    by_substep: ClassVar[bool] = False

    def parameters(self) -> dict[str, Parameter]:
        """Parameters of its own, by name: its `numbers` unless overridden."""
        return self.numbers()

    def kept(self, params: NamedTensors, entry: Tensor, substeps: int = 1) -> Tensor:
        """What is left of `entry (.., B, R, C)` after some substeps, where `by_substep`; else all of it."""
        return entry

    def source(self, params: NamedTensors, change: Tensor, eligibility: Tensor | None) -> Tensor:
        """Return `S_t`, what the modulator multiplies, from `D_t` and the OLD `E_t`."""
        return change

    def next_trace(self, params: NamedTensors, change: Tensor, eligibility: Tensor) -> Tensor:
        """Return `E_{t+1}`."""
        return eligibility


class DecayingTrace(Eligibility):
    """`S_t = E_t`, then `E_{t+1} = (1 - eta_E) E_t + eta_E D_t` (openreview r1lrAiA5Ym eq. 4-5).

    A modulator at lag d after a pairing reaches `eta_E (1 - eta_E)^(d-1)` of it for d >= 1, and nothing for d = 0.
    """

    has_trace = True
    uses_eta = True

    def source(self, params: NamedTensors, change: Tensor, eligibility: Tensor | None) -> Tensor:
        """Return the old eligibility."""
        assert eligibility is not None, "a decaying trace is state"
        return eligibility

    def next_trace(self, params: NamedTensors, change: Tensor, eligibility: Tensor) -> Tensor:
        """Return the eligibility with this step's change taken in."""
        rate = params["eta_eligibility"].unsqueeze(-3)
        return (1 - rate) * eligibility + rate * change


class SpikeTrace(Eligibility):
    """`E <- exp(-h / tau_E) E + D` in every substep of h ms, and `S = E` as it stands (Izhikevich 2007; Gerstner 2018).

    What waits for a reward waits as E: a reward d steps after the acting one reaches `exp(-d T / tau_E)` of what E was
    then, with T ms a step; d = 0 is the acting step's own reward.

    Args:
        tau_eligibility: tau_E, ms.
    """

    has_trace = True
    by_substep = True

    def __init__(
        self, step_size: float = 1.0, *, tau_eligibility: Annotated[float, Field(ge=0.1, le=1e6)] = 200.0, **shared: Any
    ) -> None:
        super().__init__(step_size, **handed_on(locals()))

    def source(self, params: NamedTensors, change: Tensor, eligibility: Tensor | None) -> Tensor:
        """Return E with this step's change taken in."""
        assert eligibility is not None, "a spike trace is state"
        return self.next_trace(params, change, eligibility)

    def kept(self, params: NamedTensors, entry: Tensor, substeps: int = 1) -> Tensor:
        """Return `exp(-n h / tau_E)` of it after n substeps."""
        return torch.exp(-substeps * self.step_size / params["tau_eligibility"]).unsqueeze(-1).unsqueeze(-1) * entry

    def next_trace(self, params: NamedTensors, change: Tensor, eligibility: Tensor) -> Tensor:
        """Return E with this step's change taken in."""
        return self.kept(params, eligibility) + change


ELIGIBILITIES: Registry[type[Eligibility]] = Registry("eligibility")
ELIGIBILITIES.register("none", Eligibility)
ELIGIBILITIES.register("trace", DecayingTrace)
ELIGIBILITIES.register("spike_trace", SpikeTrace)
