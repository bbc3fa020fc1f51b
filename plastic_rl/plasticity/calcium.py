"""Calcium-based plasticity (Graupner & Brunel 2012, doi 10.1073/pnas.1109359109, eq. 1 less its cubic and noise terms).

Calcium is the sum of a presynaptic and a postsynaptic part, so that one number for each unit is state. Within a step of
h ms it jumps at the start, where the postsynaptic spikes are, and once more where the delayed presynaptic ones arrive;
between jumps it decays, and the time that it spends above a threshold has a closed form.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Annotated, Any, NamedTuple

import torch
from pydantic import Field
from torch import Tensor

from plastic_rl.config.signatures import handed_on
from plastic_rl.plasticity.bounds import TINY
from plastic_rl.plasticity.gains import NamedTensors
from plastic_rl.plasticity.parts import Curves, Setting, StateEntry, momentary
from plastic_rl.plasticity.terms import LAG_LABEL, Term, pair_window


class Decay(NamedTuple):
    """A stretch of time in which calcium only decays: how long, ms, and calcium of both sides as it begins."""

    length: float
    pre: Tensor
    post: Tensor


class Calcium(Term):
    """`tau D = gamma_p (1 - F) T[c > theta_p] - gamma_d F T[c > theta_d]`, T the time above (Graupner & Brunel 2012).

    Calcium c jumps by `c_pre` some time after a presynaptic spike and by `c_post` at a postsynaptic one, and decays.
    Above theta_d the synapse is depressed, above theta_p it is potentiated. The defaults are the paper's set DP:
    depression where the postsynaptic spike of a pair comes first, potentiation where the presynaptic one does.

    Args:
        c_pre: Jump of calcium by a presynaptic spike.
        c_post: Jump by a postsynaptic spike.
        tau_calcium: Time constant of its decay, ms.
        theta_p: Threshold of potentiation.
        theta_d: Threshold of depression.
        gamma_p: Rate of potentiation, in units of 1 / tau_weight.
        gamma_d: Rate of depression.
        tau_weight: tau, time constant of the synapse, ms.
        delay: From a presynaptic spike to its calcium, ms.
    """

    def __init__(
        self,
        step_size: float = 1.0,
        *,
        c_pre: Annotated[float, Field(ge=0)] = 1.0,
        c_post: Annotated[float, Field(ge=0)] = 2.0,
        tau_calcium: Annotated[float, Field(ge=0.1, le=1e6)] = 20.0,
        theta_p: Annotated[float, Field(ge=1e-3)] = 1.3,
        theta_d: Annotated[float, Field(ge=1e-3)] = 1.0,
        gamma_p: Annotated[float, Field(ge=0)] = 321.808,
        gamma_d: Annotated[float, Field(ge=0)] = 200.0,
        tau_weight: Annotated[float, Field(ge=0.1, le=1e9)] = 150_000.0,
        delay: Annotated[float, Field(ge=0, le=1000), Setting] = 13.7,
        **shared: Any,
    ) -> None:
        super().__init__(step_size, **handed_on(locals()))
        steps = self.options.delay / step_size
        whole = round(steps) if abs(steps - round(steps)) < 1e-9 else int(steps)
        self.delay_steps = whole
        self.delay_rest = max(0.0, self.options.delay - whole * step_size)

    def state_entries(self, post_size: int, pre_size: int) -> dict[str, StateEntry]:
        """`presynaptic_calcium` `(I,)`; `postsynaptic_calcium` `(O,)`; where delayed, `delayed_spikes`."""
        entries = {"presynaptic_calcium": StateEntry((pre_size,)), "postsynaptic_calcium": StateEntry((post_size,))}
        if self.delay_steps:
            entries["delayed_spikes"] = StateEntry((self.delay_steps, pre_size))
        return momentary(entries)

    def change(self, params: NamedTensors, pre: Tensor, post: Tensor, trace: Tensor, state: NamedTensors) -> Tensor:
        """Return what the times above both thresholds do, with F as it is before the step."""
        decays = [
            (length, (of_post.unsqueeze(-1) + of_pre.unsqueeze(-2)).clamp_min(TINY).log())
            for length, of_pre, of_post in self._decays(params, pre, post, state)
        ]
        raised = _matrix(params, "gamma_p") * (1 - trace) * _time_above(params, "theta_p", decays)
        lowered = _matrix(params, "gamma_d") * trace * _time_above(params, "theta_d", decays)
        return (raised - lowered) / _matrix(params, "tau_weight")

    def next_state(
        self, params: NamedTensors, pre: Tensor, post: Tensor, trace: Tensor, state: NamedTensors
    ) -> dict[str, Tensor]:
        """Return calcium at the end of the step, and the spikes still on their way."""
        *_, last = self._decays(params, pre, post, state)
        kept = self._kept(params, last.length)
        following = {"presynaptic_calcium": kept * last.pre, "postsynaptic_calcium": kept * last.post}
        if self.delay_steps:
            waiting = state["delayed_spikes"]
            following["delayed_spikes"] = torch.cat([waiting[..., 1:, :], pre.unsqueeze(-2)], -2)
        return following

    def curves(self) -> Curves:
        """See `Part.curves`: the window of pairs of spikes, for some F."""
        lags, term = torch.arange(-100.0, 101.0), type(self)(**self.options.model_dump())
        tail = self.options.delay + 10 * self.options.tau_calcium
        lines = {f"F {trace:g}": pair_window(term, lags, trace, tail) for trace in (0.0, 0.5, 1.0)}
        return Curves(LAG_LABEL, "change", lags, lines)

    def _decays(self, params: NamedTensors, pre: Tensor, post: Tensor, state: NamedTensors) -> Iterator[Decay]:
        """The stretches of the step: up to where presynaptic spikes arrive, if not at its start, and from there."""
        arriving = state["delayed_spikes"][..., 0, :] if self.delay_steps else pre
        of_pre = state["presynaptic_calcium"]
        of_post = state["postsynaptic_calcium"] + params["c_post"].unsqueeze(-2) * post
        if self.delay_rest:
            yield Decay(self.delay_rest, of_pre, of_post)
            kept = self._kept(params, self.delay_rest)
            of_pre, of_post = kept * of_pre, kept * of_post
        yield Decay(self.step_size - self.delay_rest, of_pre + params["c_pre"].unsqueeze(-2) * arriving, of_post)

    @staticmethod
    def _kept(params: NamedTensors, time: float) -> Tensor:
        return torch.exp(-time / params["tau_calcium"]).unsqueeze(-2)


def _time_above(params: NamedTensors, threshold: str, decays: Iterable[tuple[float, Tensor]]) -> Tensor:
    """How long calcium is above a threshold, `(.., B, O, I)`, ms, given ln c as each stretch begins and its length."""
    tau, theta, total = _matrix(params, "tau_calcium"), _matrix(params, threshold).log(), torch.zeros(())
    for length, calcium in decays:
        # c exp(-t / tau) meets theta at t = tau ln(c / theta).
        total = total + (tau * (calcium - theta)).clamp(0.0, length)
    return total


def _matrix(params: NamedTensors, name: str) -> Tensor:
    """A number, so that it broadcasts against `(.., B, O, I)`."""
    return params[name].unsqueeze(-1).unsqueeze(-1)
