"""A loop over time that autograd goes back through in little memory, by computing segments of it a second time.

Autograd keeps what each step needs for its gradient: several tensors `(B, O, I)` for each that the state holds. Here it
keeps the state before each segment alone, and on the way back the steps of one segment at a time (Chen et al. 2016,
arXiv 1604.06174). Values and gradients are those of the loop to the last bit; a second forward pass is what it costs.

`torch.utils.checkpoint` also drops the tensors, but keeps the nodes of the whole graph: small blocks that settle among
the large ones that come and go, so that the process grows nearly as if nothing were dropped. Here no graph outlasts its
segment.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

Tensors = Mapping[str, Tensor]
Step = Callable[[Tensors, Tensors, dict[str, Tensor]], tuple[dict[str, Tensor], dict[str, Tensor]]]
"""From parameters, the inputs of a step and the state before it to its outputs and the state after it."""

ENOUGH = 256_000_000
"""Bytes: where all steps together keep less, nothing is computed a second time."""
MOST = 64
"""A step is taken to keep at most so many times the size of the state: where even that is little, none is measured."""


def segment_length(step: Step, params: Tensors, inputs: Tensors, state: dict[str, Tensor], steps: int) -> int:
    """Steps of a segment: as many as keep what the states before all segments take; all, where they keep little."""
    if steps * MOST * sum(one.nbytes for one in state.values()) < ENOUGH:
        return steps
    # Of the second step, for in the first all lifetimes may start.
    changed, kept = measured(step, params, {name: one[min(1, steps - 1)] for name, one in inputs.items()}, state)
    return steps if steps * kept < ENOUGH else max(1, round(math.sqrt(steps * changed / kept)))


def measured(step: Step, params: Tensors, inputs: Tensors, state: dict[str, Tensor]) -> tuple[int, int]:
    """Bytes of the entries that a step changes, and of what autograd keeps of it beside what the step is given."""
    leaves = {name: one.detach().requires_grad_(one.is_floating_point()) for name, one in state.items()}
    given = {one.untyped_storage().data_ptr() for group in (params, inputs, leaves) for one in group.values()}
    kept: dict[int, Tensor] = {}

    def keep(one: Tensor) -> Tensor:
        kept[one.untyped_storage().data_ptr()] = one.detach()
        return one

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda one: one):
        _, following = step(params, inputs, leaves)
    changed = {id(one): one.nbytes for name, one in following.items() if one is not leaves[name]}
    own = (one.untyped_storage().nbytes() for place, one in kept.items() if place not in given)
    return sum(changed.values()), sum(own)


def in_segments(
    step: Step, params: Tensors, inputs: Tensors, state: dict[str, Tensor], steps: int, length: int | None = None
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """`steps` calls of `step`, one after the other.

    Args:
        step: A function of its arguments alone, for in the backward pass it is called once more: it draws from no
            generator, and reads nothing else that requires a gradient or may have changed by then.
        params: For every step.
        inputs: Entries `(T, ...)`, for each step its own.
        state: Before the first step; never modified.
        steps: `T`.
        length: Steps of a segment; None: `segment_length` where something requires a gradient, else `T`.

    Returns:
        The outputs of all steps, entries `(T, ...)`, and the state after the last one.
    """
    if length is None:
        every = (*params.values(), *inputs.values(), *state.values())
        differentiable = torch.is_grad_enabled() and any(one.requires_grad for one in every)
        length = segment_length(step, params, inputs, state, steps) if differentiable else steps

    def segment(count: int, params: Tensors, inputs: Tensors, state: dict[str, Tensor]) -> list[dict[str, Tensor]]:
        outputs = []
        for index in range(count):
            output, state = step(params, {name: one[index] for name, one in inputs.items()}, state)
            outputs.append(output)
        return [state, *outputs]

    outputs: list[dict[str, Tensor]] = []
    for first in range(0, steps, length):
        count = min(length, steps - first)
        run = functools.partial(segment, count)
        if count == steps:
            state, *outputs = run(params, inputs, state)
            break
        own = {name: one[first : first + count] for name, one in inputs.items()}
        params, _, before, following, *done = _computed_twice(run, [params, own, state])
        # Of an output that the state still holds, gradients are to meet in the order of the loop: its own comes first.
        known = {id(entry): before[name] for name, entry in state.items()}
        outputs = [{name: known.get(id(one), one) for name, one in output.items()} for output in outputs] + done
        state = following
    return {name: torch.stack([one[name] for one in outputs]) for name in outputs[0]}, state


def _computed_twice(run: Callable[..., list[dict[str, Tensor]]], given: Sequence[Tensors]) -> list[dict[str, Tensor]]:
    """What was `given`, then what `run(*given)` returns.

    The former is to be used in its place from here on, so that all its gradients come by here, those of later first.
    """
    tensors, places = _distinct(given)
    names: list[dict[str, int]] = []

    def passed_and_found(*tensors: Tensor) -> list[Tensor]:
        nonlocal names
        passed = _named(tensors, places)
        distinct, names = _distinct([*passed, *run(*passed)])
        return distinct

    outcome = _Segment.apply(passed_and_found, *tensors)  # type: ignore[no-untyped-call]
    return _named(outcome, names)


def _distinct(groups: Sequence[Tensors]) -> tuple[list[Tensor], list[dict[str, int]]]:
    """The tensors in `groups`, each once, and for each name the place of its own among them."""
    tensors = {id(one): one for group in groups for one in group.values()}
    place = {own: index for index, own in enumerate(tensors)}
    return list(tensors.values()), [{name: place[id(one)] for name, one in group.items()} for group in groups]


def _named(tensors: Sequence[Tensor], places: Sequence[Mapping[str, int]]) -> list[dict[str, Tensor]]:
    return [{name: tensors[place] for name, place in group.items()} for group in places]


class _Segment(torch.autograd.Function):
    """`forward(function, *TENSORS)`: what `function(*TENSORS)` returns, the tensors themselves and then others."""

    @staticmethod
    def forward(ctx: Any, function: Callable[..., list[Tensor]], *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.function = function  # which holds no tensors: autograd lets go of those that it saves, once used
        ctx.save_for_backward(*tensors)
        ctx.set_materialize_grads(False)
        # With a graph, gone on return: torch has other ways without one, to the same numbers but for the last bit.
        every = _Segment._outcome(ctx, tensors)
        outcome = [one.detach() for one in every]
        ctx.mark_non_differentiable(*(own for own, one in zip(outcome, every, strict=True) if not one.requires_grad))
        return tuple(outcome)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        needed = ctx.needs_input_grad[1:]
        told = {place: gradient for place, gradient in enumerate(gradients) if gradient is not None}
        if not told:
            return (None,) * (1 + len(needed))
        every = _Segment._outcome(ctx, ctx.saved_tensors)
        wanted = [one for one, need in zip(every, needed, strict=False) if need]
        ends = [every[place] for place in told]
        found = iter(torch.autograd.grad(ends, wanted, list(told.values()), allow_unused=True))
        return (None, *(next(found) if need else None for need in needed))

    @staticmethod
    def _outcome(ctx: Any, tensors: Sequence[Tensor]) -> list[Tensor]:
        needed = ctx.needs_input_grad[1:]
        with torch.enable_grad():
            leaves = [one.detach().requires_grad_(need) for one, need in zip(tensors, needed, strict=True)]
            outcome: list[Tensor] = ctx.function(*leaves)
        return outcome
