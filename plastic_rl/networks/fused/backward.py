"""Backward pass of the fused `unroll` for one group of lifetimes; see `plastic_rl.networks.fused`.

Goes through the checkpoints from the last to the first. Between two of them the traces are computed again and kept,
then the steps are taken backwards. Prefix `d` marks a gradient: `d_trace` is that of the loss by the trace.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from plastic_rl.networks.fused.rule import FusedRule
from plastic_rl.networks.fused.sequences import Checkpoint, ResetViews, Segment, Sequences, Views

# Called as often as the sums around it: looking it up each time would cost a third of it.
_HARDTANH_BACKWARD = torch.ops.aten.hardtanh_backward.grad_input


class _Eligibility:
    """Eligibility's side of the backward pass.

    Attributes:
        rate: `eta_E`, `(1, O or 1, I or 1)`.
        rate_row: The same as `(1, O or 1)`, where it is not one per synapse.
        kept: `1 - eta_E`.
        gradient: By E, `(g, O, I)`.
        transposed: A view of `gradient`, `(g, I, O)`.
        d_rate: By eta_E, for each lifetime: `(g, O)` or `(g, O, I)`; without what `products` holds.
        products: Sum over steps of `-gradient * E`, `(g, O, I)`: summed over synapses only once, at the end.
    """

    def __init__(self, rate: Tensor, gradient: Tensor | None, matrix: tuple[int, int, int]) -> None:
        self.rate = rate
        self.rate_row = rate[..., 0]
        self.kept = 1 - rate
        self.gradient = rate.new_zeros(matrix) if gradient is None else gradient.clone()
        self.transposed = self.gradient.mT
        self.d_rate = rate.new_zeros(matrix if rate.shape[-1] > 1 else matrix[:2])
        self.products = rate.new_zeros(matrix)


class GroupBackward:
    """The backward pass over time for the lifetimes of one group, `g` of them.

    Args:
        rule: The member of the family.
        params: Parameters by name; those the rule does not have are missing.
        sequences: Of this group.
        d_trace: Gradient by the last trace, `(g, O, I)`, or None.
        d_eligibility: Gradient by the last eligibility, or None.
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
        self.params = params
        self.gradients: dict[str, Tensor] = {}
        self.steps, group, units = sequences.post.shape
        matrix = (group, units, units)
        like = sequences.post
        self.weight = params["recurrent_weight"]
        self.alpha = params["alpha"]
        self.alpha_row = self.alpha.mT if self.alpha.shape[-1] == 1 else None
        self.keep, self.rate = rule.factors(params)
        self.eta = params.get("eta")
        self.modulator_weight = params.get("modulator_weight")

        self.live = d_trace is not None or d_eligibility is not None
        self.d_trace = (
            like.new_zeros(matrix) if d_trace is None else d_trace.clone(memory_format=torch.contiguous_format)
        )
        self.eligibility = None if self.rate is None else _Eligibility(self.rate, d_eligibility, matrix)
        # Views of the same memory, made once.
        self.d_trace_transposed = self.d_trace.mT
        self.d_pre_row = like.new_zeros(group, 1, matrix[-1])
        self.d_pre = self.d_pre_row.squeeze(1)
        self.d_post = like.new_empty(group, units)
        self._through_row = like.new_empty(group, 1, units)
        self._through = self._through_row.squeeze(1)
        # Else eta is one for each synapse.
        self.gate_rows = rule.modulated or params["eta"].shape[-1] == 1
        rate_rows = self.rate is None or self.rate.shape[-1] == 1
        # The commonest rules, whose gains are one per post neuron: outer products are never written out.
        self.rows_only = not rule.soft and not rule.oja and self.gate_rows and rate_rows
        self.scratch = [like.new_empty(matrix) for _ in range(2 if self.rows_only else 4)]

        self.d_alpha = like.new_zeros(matrix if self.alpha_row is None else (group, units))
        self.d_eta: Tensor | None = None
        if self.eta is not None and (rule.decay or not self.gate_rows):
            self.d_eta = like.new_zeros(matrix if self.eta.shape[-1] > 1 else (group, units))
        self.clip_edge = _just_beyond(rule.clip, like.dtype)

    def run(self, checkpoints: Mapping[int, Checkpoint], rows: slice) -> None:
        """Go back through all steps.

        Args:
            checkpoints: Steps done to trace and eligibility then, of all lifetimes; has 0.
            rows: Which lifetimes this group is.
        """
        starts = sorted(start for start in checkpoints if start < self.steps)
        longest = max(end - start for start, end in zip(starts, [*starts[1:], self.steps], strict=True))
        segment = Segment(self.rule, longest, self.d_trace)
        end = self.steps
        for start in reversed(starts):
            trace, eligibility = checkpoints[start]
            segment.raws[0].copy_(trace[rows])
            if eligibility is not None:
                segment.eligibilities[0].copy_(eligibility[rows])
            views = Views(self.rule, self.params, self.sequences.between(start, end))
            # What follows the last step of all is not needed where nobody asks for its gradient.
            self._recompute(segment, views, end - start, follows=self.live)
            for step in range(end - start - 1, -1, -1):
                self._step(segment, views, step)
            self._add_gradients(views)
            end = start

    def _recompute(self, segment: Segment, views: Views, steps: int, *, follows: bool) -> None:
        """Fill the segment with the traces of its steps; with what follows the last of them where asked for."""
        resets = views.resets
        for step in range(steps):
            eligibility = segment.eligibilities[step] if self.rule.traced else None
            # Zeroing what a reset wipes out also is right for the clip's gradient: none passes the reset.
            if resets.trace_any[step]:
                segment.raws[step].masked_fill_(resets.trace[step], 0)
            if eligibility is not None and resets.eligibility_any[step]:
                eligibility.masked_fill_(resets.eligibility[step], 0)
            if step == steps - 1 and not follows:
                return
            self.rule.advance(
                segment.trace(step),
                eligibility,
                views.pre_row[step],
                views.post_column[step],
                self._gate(views, step),
                self.keep,
                self.rate,
                None if self.eligibility is None else self.eligibility.kept,
                segment.raws[step + 1],
                segment.eligibilities[step + 1] if self.rule.traced else None,
                self.scratch[0],
                views.gated_post_column[step],
            )

    def initial_gradients(self) -> tuple[Tensor, Tensor, Tensor | None]:
        """After `run`: gradients by the activity, trace and eligibility before the first step."""
        return self.d_pre, self.d_trace, None if self.eligibility is None else self.eligibility.gradient

    def parameter_gradients(self) -> dict[str, Tensor]:
        """After `run`: gradients by name, in the parameters' shapes, summed over the group."""
        self._add("alpha", _sum_to(self.d_alpha, self.alpha))
        if self.eta is not None and self.d_eta is not None:
            self._add("eta", _sum_to(self.d_eta, self.eta))
        if self.eligibility is not None:
            d_rate, products = self.eligibility.d_rate, self.eligibility.products
            whole = d_rate + (products if d_rate.dim() == 3 else products.sum(-1))
            self._add("eta_eligibility", _sum_to(whole, self.params["eta_eligibility"]))
        return self.gradients

    def _add(self, name: str, gradient: Tensor) -> None:
        if name in self.gradients:
            self.gradients[name] += gradient
        else:
            self.gradients[name] = gradient

    def _add_gradients(self, views: Views) -> None:
        """Add those that need no trace, for the steps of one segment: single matrix products."""
        self._add("recurrent_weight", views.d_totals.flatten(0, 1).mT @ views.pres.flatten(0, 1))
        if views.gate is None:
            return
        d_gate = views.d_gates.flatten(0, 1)
        if views.signal is None:
            assert self.eta is not None, "a gain is computed or is eta"
            self._add("eta", _sum_to(d_gate, self.eta))
            return
        d_signal = views.d_signals.flatten(0, 1)
        self._add("modulator_weight", d_signal.mT @ views.posts.flatten(0, 1))
        self._add("modulator_bias", d_signal.sum(dim=0))
        if self.rule.fan_out:
            self._add("modulator_fan_out", (d_gate.mT @ views.signal.flatten(0, 1)).squeeze(-1))
            self._add("modulator_offset", d_gate.sum(dim=0))

    def _gate(self, views: Views, step: int) -> Tensor:
        if views.gate is not None:
            return views.gate_column[step]
        assert self.eta is not None, "without a gate for each neuron there is an eta for each synapse"
        return self.eta

    def _step(self, segment: Segment, views: Views, step: int) -> None:
        """Turn the gradients after `step` of the segment into those before it."""
        d_post = self.d_post
        trace = segment.trace(step)
        if views.d_post is None:
            d_post.copy_(self.d_pre)
        else:
            torch.add(self.d_pre, views.d_post[step], out=d_post)
        if self.live:
            if self.rule.clip is not None:
                edge = self.clip_edge
                _HARDTANH_BACKWARD(self.d_trace, segment.raws[step + 1], -edge, edge, grad_input=self.d_trace)
            if not self.rows_only:
                self._general(views, step, trace, segment.eligibilities[step] if self.rule.traced else None)
            elif self.eligibility is None:
                self._hebb(views, step, trace)
            else:
                self._traced(views, step, trace, segment.eligibilities[step], self.eligibility)
            if self.modulator_weight is not None:
                self._modulator(views, step, self.modulator_weight)
        d_total = torch.mul(d_post, views.slope[step], out=views.d_total[step])
        self._current(views, step, trace, d_total)
        self.live = True
        self._reset(views.resets, step)

    def _hebb(self, views: Views, step: int, trace: Tensor) -> None:
        """`A = G y xT`: gradients by G, by y (added to `d_post`) and by x (to `d_pre`)."""
        assert views.gate is not None, "rows only"
        torch.bmm(views.pre_row[step], self.d_trace_transposed, out=self._through_row)
        torch.mul(self._through, views.post[step], out=views.d_gate[step])
        self.d_post.addcmul_(self._through, views.gate[step])
        torch.bmm(views.gated_post_row[step], self.d_trace, out=self.d_pre_row)
        if self.keep is not None:
            self._decay(trace, self.keep)

    def _traced(self, views: Views, step: int, trace: Tensor, eligibility: Tensor, d: _Eligibility) -> None:
        """`A = G E`, `E' = (1 - eta_E) E + eta_E y xT`: as `_hebb`, and by E in place."""
        torch.sum(torch.mul(self.d_trace, eligibility, out=self.scratch[0]), -1, out=views.d_gate[step])
        torch.bmm(views.pre_row[step], d.transposed, out=self._through_row)
        self.d_post.addcmul_(self._through, d.rate_row)
        torch.bmm(views.rated_post_row[step], d.gradient, out=self.d_pre_row)
        d.d_rate.addcmul_(self._through, views.post[step])
        d.products.addcmul_(d.gradient, eligibility, value=-1)
        d.gradient.mul_(d.kept).addcmul_(views.gate_column[step], self.d_trace)
        if self.keep is not None:
            self._decay(trace, self.keep)

    def _decay(self, trace: Tensor, keep: Tensor) -> None:
        """`rho F`, `rho = 1 - eta`."""
        assert self.d_eta is not None, "a decay has an eta"
        if keep.shape[-1] == 1:
            self.d_eta.sub_(torch.sum(torch.mul(self.d_trace, trace, out=self.scratch[0]), -1))
        else:
            self.d_eta.addcmul_(self.d_trace, trace, value=-1)
        self.d_trace.mul_(keep)

    def _general(self, views: Views, step: int, trace: Tensor, eligibility: Tensor | None) -> None:
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
        if views.gate is None:
            assert self.d_eta is not None, "an eta for each synapse"
            self.d_eta.addcmul_(d_gated, source)
        else:
            torch.sum(torch.mul(d_gated, source, out=second), -1, out=views.d_gate[step])
        torch.mul(d_gated, gate, out=d_source)
        if self.keep is not None:
            self._decay(trace, self.keep)
        d_change = d_source
        if eligibility is not None:
            assert self.eligibility is not None, "a trace"
            d = self.eligibility
            taken_in = rule.change(pre_row, post_column, trace, first).sub_(eligibility)
            if d.rate.shape[-1] == 1:
                d.d_rate.add_(torch.sum(torch.mul(d.gradient, taken_in, out=second), -1))
            else:
                d.d_rate.addcmul_(d.gradient, taken_in)
            d_change = torch.mul(d.gradient, d.rate, out=second)
            d.gradient.mul_(d.kept).add_(d_source)
        torch.bmm(pre_row, d_change.mT, out=self._through_row)
        self.d_post.add_(self._through)
        torch.bmm(views.post_row[step], d_change, out=self.d_pre_row)
        if rule.oja:
            post = views.post[step]
            through_trace = torch.sum(torch.mul(d_change, trace, out=third), -1)
            self.d_post.addcmul_(post, through_trace, value=-2)
            d_trace.addcmul_(d_change, (post * post).unsqueeze(-1), value=-1)

    def _modulator(self, views: Views, step: int, weight: Tensor) -> None:
        """`G = f tanh(w_m . y + b_m) + g`: gradient by y, added to `d_post`."""
        d_signal = torch.mm(views.d_gate[step], views.fan_out_column)
        torch.mul(d_signal, views.signal_slope[step], out=views.d_signal[step])
        self.d_post.addmm_(views.d_signal[step], weight)

    def _current(self, views: Views, step: int, trace: Tensor, d_total: Tensor) -> None:
        """`z = drive + (W0 + alpha * F) x`: gradients by x, F and alpha."""
        if self.alpha_row is None:
            outer, weights = self.scratch[0], self.scratch[1]
            torch.mul(views.d_total_column[step], views.pre_row[step], out=outer)
            self.d_alpha.addcmul_(outer, trace)
            torch.mul(trace, self.alpha, out=weights)
            row = views.d_total_row[step]
            self.d_trace.addcmul_(outer, self.alpha)
        else:
            torch.bmm(views.pre_row[step], trace.mT, out=self._through_row)
            self.d_alpha.addcmul_(d_total, self._through)
            weights = trace
            row = (d_total * self.alpha_row).unsqueeze(1)
            self.d_trace.addcmul_(row.mT, views.pre_row[step])
        if self.live:
            self.d_pre_row.baddbmm_(row, weights)
        else:
            torch.bmm(row, weights, out=self.d_pre_row)
        self.d_pre.addmm_(d_total, self.weight)

    def _reset(self, resets: ResetViews, step: int) -> None:
        """Nothing passes the start of a lifetime or trial."""
        if resets.trace_any[step]:
            self.d_trace.masked_fill_(resets.trace[step], 0)
        if self.eligibility is not None and resets.eligibility_any[step]:
            self.eligibility.gradient.masked_fill_(resets.eligibility[step], 0)
        if resets.activity_any[step]:
            self.d_pre.masked_fill_(resets.activity[step], 0)


def _sum_to(gradient: Tensor, parameter: Tensor) -> Tensor:
    """Sum a gradient for each lifetime and neuron `(.., O)` or synapse `(g, O, I)` to the parameter's granularity."""
    gradient = gradient.sum(dim=0)
    if gradient.dim() == 1:
        gradient = gradient.unsqueeze(-1)
    return gradient.sum_to_size(parameter.shape)


def _just_beyond(clip: float | None, dtype: torch.dtype) -> float:
    """The next number after `clip`: hardtanh's gradient stops at its bounds, a clip's gradient still passes there."""
    if clip is None:
        return 0.0
    bound = torch.tensor(clip, dtype=dtype)
    return torch.nextafter(bound, torch.full_like(bound, torch.inf)).item()
