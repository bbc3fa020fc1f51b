"""One update of the Backpropamine family, in few passes over `(B, O, I)` and into given memory.

`FusedRule.advance` is used three times: to act without a graph, in the forward pass of the fused `unroll`, and to
recompute between its checkpoints. All three are the same sums in the same order: a trace that sits at the edge of its
clip must not come out on the other side when it is computed again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from plastic_rl.plasticity import Synapse
from plastic_rl.plasticity.bounds import hard_clip, keep_scale, soft_clip, unbounded
from plastic_rl.plasticity.eligibility import DecayingTrace, Eligibility
from plastic_rl.plasticity.modulators import Constant, FanOut, Simple, signal
from plastic_rl.plasticity.terms import Hebb, Oja


@dataclass(frozen=True)
class FusedRule:
    """Which member of the family a synapse is.

    Attributes:
        oja: Oja's term instead of Hebb's.
        modulated: The network computes the gain; else it is eta.
        fan_out: The gain is one per post neuron.
        traced: The gain gates an eligibility trace.
        decay: The trace decays by 1 - eta.
        clip: Bound of the trace, or None.
        soft: Changes shrink towards the bound.
    """

    oja: bool
    modulated: bool
    fan_out: bool
    traced: bool
    decay: bool
    clip: float | None
    soft: bool

    @classmethod
    def of(cls, synapse: Synapse) -> Self | None:
        """The member that `synapse` is, or None where it has a part that is not of the family."""
        # Exact types: a user's part registered under a built-in's name must not be mistaken for it.
        term, modulator, eligibility = type(synapse.term), type(synapse.modulator), type(synapse.eligibility)
        soft = synapse.bound is soft_clip
        supported = (
            synapse.is_bare
            and not synapse.non_plastic
            and term in {Hebb, Oja}
            and modulator in {Constant, Simple, FanOut}
            and eligibility in {Eligibility, DecayingTrace}
            and synapse.bound in {unbounded, hard_clip, soft_clip}
            and synapse.normalise is keep_scale
            and not (soft and synapse.config.decay)
        )
        if not supported:
            return None
        clip = None if synapse.bound is unbounded else synapse.config.clip
        return cls(
            oja=term is Oja,
            modulated=modulator is not Constant,
            fan_out=modulator is FanOut,
            traced=eligibility is DecayingTrace,
            decay=synapse.config.decay,
            clip=1.0 if soft else clip,
            soft=soft,
        )

    def signal(self, params: Mapping[str, Tensor], post: Tensor) -> Tensor | None:
        """The modulator's `M`, `(.., B, 1)`, of `post` `(.., B, O)`; None where the rule has none."""
        return signal(params, post) if self.modulated else None

    def gate(self, params: Mapping[str, Tensor], post: Tensor, signal: Tensor | None) -> Tensor:
        """The gain `G` of each synapse.

        Args:
            params: The network's parameters.
            post: `y`, `(.., B, O)`.
            signal: `M`, `(.., B, 1)`, where `modulated`.

        Returns:
            `(.., B, O, 1)`, or `(.., 1, O, I)` where eta is one per synapse.
        """
        if signal is None:
            eta = params["eta"].unsqueeze(-3)
            return eta if eta.shape[-1] > 1 else eta.expand(*post.shape, 1)
        if self.fan_out:
            fan_out = params["modulator_fan_out"].unsqueeze(-2)
            return (params["modulator_offset"].unsqueeze(-2) + fan_out * signal).unsqueeze(-1)
        return signal.expand_as(post).unsqueeze(-1)

    def change(self, pre: Tensor, post: Tensor, trace: Tensor, out: Tensor) -> Tensor:
        """Write the term `D` into `out`; `pre` is `(.., B, 1, I)`, `post` `(.., B, O, 1)`."""
        if not self.oja:
            return torch.mul(post, pre, out=out)
        torch.mul(post, trace, out=out)
        torch.sub(pre, out, out=out)
        return out.mul_(post)

    def advance(
        self,
        trace: Tensor,
        eligibility: Tensor | None,
        pre: Tensor,
        post: Tensor,
        gate: Tensor,
        keep: Tensor | None,
        rate: Tensor | None,
        kept_eligibility: Tensor | None,
        out: Tensor,
        eligibility_out: Tensor | None,
        scratch: Tensor | None,
        gated_post: Tensor | None = None,
    ) -> None:
        """Write `F_{t+1}`, before its clip, and `E_{t+1}` into the given outputs.

        Args:
            trace: `F_t`, `(.., B, O, I)`.
            eligibility: `E_t`, likewise, where `traced`.
            pre: `x`, `(.., B, 1, I)`.
            post: `y`, `(.., B, O, 1)`.
            gate: `G`, as `gate` returns it.
            keep: `rho = 1 - eta`, broadcastable, where the trace decays.
            rate: `eta_E`, broadcastable, where `traced`.
            kept_eligibility: `1 - eta_E`, likewise.
            out: Gets the trace, which `clipped` then bounds; not `trace`.
            eligibility_out: Gets `E_{t+1}`, where `traced`; not `eligibility`.
            scratch: `(.., B, O, I)`, overwritten; see `needs_scratch`.
            gated_post: `G y`, `(.., B, O, 1)`, if it is known already.
        """
        rows = gate.shape[-1] == 1
        if self.soft:
            assert scratch is not None, "a soft clip needs scratch memory"
            source = eligibility if eligibility is not None else self.change(pre, post, trace, scratch)
            gated = torch.mul(source, gate, out=scratch)
            # F + A - |A| F, where A is the gated change.
            torch.abs(gated, out=out)
            out.mul_(trace)
            torch.sub(trace, out, out=out)
            out.add_(gated)
        else:
            kept = trace if keep is None else torch.mul(trace, keep, out=out)
            if eligibility is not None:
                torch.addcmul(kept, gate, eligibility, out=out)
            elif rows and not self.oja:
                torch.addcmul(kept, gate * post if gated_post is None else gated_post, pre, out=out)
            else:
                assert scratch is not None, "this rule needs scratch memory"
                torch.addcmul(kept, gate, self.change(pre, post, trace, scratch), out=out)
        if eligibility is not None:
            assert rate is not None, "an eligibility trace has a rate"
            assert kept_eligibility is not None, "an eligibility trace has a rate"
            assert eligibility_out is not None, "an eligibility trace has somewhere to go"
            torch.mul(eligibility, kept_eligibility, out=eligibility_out)
            if rate.shape[-1] == 1 and not self.oja:
                eligibility_out.addcmul_(rate * post, pre)
            else:
                assert scratch is not None, "this rule needs scratch memory"
                eligibility_out.addcmul_(rate, self.change(pre, post, trace, scratch))

    def clipped(self, raw: Tensor, out: Tensor) -> Tensor:
        """The trace, given what `advance` wrote: written to `out`, which may be `raw`; `raw` itself without a clip."""
        return raw if self.clip is None else torch.clamp(raw, -self.clip, self.clip, out=out)

    def needs_scratch(self, gate_columns: int, rate_columns: int) -> bool:
        """Whether `advance` needs scratch memory, given the last axis of the gate and of eta_E (1 where none)."""
        return self.soft or self.oja or rate_columns > 1 or (gate_columns > 1 and not self.traced)

    def update(
        self, params: Mapping[str, Tensor], pre: Tensor, post: Tensor, state: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """`Synapse.update` without a graph: the same arguments and results, in fewer passes over memory."""
        trace, eligibility = state["trace"], state.get("eligibility")
        gate = self.gate(params, post, self.signal(params, post))
        keep, rate = self.factors(params)
        following = torch.empty_like(trace)
        following_eligibility = None if eligibility is None else torch.empty_like(eligibility)
        scratch = None
        if self.needs_scratch(gate.shape[-1], 1 if rate is None else rate.shape[-1]):
            scratch = torch.empty_like(trace)
        self.advance(
            trace,
            eligibility,
            pre.unsqueeze(-2),
            post.unsqueeze(-1),
            gate,
            keep,
            rate,
            None if rate is None else 1 - rate,
            following,
            following_eligibility,
            scratch,
        )
        self.clipped(following, following)
        if following_eligibility is None:
            return {"trace": following}
        return {"trace": following, "eligibility": following_eligibility}

    def factors(self, params: Mapping[str, Tensor]) -> tuple[Tensor | None, Tensor | None]:
        """`rho` and `eta_E`, each `(.., 1, O or 1, I or 1)` or None where the rule has none."""
        keep = 1 - params["eta"].unsqueeze(-3) if self.decay else None
        rate = params["eta_eligibility"].unsqueeze(-3) if self.traced else None
        return keep, rate
