"""Spike-timing-dependent plasticity by traces of spikes, one decaying number for each unit.

Sources: Bi & Poo 1998; Gerstner et al. 1996; Morrison, Diesmann & Gerstner 2008 (doi 10.1007/s00422-008-0233-1, traces
and pairings). Order within a step of h ms: traces decay; the presynaptic spikes arrive, `- A- o`, then raise r; units
step; the postsynaptic spikes come, `+ A+ r`, then raise o. So a spike and what it triggers, Delta = 0, gives `+ A+`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor

from plastic_rl.config.signatures import handed_on
from plastic_rl.plasticity.gains import NamedTensors
from plastic_rl.plasticity.parts import StateEntry
from plastic_rl.plasticity.terms import Term

Pairing = Literal["all", "nearest"]
Centring = Literal["none", "pre", "both"]


class PairTraces(NamedTuple):
    """Traces of one step: r after this step's presynaptic spikes, o before its postsynaptic ones."""

    r: Tensor
    o: Tensor


class PairSTDP(Term):
    """Pair-based STDP: `D = A+ y r - A- o x`, r and o traces of the spikes x and y (Gerstner et al. 1996).

    A pair of spikes Delta = t_post - t_pre apart changes the synapse by `A+ exp(-Delta / tau+)` for Delta >= 0 and by
    `- A- exp(Delta / tau-)` for Delta < 0.

    Args:
        a_plus: A+, change by a presynaptic spike and then a postsynaptic one.
        a_minus: A-, by the other order; negative amplitudes turn the rule round (anti-Hebbian).
        tau_plus: Time constant of the presynaptic trace r, ms.
        tau_minus: Time constant of the postsynaptic trace o, ms.
        pairing: all: each spike raises its trace by 1, and pairs with all before; nearest: it sets it to 1.
        centred: Whether the layer's mean is taken away from spikes and traces of the presynaptic side, or of both: the
            covariance form, for units whose output is never negative.
    """

    def __init__(
        self,
        step_size: float = 1.0,
        *,
        a_plus: float = 1.0,
        a_minus: float = 1.0,
        tau_plus: Annotated[float, Field(ge=0.1, le=1e6)] = 20.0,
        tau_minus: Annotated[float, Field(ge=0.1, le=1e6)] = 20.0,
        pairing: Pairing = "all",
        centred: Centring = "none",
        **shared: Any,
    ) -> None:
        super().__init__(step_size, **handed_on(locals()))

    def state_entries(self, post_size: int, pre_size: int) -> dict[str, StateEntry]:
        """`presynaptic_trace` r, `(I,)`; `postsynaptic_trace` o, `(O,)`."""
        return {"presynaptic_trace": StateEntry((pre_size,)), "postsynaptic_trace": StateEntry((post_size,))}

    def change(self, params: NamedTensors, pre: Tensor, post: Tensor, trace: Tensor, state: NamedTensors) -> Tensor:
        """Return `A+ y r - A- o x`."""
        left, right = self.factors(params, pre, post, state)
        return left.mT @ right

    def factors(self, params: NamedTensors, pre: Tensor, post: Tensor, state: NamedTensors) -> tuple[Tensor, Tensor]:
        """See `Term.factors`: `(A+ y, - A- o)` and `(r, x)`."""
        traces = self._traces(params, pre, state)
        o, y, r, x = traces.o, post, traces.r, pre
        if self.options.centred != "none":
            r, x = _centred(r), _centred(x)
        if self.options.centred == "both":
            o, y = _centred(o), _centred(y)
        a_plus, a_minus = (params[name].unsqueeze(-2) for name in ("a_plus", "a_minus"))
        return torch.stack([a_plus * y, -a_minus * o], -2), torch.stack([r, x], -2)

    def next_state(
        self, params: NamedTensors, pre: Tensor, post: Tensor, trace: Tensor, state: NamedTensors
    ) -> dict[str, Tensor]:
        """Return the traces after this step's spikes."""
        traces = self._traces(params, pre, state)
        return {"presynaptic_trace": traces.r, "postsynaptic_trace": self._raised(traces.o, post)}

    def _traces(self, params: NamedTensors, pre: Tensor, state: NamedTensors) -> PairTraces:
        kept = {end: torch.exp(-self.step_size / params[f"tau_{end}"]).unsqueeze(-2) for end in ("plus", "minus")}
        r = self._raised(kept["plus"] * state["presynaptic_trace"], pre)
        return PairTraces(r, kept["minus"] * state["postsynaptic_trace"])

    def _raised(self, trace: Tensor, spikes: Tensor) -> Tensor:
        return trace + spikes if self.options.pairing == "all" else trace + spikes * (1 - trace)


def _centred(values: Tensor) -> Tensor:
    return values - values.mean(-1, keepdim=True)
