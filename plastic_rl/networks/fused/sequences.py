"""What the fused backward pass reads of each step, cut into groups of lifetimes and into single steps.

A view made in the inner loop would cost as much as the sum it is for: all are made once, before the loop.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from plastic_rl.networks.fused.rule import FusedRule

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

    def between(self, start: int, end: int) -> Resets:
        """The same for the steps from `start` to before `end`."""
        return Resets(*(entry[start:end] for entry in self))


@dataclass(frozen=True)
class Sequences:
    """What the backward pass needs of each step; all but the first lead with `(T, B)`.

    Attributes:
        activity: `y` before the first step, `(B, O)`.
        post: `y`, `(T, B, O)`.
        signal: `M`, `(T, B, 1)`, where the network computes the gain.
        d_post: Gradient by the features, `(T, B, O)`, or None.
        resets: Where entries start anew.
        d_total: Written: gradient by `z`, `(T, B, O)`.
    """

    activity: Tensor
    post: Tensor
    signal: Tensor | None
    d_post: Tensor | None
    resets: Resets
    d_total: Tensor

    def rows(self, rows: slice) -> Sequences:
        """The same for some lifetimes."""

        def cut(entry: Tensor | None) -> Tensor | None:
            return None if entry is None else entry[:, rows]

        return Sequences(
            self.activity[rows],
            self.post[:, rows],
            cut(self.signal),
            cut(self.d_post),
            self.resets.rows(rows),
            self.d_total[:, rows],
        )

    def between(self, start: int, end: int) -> Sequences:
        """The same for the steps from `start` to before `end`."""

        def cut(entry: Tensor | None) -> Tensor | None:
            return None if entry is None else entry[start:end]

        return Sequences(
            self.activity if start == 0 else self.post[start - 1],
            self.post[start:end],
            cut(self.signal),
            cut(self.d_post),
            self.resets.between(start, end),
            self.d_total[start:end],
        )


class Segment:
    """Memory for the steps between two checkpoints, used again for each segment.

    Attributes:
        raws: The trace before its clip, at the checkpoint and after each step: `(g, O, I)` each.
        eligibilities: Likewise, where there are some.
    """

    def __init__(self, rule: FusedRule, length: int, like: Tensor) -> None:
        # One tensor for each step, not one for all: those fit into what acting left free between its checkpoints.
        self.raws = [torch.empty_like(like) for _ in range(length + 1)]
        self.eligibilities = [torch.empty_like(like) for _ in range(length + 1)] if rule.traced else []
        self._rule = rule
        self._trace = torch.empty_like(like)

    def trace(self, inner: int) -> Tensor:
        """The trace, good until the next call. Clipping again costs less than memory for it would."""
        return self.raws[0] if inner == 0 else self._rule.clipped(self.raws[inner], self._trace)


class ResetViews:
    """Masks of each step, shaped to broadcast, and whether a step has any."""

    def __init__(self, resets: Resets) -> None:
        self.activity = resets.activity.unsqueeze(-1).unbind(0)
        self.trace = resets.trace[..., None, None].unbind(0)
        self.eligibility = resets.eligibility[..., None, None].unbind(0)
        self.activity_any: list[bool] = resets.activity.any(dim=1).tolist()
        self.trace_any: list[bool] = resets.trace.any(dim=1).tolist()
        self.eligibility_any: list[bool] = resets.eligibility.any(dim=1).tolist()


class Views:
    """The sequences of one group between two checkpoints as lists over steps, shaped as the sums need them.

    Rows are `(g, 1, O)`, columns `(g, O, 1)`. Those that a rule has no use for are missing.
    """

    def __init__(self, rule: FusedRule, params: Mapping[str, Tensor], sequences: Sequences) -> None:
        post = sequences.post
        pre = torch.cat([sequences.activity.unsqueeze(0), post[:-1]])
        pre.masked_fill_(sequences.resets.activity.unsqueeze(-1), 0)
        self.pres, self.posts, self.d_totals, self.signal = pre, post, sequences.d_total, sequences.signal
        self.post = post.unbind(0)
        self.post_row = post.unsqueeze(2).unbind(0)
        self.post_column = post.unsqueeze(3).unbind(0)
        self.pre_row = pre.unsqueeze(2).unbind(0)
        self.slope = (1 - post * post).unbind(0)
        self.d_post = None if sequences.d_post is None else sequences.d_post.unbind(0)
        self.d_total = sequences.d_total.unbind(0)
        self.d_total_row = sequences.d_total.unsqueeze(2).unbind(0)
        self.d_total_column = sequences.d_total.unsqueeze(3).unbind(0)
        self.resets = ResetViews(sequences.resets)
        gate = rule.gate(params, post, sequences.signal)
        self.gate: Sequence[Tensor] | None = None
        self.gated_post_column: Sequence[Tensor | None] = [None] * post.shape[0]
        if gate.shape[-1] == 1:
            gate = gate.contiguous()
            self.gate = gate.squeeze(3).unbind(0)
            self.gate_column = gate.unbind(0)
            gated_post = gate * post.unsqueeze(3)
            self.gated_post_column = gated_post.unbind(0)
            self.gated_post_row = gated_post.mT.unbind(0)
            # Zero: where the last trace has no gradient, the last step's gate has none.
            self.d_gates = torch.zeros_like(post)
            self.d_gate = self.d_gates.unbind(0)
        if rule.traced and params["eta_eligibility"].shape[-1] == 1:
            self.rated_post_row = (post * params["eta_eligibility"].mT).unsqueeze(2).unbind(0)
        if sequences.signal is not None:
            signal = sequences.signal
            self.signal_slope = (1 - signal * signal).unbind(0)
            self.d_signals = signal.new_zeros(signal.shape)
            self.d_signal = self.d_signals.unbind(0)
            fan_out = params.get("modulator_fan_out")
            self.fan_out_column = post.new_ones(post.shape[-1], 1) if fan_out is None else fan_out.unsqueeze(-1)
