"""Rule tables: what happened on the two sides of a synapse, looked up in a table (Cristian et al. 2021; Joosten 2021).

A unit's **code** is its firing history within a step: bit t is set where it fired in round t, so N rounds of recurrence
give `C = 2^(N+1)` codes. A table says by how much a weight changes:

    input table   (G, C)      row: condition of the reward, one of G; column: code of the post unit
    hidden table  (G, C, C)   condition of the reward, code of the pre unit, code of the post unit
    output table  (C, S)      row: code of the pre unit; column: condition of the output (see `CONDITIONS`)

Data flows from activations through `k_cap` to codes, and from codes and conditions through look-ups to changes of
weights. Look-ups are differentiable in the table. A table may lead with `P`: each individual then reads its own.

Axis letters: `B` lifetimes, `P` population, `H` hidden units, `K` outputs, `C` codes, `O I` post and pre units.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

OutputTable = Literal["label_free", "supervised", "supervised_chosen"]

CONDITIONS: dict[OutputTable, tuple[str, ...]] = {
    "supervised": ("wrong", "correct"),
    "supervised_chosen": ("wrong", "correct", "wrong, chosen", "correct, chosen"),
    "label_free": ("unrewarded", "rewarded", "unrewarded, chosen", "rewarded, chosen"),
}
"""Columns of an output table by its kind. Where steps without an outcome have columns too, these follow the others."""

NO_OUTCOME = ("no outcome", "no outcome, chosen")
"""Further columns of a label-free output table, where asked for."""

TINY = 1e-12
FEW_ROWS = 16


def add_round(codes: Tensor | None, kept: Tensor, number: int) -> Tensor:
    """Take round `number` into the codes `(.., H)` uint8: its bit is set where `kept (.., H)` is not 0.

    >>> first = add_round(None, torch.tensor([2.0, 0.0, -1.0]), 0)
    >>> add_round(first, torch.tensor([0.0, 0.0, 3.0]), 1)
    tensor([1, 0, 3], dtype=torch.uint8)
    """
    fired = (kept != 0).view(torch.uint8)
    return fired if codes is None else torch.add(codes, fired, alpha=2**number)


def output_columns(
    kind: OutputTable, chosen: Tensor, rewarded: Tensor | None, label: Tensor | None, outcome: Tensor | None
) -> Tensor:
    """Which column of the output table holds for each output, int64 `(.., K)`.

    Args:
        kind: Of the output table.
        chosen: The action taken, one-hot `(.., K)`.
        rewarded: Whether the reward was above its average, `(..)` bool. Read by label-free tables only.
        label: The correct action, one-hot `(.., K)`. Read by supervised tables only.
        outcome: Whether there was an outcome, `(..)` bool; steps without one then have two columns of their own.
            None: no such columns. Read by label-free tables only.

    >>> output_columns("label_free", torch.tensor([0.0, 1.0]), torch.tensor(True), None, None)
    tensor([1, 3])
    """
    if kind == "label_free":
        assert rewarded is not None, "a label-free table is given the reward"
        taken = chosen.long()
        columns = torch.add(rewarded.unsqueeze(-1), taken, alpha=2)
        if outcome is None:
            return columns
        return torch.where(outcome.unsqueeze(-1), columns, taken + len(CONDITIONS[kind]))
    assert label is not None, "a supervised table is given the label"
    columns = label.long()
    return columns if kind == "supervised" else torch.add(columns, chosen.long(), alpha=2)


def stacked(table: Tensor, step: Tensor) -> Tensor:
    """A table's rows times the step, those of all individuals below each other: what the changes are looked up in.

    Args:
        table: `(.., C)`, or `(P, .., C)`.
        step: `()`, or `(P,)`.

    Returns:
        `(X, C)`.
    """
    return (table * step.reshape(step.shape + (1,) * (table.dim() - step.dim()))).reshape(-1, table.shape[-1])


def input_change(rows: Tensor, place: Tensor, codes: Tensor) -> Tensor:
    """How much the input weights of each hidden unit change, `(.., B, H)`, before the presynaptic factor.

    Args:
        rows: The input table, `stacked`: `(P G, C)`.
        place: Which row holds, by the condition of the reward (and the individual), int64 `(.., B)`.
        codes: `(.., B, H)` uint8.
    """
    return _rows(rows, place).gather(-1, codes.long())


def hidden_change(rows: Tensor, place: Tensor, codes: Tensor, factor: Tensor | None) -> Tensor:
    """How much each hidden weight changes, `(R, H, H)` post by pre, for the `R` lifetimes of all individuals.

    Args:
        rows: The hidden table by pre and post code, `stacked`: `(P G C, C)`.
        place: Which of the `P G` tables holds, by the condition of the reward (and the individual), int64 `(.., B)`.
        codes: `(.., B, H)` uint8.
        factor: What the presynaptic activity multiplies, `(.., B, H)`; None: nothing.
    """
    count, units = rows.shape[-1], codes.shape[-1]
    by_pre = _rows(rows, torch.add(codes, place.unsqueeze(-1), alpha=count))
    if factor is not None:
        by_pre = by_pre * factor.unsqueeze(-1)
    by_pre = by_pre.reshape(-1, units, count)
    lifetimes = torch.arange(0, by_pre.shape[0] * count, count, device=codes.device).unsqueeze(-1)
    # Both look-ups copy whole rows, which is several times quicker than gathering H x H entries.
    return _rows(by_pre.mT.reshape(-1, units), torch.add(lifetimes, codes.reshape(-1, units)))


def output_change(rows: Tensor, place: Tensor, codes: Tensor) -> Tensor:
    """How much each output weight changes, `(.., B, K, H)`.

    Args:
        rows: The output table, transposed and `stacked`: `(P S, C)`.
        place: Which row holds, by the condition of the output (and the individual), int64 `(.., B, K)`.
        codes: `(.., B, H)` uint8.
    """
    entries = _rows(rows, place)
    if entries.shape[-1] == 2:
        # Two codes, silent and fired: a product is quicker than a look-up.
        silent, fired = entries[..., :1], entries[..., 1:]
        return torch.addcmul(silent, fired - silent, codes.to(entries.dtype).unsqueeze(-2))
    return entries.gather(-1, codes.long().unsqueeze(-2).expand(*place.shape, codes.shape[-1]))


def _rows(table: Tensor, place: Tensor) -> Tensor:
    """Rows `place (..)` of `table (X, Y)`, `(.., Y)`."""
    return table.index_select(0, place.reshape(-1)).view(*place.shape, -1)


def scaled_(fresh: Tensor, axis: Literal[-1, -2]) -> Tensor:
    """Scale weights `(.., O, I)` to Euclidean length 1 along `axis`; what is all zero stays so.

    Without a graph this is done in place. The gradient is finite everywhere.

    >>> scaled_(torch.tensor([[3.0, 4.0], [0.0, 0.0]]), -1)
    tensor([[0.6000, 0.8000],
            [0.0000, 0.0000]])
    """
    if axis == -1:
        length: Tensor = torch.linalg.vector_norm(fresh, dim=-1, keepdim=True)
    elif fresh.shape[-2] <= FEW_ROWS:
        # Row by row, no matrix of squares has to be allocated, which takes longer than the sums.
        first, *others = fresh.unbind(-2)
        total = first.square()
        for row in others:
            total = torch.addcmul(total, row, row)
        length = total.unsqueeze(-2)
    else:
        length = fresh.square().sum(-2, keepdim=True)
    if not torch.is_grad_enabled():
        return fresh.div_(length.clamp_min_(TINY)) if axis == -1 else fresh.mul_(length.clamp_min_(TINY**2).rsqrt_())
    # Where the length is 0 the gradient passes unscaled.
    if axis == -2:
        length = length.masked_fill(length <= TINY**2, 1.0).sqrt()
    return fresh / length.masked_fill(length <= TINY, 1.0)
