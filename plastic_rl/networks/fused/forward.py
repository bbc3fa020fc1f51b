"""The fused `unroll` of the Backpropamine family: a whole sequence as one function with its own backward pass.

Plain autograd stores several `(B, O, I)` tensors for each step. Here the forward pass keeps the activity and about
sqrt(T) checkpoints of the trace (and eligibility); the backward pass computes the traces between two checkpoints again.
Lifetimes do not depend on each other, so the backward pass takes them in groups small enough for the processor's cache:
outer loop over groups, inner loop over time. Gradients of weights that do not depend on the trace are single matrix
products over all steps, made at the end.

Notation of one step t, with `~` after the resets of step t:

    z_t = drive_t + (W0 + alpha * F~_t) x_t,  x_t = y~_{t-1},  y_t = tanh(z_t),  G_t = gate(y_t)
    F_{t+1}, E_{t+1} = advance(F~_t, E~_t, x_t, y_t, G_t)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from plastic_rl.networks.base import State
from plastic_rl.networks.fused.backward import GroupBackward
from plastic_rl.networks.fused.rule import FusedRule
from plastic_rl.networks.fused.sequences import Resets, Sequences

GROUP_BYTES = 400_000
"""Traces and eligibilities of one group of lifetimes: with gradients and scratch they about fit a core's own cache."""

PARAMETERS = (
    "recurrent_weight",
    "alpha",
    "eta",
    "eta_eligibility",
    "modulator_weight",
    "modulator_bias",
    "modulator_fan_out",
    "modulator_offset",
)


class Recorded(NamedTuple):
    """What acting left: all activities `(T, B, O)`, and traces and eligibilities at some steps."""

    post: Tensor
    checkpoints: dict[int, tuple[Tensor, Tensor | None]]


@dataclass(frozen=True)
class Plan:
    """What the fused function needs besides tensors that get gradients.

    Attributes:
        rule: The member of the family.
        every: Steps between checkpoints.
        resets: Where entries start anew.
        recorded: What acting left of these steps, or None.
    """

    rule: FusedRule
    every: int
    resets: Resets
    recorded: Recorded | None


def group_size(trace: Tensor, *, traced: bool) -> int:
    """Lifetimes in a group.

    Args:
        trace: `(B, O, I)`.
        traced: Whether each also has an eligibility.

    >>> group_size(torch.zeros(30, 100, 100), traced=False), group_size(torch.zeros(30, 100, 100), traced=True)
    (10, 5)
    """
    batch = trace.shape[0]
    matrix_bytes = trace[0].numel() * trace.element_size() * (2 if traced else 1)
    groups = math.ceil(batch / max(1, GROUP_BYTES // matrix_bytes))
    return math.ceil(batch / groups)


def checkpoint_spacing(steps: int, trace: Tensor, *, traced: bool) -> int:
    """Steps between checkpoints.

    Checkpoints of all lifetimes then take about as much memory as the steps between two of them for one group.

    Args:
        steps: `T`.
        trace: `(B, O, I)`.
        traced: Whether each lifetime also has an eligibility.

    >>> checkpoint_spacing(200, torch.zeros(30, 100, 100), traced=False)
    25
    """
    group = group_size(trace, traced=traced)
    return max(1, math.ceil(math.sqrt(steps * trace.shape[0] / group)))


class _FusedUnroll(torch.autograd.Function):
    """`forward(plan, drive, activity, trace, eligibility, *PARAMETERS)`; absent tensors are None."""

    @staticmethod
    def forward(
        ctx: Any, plan: Plan, drive: Tensor, *tensors: Tensor | None
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        activity, trace, eligibility = tensors[:3]
        assert activity is not None, "there always is an activity"
        assert trace is not None, "the family has a trace"
        params = _present(tensors[3:])
        ctx.set_materialize_grads(False)
        ctx.plan = plan
        if plan.recorded is not None:
            ctx.checkpoints = plan.recorded.checkpoints
            # detach: the output joins the graph, the recording must not.
            post = plan.recorded.post.detach()
            ctx.save_for_backward(post, *tensors)
            return post, None, None
        post, (last_trace, last_eligibility), ctx.checkpoints = _forward(
            plan, params, drive, activity, (trace, eligibility)
        )
        ctx.save_for_backward(post, *tensors)
        return post, last_trace, last_eligibility

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, d_post: Tensor | None, d_trace: Tensor | None, d_eligibility: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        post, activity, trace, eligibility, *parameters = ctx.saved_tensors
        params = _present(parameters)
        rule: FusedRule = ctx.plan.rule
        sequences = Sequences(
            activity=activity,
            post=post,
            signal=rule.signal(params, post),
            d_post=d_post,
            resets=ctx.plan.resets,
            d_total=torch.empty_like(post),
        )
        checkpoints = ctx.checkpoints | {0: (trace, eligibility)}
        gradients: dict[str, Tensor] = {}
        # By activity, trace and eligibility before the first step; kept only where asked for.
        first: list[list[Tensor]] = [[], [], []]
        batch = post.shape[1]
        size = group_size(trace, traced=rule.traced)
        for start in range(0, batch, size):
            rows = slice(start, min(start + size, batch))
            group = GroupBackward(
                rule,
                params,
                sequences.rows(rows),
                None if d_trace is None else d_trace[rows],
                None if d_eligibility is None else d_eligibility[rows],
            )
            group.run(checkpoints, rows)
            for name, gradient in group.parameter_gradients().items():
                gradients[name] = gradient + gradients[name] if name in gradients else gradient
            for kept, needed, initial in zip(first, ctx.needs_input_grad[2:5], group.initial_gradients(), strict=True):
                if needed and initial is not None:
                    kept.append(initial)
        return (
            None,
            sequences.d_total,
            *(torch.cat(kept) if kept else None for kept in first),
            *(gradients.get(name) for name in PARAMETERS),
        )


def _present(parameters: Iterable[Tensor | None]) -> dict[str, Tensor]:
    named = zip(PARAMETERS, parameters, strict=True)
    return {name: parameter for name, parameter in named if parameter is not None}


def _forward(
    plan: Plan, params: Mapping[str, Tensor], drive: Tensor, activity: Tensor, start: tuple[Tensor, Tensor | None]
) -> tuple[Tensor, tuple[Tensor, Tensor | None], dict[int, tuple[Tensor, Tensor | None]]]:
    """All steps without a graph: activities `(T, B, O)`, last trace and eligibility, and the checkpoints."""
    rule, resets = plan.rule, plan.resets
    steps = drive.shape[0]
    trace, eligibility = start
    posts = torch.empty_like(drive)
    traces = [torch.empty_like(trace) for _ in range(2)]
    eligibilities = [torch.empty_like(trace) if eligibility is not None else None for _ in range(2)]
    scratch = torch.empty_like(trace)
    keep, rate = rule.factors(params)
    kept_eligibility = None if rate is None else 1 - rate
    alpha, weight = params["alpha"], params["recurrent_weight"].mT
    starts = [entry.any(dim=1).tolist() for entry in resets]
    checkpoints: dict[int, tuple[Tensor, Tensor | None]] = {}
    pre = activity
    for step in range(steps):
        if starts[0][step]:
            pre = pre.masked_fill(resets.activity[step].unsqueeze(-1), 0)
        if starts[1][step]:
            trace = trace.masked_fill(resets.trace[step][:, None, None], 0)
        if eligibility is not None and starts[2][step]:
            eligibility = eligibility.masked_fill(resets.eligibility[step][:, None, None], 0)
        row = pre.unsqueeze(1)
        if alpha.shape[-1] == 1:
            plastic = torch.bmm(row, trace.mT).squeeze(1) * alpha.mT
        else:
            plastic = torch.bmm(row, torch.mul(trace, alpha, out=scratch).mT).squeeze(1)
        total = torch.addmm(drive[step], pre, weight).add_(plastic)
        post = torch.tanh(total, out=posts[step])
        gate = rule.gate(params, post, rule.signal(params, post))
        following, following_eligibility = traces[step % 2], eligibilities[step % 2]
        rule.advance(
            trace,
            eligibility,
            row,
            post.unsqueeze(-1),
            gate,
            keep,
            rate,
            kept_eligibility,
            following,
            following_eligibility,
            scratch,
        )
        rule.clipped(following, following)
        pre, trace, eligibility = post, following, following_eligibility
        if (step + 1) % plan.every == 0 and step + 1 < steps:
            checkpoints[step + 1] = (trace.clone(), None if eligibility is None else eligibility.clone())
    return posts, (trace, eligibility), checkpoints


def fused_unroll(
    rule: FusedRule,
    params: Mapping[str, Tensor],
    drive: Tensor,
    state: State,
    resets: Resets,
    recorded: Recorded | None,
) -> tuple[Tensor, State]:
    """`unroll` of a plastic recurrent network whose rule is of the family.

    Args:
        rule: The member of the family.
        params: The network's parameters.
        drive: What the observations contribute to the input of the units, `(T, B, O)`.
        state: `activity`, `trace` and, where traced, `eligibility`, before the first step.
        resets: Where entries start anew.
        recorded: What acting left of these steps, or None.

    Returns:
        Features `(T, B, O)`, and the state after the last step (without `trace` where `recorded`).
    """
    trace = state["trace"]
    every = checkpoint_spacing(drive.shape[0], trace, traced=rule.traced)
    apply: Callable[..., tuple[Tensor, Tensor | None, Tensor | None]] = _FusedUnroll.apply
    post, last_trace, last_eligibility = apply(
        Plan(rule, every, resets, recorded),
        drive,
        state["activity"],
        trace,
        state.get("eligibility"),
        *(params.get(name) for name in PARAMETERS),
    )
    following: State = {"activity": post[-1]}
    if last_trace is not None:
        following["trace"] = last_trace
    if last_eligibility is not None:
        following["eligibility"] = last_eligibility
    return post, following
