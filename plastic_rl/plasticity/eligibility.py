"""Eligibility: which past of a synapse a modulator reaches."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from plastic_rl.plasticity.gains import NamedTensors
from plastic_rl.plasticity.parts import Part
from plastic_rl.registry import Registry


class Eligibility(Part):
    """No eligibility: the modulator reaches the change of this very step, `S_t = D_t`.

    Attributes:
        has_trace: True where there is an `E`, which is state entry `eligibility` `(B, O, I)`.
    """

    has_trace: ClassVar[bool] = False

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

    def source(self, params: NamedTensors, change: Tensor, eligibility: Tensor | None) -> Tensor:
        """Return the old eligibility."""
        assert eligibility is not None, "a decaying trace is state"
        return eligibility

    def next_trace(self, params: NamedTensors, change: Tensor, eligibility: Tensor) -> Tensor:
        """Return the eligibility with this step's change taken in."""
        rate = params["eta_eligibility"].unsqueeze(-3)
        return (1 - rate) * eligibility + rate * change


ELIGIBILITIES: Registry[type[Eligibility]] = Registry("eligibility")
ELIGIBILITIES.register("none", Eligibility)
ELIGIBILITIES.register("trace", DecayingTrace)
