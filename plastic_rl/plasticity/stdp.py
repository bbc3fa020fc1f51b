"""Spike-timing-dependent plasticity by traces of spikes, one decaying number for each unit.

Sources: Bi & Poo 1998; Gerstner et al. 1996; Morrison, Diesmann & Gerstner 2008 (doi 10.1007/s00422-008-0233-1, traces
and pairings); Pfister & Gerstner 2006; Vogels et al. 2011. Order within a step of h ms: traces decay; the presynaptic
spikes arrive, `- A- o`, then raise r; units step; the postsynaptic spikes come, `+ A+ r`, then raise o. So a spike and
what it triggers, Delta = 0, gives `+ A+`.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Annotated, Any, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor

from plastic_rl.config.signatures import handed_on
from plastic_rl.plasticity.gains import NamedTensors
from plastic_rl.plasticity.parts import Curves, StateEntry, momentary
from plastic_rl.plasticity.terms import LAG_LABEL, Term, pair_window

Pairing = Literal["all", "nearest"]
Centring = Literal["none", "pre", "both"]
MS_PER_SECOND = 1000.0


class PairTraces(NamedTuple):
    """Traces of one step: r after this step's presynaptic spikes, o before its postsynaptic ones."""

    r: Tensor
    o: Tensor


class SpikePairs(Term):
    """A term of the traces r and o of spikes, whose change is the sum of the outer products of its factors."""

    def state_entries(self, post_size: int, pre_size: int) -> dict[str, StateEntry]:
        """`presynaptic_trace` r, `(I,)`; `postsynaptic_trace` o, `(O,)`."""
        return momentary({"presynaptic_trace": StateEntry((pre_size,)), "postsynaptic_trace": StateEntry((post_size,))})

    def change(self, params: NamedTensors, pre: Tensor, post: Tensor, trace: Tensor, state: NamedTensors) -> Tensor:
        """Return the sum of the outer products of `factors`."""
        left, right = self.factors(params, pre, post, state)
        return left.mT @ right

    @abstractmethod
    def factors(self, params: NamedTensors, pre: Tensor, post: Tensor, state: NamedTensors) -> tuple[Tensor, Tensor]:
        """See `Term.factors`."""


class PairSTDP(SpikePairs):
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

    def factors(self, params: NamedTensors, pre: Tensor, post: Tensor, state: NamedTensors) -> tuple[Tensor, Tensor]:
        """See `Term.factors`: `(A+ y, - A- o)` and `(r, x)`."""
        traces = self._traces(params, pre, state)
        o, y, r, x = traces.o, post, traces.r, pre
        r, x = self._centred("pre", r, x)
        o, y = self._centred("post", o, y)
        a_plus, a_minus = (params[name].unsqueeze(-2) for name in ("a_plus", "a_minus"))
        return torch.stack([a_plus * y, -a_minus * o], -2), torch.stack([r, x], -2)

    def next_state(
        self, params: NamedTensors, pre: Tensor, post: Tensor, trace: Tensor, state: NamedTensors
    ) -> dict[str, Tensor]:
        """Return the traces after this step's spikes."""
        traces = self._traces(params, pre, state)
        return {"presynaptic_trace": traces.r, "postsynaptic_trace": self._raised(traces.o, post)}

    def curves(self) -> Curves:
        """See `Part.curves`: the window of pairs of spikes."""
        lags = torch.arange(-100.0, 101.0)
        # Of a single pair of units the mean would take all away.
        alone = type(self)(**self.options.model_dump() | {"centred": "none"})
        return Curves(LAG_LABEL, "change", lags, {"": pair_window(alone, lags)})

    def _traces(self, params: NamedTensors, pre: Tensor, state: NamedTensors) -> PairTraces:
        kept = {end: torch.exp(-self.step_size / params[f"tau_{end}"]).unsqueeze(-2) for end in ("plus", "minus")}
        r = self._raised(kept["plus"] * state["presynaptic_trace"], pre)
        return PairTraces(r, kept["minus"] * state["postsynaptic_trace"])

    def _raised(self, trace: Tensor, spikes: Tensor) -> Tensor:
        return trace + spikes if self.options.pairing == "all" else trace + spikes * (1 - trace)

    def _centred(self, side: Literal["pre", "post"], *values: Tensor) -> tuple[Tensor, ...]:
        if self.options.centred in {"both", side}:
            return tuple(one - one.mean(-1, keepdim=True) for one in values)
        return values


class OneStepSTDP(SpikePairs):
    """STDP of neighbouring steps: `D = A+ y(t) x(t-1) - A- y(t-1) x(t)` (Lazar, Pipa & Triesch 2009).

    x and y are what the units put out in the same step, also in recurrent synapses, so that spikes of one step do
    nothing to each other, and the change of a pair with equal amplitudes turns its sign with their order. The traces
    are the spikes of the step before (doi 10.3389/neuro.10.023.2009, without the learning rate, which is eta).

    Args:
        a_plus: A+, change where the presynaptic spike came a step before the postsynaptic one.
        a_minus: A-, where it came a step after.
    """

    sees_emission = True

    def __init__(self, step_size: float = 1.0, *, a_plus: float = 1.0, a_minus: float = 1.0, **shared: Any) -> None:
        super().__init__(step_size, **handed_on(locals()))

    def factors(self, params: NamedTensors, pre: Tensor, post: Tensor, state: NamedTensors) -> tuple[Tensor, Tensor]:
        """See `Term.factors`: `(A+ y(t), - A- y(t-1))` and `(x(t-1), x(t))`."""
        a_plus, a_minus = (params[name].unsqueeze(-2) for name in ("a_plus", "a_minus"))
        left = torch.stack([a_plus * post, -a_minus * state["postsynaptic_trace"]], -2)
        return left, torch.stack([state["presynaptic_trace"], pre], -2)

    def next_state(
        self, params: NamedTensors, pre: Tensor, post: Tensor, trace: Tensor, state: NamedTensors
    ) -> dict[str, Tensor]:
        """Return this step's spikes."""
        # In recurrent synapses both sides may be one tensor; entries that share memory could not be stored.
        return {"presynaptic_trace": pre.clone(), "postsynaptic_trace": post.clone()}

    def curves(self) -> Curves:
        """See `Part.curves`: the window of pairs of spikes."""
        lags = self.step_size * torch.linspace(-3, 3, 1201)  # each of the nearest step
        return Curves(LAG_LABEL, "change", lags, {"": pair_window(type(self)(**self.options.model_dump()), lags)})


class TripletSTDP(PairSTDP):
    """Triplet STDP: `D = y r1 (A2+ + A3+ o2) - o1 x (A2- + A3- r2)` (Pfister & Gerstner 2006, eq. 3-4).

    Beside the traces r1 and o1 of pairs, slow ones r2 and o2, read before their own spike raises them. The defaults are
    the paper's minimal all-to-all set for visual cortex (doi 10.1523/JNEUROSCI.1425-06.2006): potentiation by
    post-pre-post triplets, depression by pairs. With Poisson spikes that is a BCM rule: the synapse is depressed
    below a postsynaptic rate of `A2- tau- / (A3+ tau+ tau_y)`, 19.2 Hz, and potentiated above.

    Args:
        a_plus: A2+, change by a pair, the presynaptic spike first.
        a_minus: A2-, by a pair in the other order.
        a3_plus: A3+, added to A2+ for each postsynaptic spike before, as far as o2 remembers it.
        a3_minus: A3-, added to A2- for each presynaptic spike before, as far as r2 remembers it.
        tau_x: Time constant of r2, ms.
        tau_y: Time constant of o2, ms.
    """

    def __init__(
        self,
        step_size: float = 1.0,
        *,
        a_plus: float = 0.0,
        a_minus: float = 7.1e-3,
        a3_plus: float = 6.5e-3,
        a3_minus: float = 0.0,
        tau_plus: Annotated[float, Field(ge=0.1, le=1e6)] = 16.8,
        tau_minus: Annotated[float, Field(ge=0.1, le=1e6)] = 33.7,
        tau_x: Annotated[float, Field(ge=0.1, le=1e6)] = 101.0,
        tau_y: Annotated[float, Field(ge=0.1, le=1e6)] = 114.0,
        **shared: Any,
    ) -> None:
        super().__init__(step_size, **handed_on(locals()))

    def state_entries(self, post_size: int, pre_size: int) -> dict[str, StateEntry]:
        """Those of pairs, and `slow_presynaptic_trace` r2, `(I,)`, `slow_postsynaptic_trace` o2, `(O,)`."""
        return super().state_entries(post_size, pre_size) | {
            "slow_presynaptic_trace": StateEntry((pre_size,), momentary=True),
            "slow_postsynaptic_trace": StateEntry((post_size,), momentary=True),
        }

    def factors(self, params: NamedTensors, pre: Tensor, post: Tensor, state: NamedTensors) -> tuple[Tensor, Tensor]:
        """See `Term.factors`: `(y (A2+ + A3+ o2), - o1)` and `(r1, x (A2- + A3- r2))`."""
        traces, slow = self._traces(params, pre, state), self._slow(params, state)
        of_pair = (params[name].unsqueeze(-2) for name in ("a_plus", "a_minus"))
        of_triplet = (params[name].unsqueeze(-2) for name in ("a3_plus", "a3_minus"))
        potentiating, depressing = (
            pair + triplet * trace for pair, triplet, trace in zip(of_pair, of_triplet, (slow.o, slow.r), strict=True)
        )
        y, o = self._centred("post", post * potentiating, traces.o)
        r, x = self._centred("pre", traces.r, pre * depressing)
        return torch.stack([y, -o], -2), torch.stack([r, x], -2)

    def next_state(
        self, params: NamedTensors, pre: Tensor, post: Tensor, trace: Tensor, state: NamedTensors
    ) -> dict[str, Tensor]:
        """Return the traces after this step's spikes."""
        slow = self._slow(params, state)
        return super().next_state(params, pre, post, trace, state) | {
            "slow_presynaptic_trace": self._raised(slow.r, pre),
            "slow_postsynaptic_trace": self._raised(slow.o, post),
        }

    def curves(self) -> Curves:
        """See `Part.curves`: the mean change by a presynaptic spike, against the rate of postsynaptic ones.

        With spikes of independent Poisson processes y, r1 and the o2 before y are independent, so that steady traces
        give the mean.
        """
        rates, params = torch.linspace(0, 50, 101), {name: one.value for name, one in self.numbers().items()}
        fine = type(self)(0.1, **self.options.model_dump() | {"centred": "none"})
        pre, post = torch.full((101, 1), 1e-6), rates.unsqueeze(-1) * fine.step_size / MS_PER_SECOND
        taus = {"presynaptic_trace": "plus", "postsynaptic_trace": "minus"}
        taus |= {"slow_presynaptic_trace": "x", "slow_postsynaptic_trace": "y"}
        state = {
            name: (post if "post" in name else pre) / -torch.expm1(-fine.step_size / params[f"tau_{tau}"])
            for name, tau in taus.items()
        }
        change = fine.change(params, pre, post, torch.zeros(101, 1, 1), state).flatten() / pre.flatten()
        return Curves("rate of postsynaptic spikes, Hz", "mean change by a presynaptic spike", rates, {"": change})

    def _slow(self, params: NamedTensors, state: NamedTensors) -> PairTraces:
        """The slow traces before this step's spikes."""
        kept = {unit: torch.exp(-self.step_size / params[f"tau_{unit}"]).unsqueeze(-2) for unit in ("x", "y")}
        return PairTraces(kept["x"] * state["slow_presynaptic_trace"], kept["y"] * state["slow_postsynaptic_trace"])


class InhibitorySTDP(SpikePairs):
    """Inhibitory STDP: `D = y r + x (o - 2 rho tau)`, which holds the post unit's rate at rho (Vogels et al. 2011).

    A symmetric window of near-coincident spikes strengthens an inhibitory synapse, and every presynaptic spike weakens
    it by a constant (doi 10.1126/science.1211095, without the learning rate, which is eta). The trace is how strong the
    inhibition is: bound it by `non_negative`, and let a gain alpha below 0 give it its sign.

    Args:
        target_rate: rho, Hz.
        tau: Time constant of both traces, ms.
    """

    def __init__(
        self,
        step_size: float = 1.0,
        *,
        target_rate: Annotated[float, Field(ge=0)] = 5.0,
        tau: Annotated[float, Field(ge=0.1, le=1e6)] = 20.0,
        **shared: Any,
    ) -> None:
        super().__init__(step_size, **handed_on(locals()))

    def factors(self, params: NamedTensors, pre: Tensor, post: Tensor, state: NamedTensors) -> tuple[Tensor, Tensor]:
        """See `Term.factors`: `(y, o - 2 rho tau)` and `(r, x)`."""
        traces = self._traces(params, pre, state)
        expected = 2 * params["target_rate"] / MS_PER_SECOND * params["tau"]
        return torch.stack([post, traces.o - expected.unsqueeze(-2)], -2), torch.stack([traces.r, pre], -2)

    def next_state(
        self, params: NamedTensors, pre: Tensor, post: Tensor, trace: Tensor, state: NamedTensors
    ) -> dict[str, Tensor]:
        """Return the traces after this step's spikes."""
        traces = self._traces(params, pre, state)
        return {"presynaptic_trace": traces.r, "postsynaptic_trace": traces.o + post}

    def curves(self) -> Curves:
        """See `Part.curves`: the window of pairs of spikes."""
        lags = torch.arange(-100.0, 101.0)
        return Curves(LAG_LABEL, "change", lags, {"": pair_window(type(self)(**self.options.model_dump()), lags)})

    def _traces(self, params: NamedTensors, pre: Tensor, state: NamedTensors) -> PairTraces:
        kept = torch.exp(-self.step_size / params["tau"]).unsqueeze(-2)
        return PairTraces(kept * state["presynaptic_trace"] + pre, kept * state["postsynaptic_trace"])
