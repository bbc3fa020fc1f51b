"""Backward pass of the fused `unroll` for one group of lifetimes; see `plastic_rl.networks.fused`.

Goes through the checkpoints from the last to the first. Between two of them the traces are computed again and kept,
then the steps are taken backwards. Prefix `d` marks a gradient: `d_trace` is that of the loss by the trace.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from plastic_rl.networks.fused_rule import FusedRule

Checkpoint = tuple[Tensor, Tensor | None]
"""Trace and eligibility, `(B, O, I)`, before the resets of the step that follows."""


class Resets(NamedTuple):
    """Where entries start anew before a step, `(T, B)` bool."""

    activity: Tensor
    trace: Tensor
    eligibility: Tensor

    def rows(self, rows: slice) -> Resets:
        """The same for some lifetimes."""
        return Resets(*(entry[:, rows] for entry in self))


@dataclass(frozen=True)
class Sequences:
    """What the backward pass needs of each step; all lead with `(T, B)`.

    Attributes:
        pre: `x`, `(T, B, I)`.
        post: `y`, `(T, B, O)`.
        gate: `G`, `(T, B, O)`, or None where eta is one per synapse.
        signal: `M`, `(T, B, 1)`, where the network computes the gain.
        d_post: Gradient by the features, `(T, B, O)`, or None.
        resets: Where entries start anew.
        d_total: Written: gradient by `z`, `(T, B, O)`.
        d_gate: Written: gradient by `G`, `(T, B, O)`, or None.
        d_signal: Written: gradient by the argument of M's tanh, `(T, B, 1)`, or None.
    """

    pre: Tensor
    post: Tensor
    gate: Tensor | None
    signal: Tensor | None
    d_post: Tensor | None
    resets: Resets
    d_total: Tensor
    d_gate: Tensor | None
    d_signal: Tensor | None

    def rows(self, rows: slice) -> Sequences:
        """The same for some lifetimes."""

        def cut(entry: Tensor | None) -> Tensor | None:
            return None if entry is None else entry[:, rows]

        return Sequences(
            self.pre[:, rows],
            self.post[:, rows],
            cut(self.gate),
            cut(self.signal),
            cut(self.d_post),
            self.resets.rows(rows),
            self.d_total[:, rows],
            cut(self.d_gate),
            cut(self.d_signal),
        )


class GroupBackward:
    """The backward pass over time for the lifetimes of one group, `g` of them.

    Args:
        rule: The member of the family.
        params: Parameters by name; those the rule does not have are missing.
        sequences: Of this group.
        d_trace: Gradient by the last trace, `(g, O, I)`, or None.
        d_eligibility: Gradient by the last eligibility, or None.

    Attributes:
        d_trace: After `run`: gradient by the first trace.
        d_eligibility: After `run`: gradient by the first eligibility, or None.
        d_pre: After `run`: gradient by the first activity, `(g, I)`.
        d_alpha: After `run`: gradient by alpha, summed over the group, in alpha's granularity: `(O, I)` or `(O, 1)`.
        d_eta: Likewise, what eta gets other than through `Sequences.d_gate`; None where nothing.
        d_rate: Likewise by eta_E.
    """

    def __init__(
        self,
        rule: FusedRule,
        params: Mapping[str, Tensor],
        sequences: Sequences,
        d_trace: Tensor | None,
        d_eligibility: Tensor | None,
    ) -> None:
        self.rule = rule
        self.sequences = sequences
        self.steps, group, units = sequences.post.shape
        matrix = (group, units, sequences.pre.shape[-1])
        like = sequences.post
        self.weight = params["recurrent_weight"]
        self.alpha = params["alpha"]
        self.alpha_row = self.alpha.mT if self.alpha.shape[-1] == 1 else None
        self.keep, self.rate = rule.factors(params)
        self.eta = params.get("eta")
        self.fan_out = params.get("modulator_fan_out")
        self.modulator_weight = params.get("modulator_weight")

        self.live = d_trace is not None or d_eligibility is not None
        self.d_trace = (
            like.new_zeros(matrix) if d_trace is None else d_trace.clone(memory_format=torch.contiguous_format)
        )
        self.d_eligibility: Tensor | None = None
        if rule.traced:
            given = d_eligibility
            self.d_eligibility = like.new_zeros(matrix) if given is None else given.clone()
        self.d_pre = like.new_zeros(group, matrix[-1])
        self.scratch = [like.new_empty(matrix) for _ in range(2 if self._rows_only() else 4)]

        def accumulator(gain: Tensor | None) -> Tensor | None:
            if gain is None:
                return None
            return like.new_zeros(matrix if gain.shape[-1] > 1 else (group, units))

        self.d_alpha = like.new_zeros(matrix if self.alpha_row is None else (group, units))
        self.d_eta = accumulator(self.eta if rule.decay or sequences.gate is None else None)
        self.d_rate = accumulator(self.rate)
        self.clip_edge = _just_beyond(rule.clip, like.dtype)

    def _rows_only(self) -> bool:
        """True for the commonest rules, whose gains are one per post neuron: outer products are never written out."""
        rule = self.rule
        rate_rows = self.rate is None or self.rate.shape[-1] == 1
        return not rule.soft and not rule.oja and self.sequences.gate is not None and rate_rows

    def run(self, checkpoints: Mapping[int, Checkpoint], rows: slice) -> None:
        """Go back through all steps.

        Args:
            checkpoints: Steps done to trace and eligibility then, of all lifetimes; has 0.
            rows: Which lifetimes this group is.
        """
        sequences, rule = self.sequences, self.rule
        starts = sorted(start for start in checkpoints if start < self.steps)
        longest = max(end - start for start, end in zip(starts, [*starts[1:], self.steps], strict=True))
        segment = _Segment(rule, longest, self.d_trace)
        views = _Views(sequences, self.fan_out)
        end = self.steps
        for start in reversed(starts):
            trace, eligibility = checkpoints[start]
            segment.traces[0].copy_(trace[rows])
            if eligibility is not None:
                segment.eligibilities[0].copy_(eligibility[rows])
            self._recompute(segment, views, start, end)
            for step in range(end - 1, start - 1, -1):
                self._step(segment, views, step, step - start)
            end = start

    def _recompute(self, segment: _Segment, views: _Views, start: int, end: int) -> None:
        """Fill the segment with the traces of the steps from `start` to before `end`."""
        resets = views.resets
        length = end - start
        for inner in range(length):
            step = start + inner
            trace = segment.traces[inner]
            eligibility = segment.eligibilities[inner] if self.rule.traced else None
            if resets.trace_any[step]:
                trace.masked_fill_(resets.trace[step], 0)
            if eligibility is not None and resets.eligibility_any[step]:
                eligibility.masked_fill_(resets.eligibility[step], 0)
            # What follows the last step of all is not needed where nobody asks for its gradient.
            if step == self.steps - 1 and not self.live:
                return
            self.rule.advance(
                trace,
                eligibility,
                views.pre_row[step],
                views.post_column[step],
                self._gate(views, step),
                self.keep,
                self.rate,
                segment.raws[inner],
                segment.traces[inner + 1],
                segment.eligibilities[inner + 1] if self.rule.traced else None,
                self.scratch[0],
            )

    def _gate(self, views: _Views, step: int) -> Tensor:
        if views.gate_column is not None:
            return views.gate_column[step]
        assert self.eta is not None, "without a gate for each neuron there is an eta for each synapse"
        return self.eta

    def _step(self, segment: _Segment, views: _Views, step: int, inner: int) -> None:
        """Turn the gradients after `step` into those before it."""
        trace = segment.traces[inner]
        d_post = self.d_pre if views.d_post is None else torch.add(self.d_pre, views.d_post[step])
        d_pre: Tensor | None = None
        if self.live:
            if views.d_post is None:
                d_post = d_post.clone()
            if self.rule.clip is not None:
                edge = self.clip_edge
                torch.ops.aten.hardtanh_backward.grad_input(
                    self.d_trace, segment.raws[inner], -edge, edge, grad_input=self.d_trace
                )
            eligibility = segment.eligibilities[inner] if self.rule.traced else None
            if not self._rows_only():
                d_pre = self._general(views, step, trace, eligibility, d_post)
            elif eligibility is None:
                d_pre = self._hebb(views, step, trace, d_post)
            else:
                d_pre = self._traced(views, step, trace, eligibility, d_post)
            self._modulator(views, step, d_post)
        d_total = torch.mul(d_post, views.slope[step], out=views.d_total[step])
        self._current(views, step, trace, d_total, d_pre)
        self.live = True
        self._reset(views.resets, step)

    def _hebb(self, views: _Views, step: int, trace: Tensor, d_post: Tensor) -> Tensor:
        """`A = G y xT`: gradients by G, y (added to `d_post`) and x (returned, `(g, 1, I)`)."""
        assert views.gate is not None, "rows only"
        assert views.d_gate is not None, "rows only"
        assert views.gated_post_row is not None, "rows only"
        through_pre = torch.bmm(views.pre_row[step], self.d_trace.mT).squeeze(1)
        torch.mul(through_pre, views.post[step], out=views.d_gate[step])
        d_post.addcmul_(through_pre, views.gate[step])
        d_pre = torch.bmm(views.gated_post_row[step], self.d_trace)
        self._decay(trace)
        return d_pre

    def _traced(self, views: _Views, step: int, trace: Tensor, eligibility: Tensor, d_post: Tensor) -> Tensor:
        """`A = G E`, `E' = (1 - eta_E) E + eta_E y xT`: as `_hebb`, and by E in place."""
        assert views.gate_column is not None, "rows only"
        assert views.d_gate is not None, "rows only"
        assert self.d_eligibility is not None, "a trace"
        assert self.rate is not None, "a trace"
        assert self.d_rate is not None, "a trace"
        d_eligibility, product = self.d_eligibility, self.scratch[0]
        torch.sum(torch.mul(self.d_trace, eligibility, out=product), -1, out=views.d_gate[step])
        through_pre = torch.bmm(views.pre_row[step], d_eligibility.mT).squeeze(1)
        rate_row = self.rate.squeeze(-1)
        d_post.addcmul_(through_pre, rate_row)
        d_pre = torch.bmm((rate_row * views.post[step]).unsqueeze(1), d_eligibility)
        self.d_rate.addcmul_(through_pre, views.post[step])
        self.d_rate.sub_(torch.sum(torch.mul(d_eligibility, eligibility, out=product), -1))
        d_eligibility.mul_(1 - self.rate).addcmul_(views.gate_column[step], self.d_trace)
        self._decay(trace)
        return d_pre

    def _decay(self, trace: Tensor) -> None:
        """`rho F`, `rho = 1 - eta`."""
        if self.keep is None:
            return
        assert self.d_eta is not None, "a decay has an eta"
        if self.keep.shape[-1] == 1:
            self.d_eta.sub_(torch.sum(torch.mul(self.d_trace, trace, out=self.scratch[0]), -1))
        else:
            self.d_eta.addcmul_(self.d_trace, trace, value=-1)
        self.d_trace.mul_(self.keep)

    def _general(self, views: _Views, step: int, trace: Tensor, eligibility: Tensor | None, d_post: Tensor) -> Tensor:
        """Any term, bound and granularity, with the change `D` written out."""
        rule, d_trace = self.rule, self.d_trace
        first, second, third, d_source = self.scratch
        pre_row, post_column = views.pre_row[step], views.post_column[step]
        gate = self._gate(views, step)
        source = rule.change(pre_row, post_column, trace, first) if eligibility is None else eligibility
        d_gated = d_trace
        if rule.soft:
            gated = torch.mul(source, gate, out=second)
            # A' = F + A - |A| F.
            slope = torch.mul(torch.sign(gated, out=third), trace, out=third)
            d_gated = torch.addcmul(d_trace, d_trace, slope, value=-1, out=third)
            d_trace.addcmul_(d_trace, torch.abs(gated, out=second), value=-1)
        if views.d_gate is None:
            assert self.d_eta is not None, "an eta for each synapse"
            self.d_eta.addcmul_(d_gated, source)
        else:
            torch.sum(torch.mul(d_gated, source, out=second), -1, out=views.d_gate[step])
        torch.mul(d_gated, gate, out=d_source)
        self._decay(trace)
        d_change = d_source
        if eligibility is not None:
            assert self.d_eligibility is not None, "a trace"
            assert self.rate is not None, "a trace"
            assert self.d_rate is not None, "a trace"
            taken_in = rule.change(pre_row, post_column, trace, first).sub_(eligibility)
            if self.rate.shape[-1] == 1:
                self.d_rate.add_(torch.sum(torch.mul(self.d_eligibility, taken_in, out=second), -1))
            else:
                self.d_rate.addcmul_(self.d_eligibility, taken_in)
            d_change = torch.mul(self.d_eligibility, self.rate, out=second)
            self.d_eligibility.mul_(1 - self.rate).add_(d_source)
        d_post.add_(torch.bmm(pre_row, d_change.mT).squeeze(1))
        d_pre = torch.bmm(views.post_row[step], d_change)
        if rule.oja:
            post = views.post[step]
            through_trace = torch.sum(torch.mul(d_change, trace, out=third), -1)
            d_post.addcmul_(post, through_trace, value=-2)
            d_trace.addcmul_(d_change, (post * post).unsqueeze(-1), value=-1)
        return d_pre

    def _modulator(self, views: _Views, step: int, d_post: Tensor) -> None:
        """`G = f tanh(w_m . y + b_m) + g`: gradient by y, added to `d_post`."""
        if self.modulator_weight is None:
            return
        assert views.d_gate is not None, "a modulator gates whole neurons"
        assert views.d_signal is not None, "a modulator has a signal"
        assert views.signal_slope is not None, "a modulator has a signal"
        d_signal = torch.mm(views.d_gate[step], views.fan_out_column)
        torch.mul(d_signal, views.signal_slope[step], out=views.d_signal[step])
        d_post.addmm_(views.d_signal[step], self.modulator_weight)

    def _current(self, views: _Views, step: int, trace: Tensor, d_total: Tensor, d_pre: Tensor | None) -> None:
        """`z = drive + (W0 + alpha * F) x`: gradients by x, F and alpha."""
        total_row = d_total.unsqueeze(1)
        if self.alpha_row is None:
            outer, weighted = self.scratch[0], self.scratch[1]
            torch.mul(d_total.unsqueeze(-1), views.pre_row[step], out=outer)
            self.d_alpha.addcmul_(outer, trace)
            torch.mul(trace, self.alpha, out=weighted)
            through = torch.bmm(total_row, weighted) if d_pre is None else d_pre.baddbmm_(total_row, weighted)
            self.d_trace.addcmul_(outer, self.alpha)
        else:
            plastic = torch.bmm(views.pre_row[step], trace.mT).squeeze(1)
            self.d_alpha.addcmul_(d_total, plastic)
            weighted_row = (d_total * self.alpha_row).unsqueeze(1)
            through = torch.bmm(weighted_row, trace) if d_pre is None else d_pre.baddbmm_(weighted_row, trace)
            self.d_trace.addcmul_(weighted_row.mT, views.pre_row[step])
        self.d_pre = torch.addmm(through.squeeze(1), d_total, self.weight)

    def _reset(self, resets: _ResetViews, step: int) -> None:
        """Nothing passes the start of a lifetime or trial."""
        if resets.trace_any[step]:
            self.d_trace.masked_fill_(resets.trace[step], 0)
        if self.d_eligibility is not None and resets.eligibility_any[step]:
            self.d_eligibility.masked_fill_(resets.eligibility[step], 0)
        if resets.activity_any[step]:
            self.d_pre.masked_fill_(resets.activity[step], 0)


class _Segment:
    """Memory for the steps between two checkpoints, used again for each segment."""

    def __init__(self, rule: FusedRule, length: int, like: Tensor) -> None:
        shape = (length + 1, *like.shape)
        self.traces = like.new_empty(shape).unbind(0)
        # Without a clip the trace before it is the trace: `advance` writes it once.
        self.raws = like.new_empty(length, *like.shape).unbind(0) if rule.clip is not None else self.traces[1:]
        self.eligibilities: Sequence[Tensor] = like.new_empty(shape).unbind(0) if rule.traced else ()


class _ResetViews:
    """Masks of each step, shaped to broadcast, and whether a step has any."""

    def __init__(self, resets: Resets) -> None:
        self.activity = resets.activity.unsqueeze(-1).unbind(0)
        self.trace = resets.trace[..., None, None].unbind(0)
        self.eligibility = resets.eligibility[..., None, None].unbind(0)
        self.activity_any: list[bool] = resets.activity.any(dim=1).tolist()
        self.trace_any: list[bool] = resets.trace.any(dim=1).tolist()
        self.eligibility_any: list[bool] = resets.eligibility.any(dim=1).tolist()


class _Views:
    """The sequences cut into steps once: a view made in the inner loop would cost as much as the sum it is for."""

    def __init__(self, sequences: Sequences, fan_out: Tensor | None) -> None:
        post = sequences.post.contiguous()
        pre = sequences.pre.contiguous()
        self.post = post.unbind(0)
        self.post_row = post.unsqueeze(2).unbind(0)
        self.post_column = post.unsqueeze(3).unbind(0)
        self.pre_row = pre.unsqueeze(2).unbind(0)
        self.slope = (1 - post * post).unbind(0)
        self.d_post = None if sequences.d_post is None else sequences.d_post.unbind(0)
        self.d_total = sequences.d_total.unbind(0)
        self.resets = _ResetViews(sequences.resets)
        self.gate = self.gate_column = self.gated_post_row = self.d_gate = None
        if sequences.gate is not None and sequences.d_gate is not None:
            gate = sequences.gate.contiguous()
            self.gate = gate.unbind(0)
            self.gate_column = gate.unsqueeze(3).unbind(0)
            self.gated_post_row = (gate * post).unsqueeze(2).unbind(0)
            self.d_gate = sequences.d_gate.unbind(0)
        self.signal_slope = self.d_signal = None
        if sequences.signal is not None and sequences.d_signal is not None:
            self.signal_slope = (1 - sequences.signal * sequences.signal).unbind(0)
            self.d_signal = sequences.d_signal.unbind(0)
        units = post.shape[-1]
        self.fan_out_column = post.new_ones(units, 1) if fan_out is None else fan_out.unsqueeze(-1)


def _just_beyond(clip: float | None, dtype: torch.dtype) -> float:
    """The next number after `clip`: hardtanh's gradient stops at its bounds, a clip's gradient still passes there."""
    if clip is None:
        return 0.0
    bound = torch.tensor(clip, dtype=dtype)
    return torch.nextafter(bound, torch.full_like(bound, torch.inf)).item()
