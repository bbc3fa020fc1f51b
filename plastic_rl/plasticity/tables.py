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

import numpy as np
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


def code_count(rounds: int) -> int:
    """Number of firing histories after `rounds` rounds of recurrence, `C`.

    >>> code_count(0), code_count(3)
    (2, 16)
    """
    return int(2 ** (rounds + 1))


def kth_largest(values: Tensor, k: int) -> Tensor:
    """The k-th largest of each row of `values (.., H)`, `(.., 1)`; no gradient.

    >>> kth_largest(torch.tensor([[3.0, 1.0, 2.0]]), 2)
    tensor([[2.]])
    """
    values = values.detach()
    if values.is_cpu and values.dtype in (torch.float32, torch.float64):
        # Sorting all of 300 numbers in NumPy takes a fifth of the time of selecting 50 of them in torch.
        place = values.shape[-1] - k
        return torch.from_numpy(np.sort(values.numpy(), axis=-1)[..., place : place + 1])
    return values.topk(k, dim=-1, sorted=False).values.amin(-1, keepdim=True)


def k_cap(values: Tensor, k: int | None) -> Tensor:
    """Keep the k largest of each row, zero the others; of equal ones those of the lowest index are kept.

    Args:
        values: `(.., H)`.
        k: How many to keep; None, or at least H: all.

    Returns:
        `(.., H)`; a unit whose kept value is 0 has not fired.

    >>> k_cap(torch.tensor([[3.0, 1.0, 3.0, 3.0], [-1.0, -2.0, -3.0, -4.0]]), 2)
    tensor([[ 3.,  0.,  3.,  0.],
            [-1., -2.,  0.,  0.]])
    """
    if k is None or k >= values.shape[-1]:
        return values
    threshold = kth_largest(values, k)
    kept = values >= threshold
    surplus = (kept.sum(-1, keepdim=True) > k) & (threshold != 0)
    if bool(surplus.any()):
        # Several values equal the k-th largest: only as many stay as there is room for, counted from the left.
        above, equal = values > threshold, values == threshold
        kept = above | (equal & (equal.cumsum(-1) <= k - above.sum(-1, keepdim=True)))
    return torch.where(kept, values, 0.0)


def add_round(codes: Tensor | None, kept: Tensor, number: int) -> Tensor:
    """Take round `number` into the codes `(.., H)` uint8: its bit is set where `kept (.., H)` is not 0.

    >>> first = add_round(None, torch.tensor([2.0, 0.0, -1.0]), 0)
    >>> add_round(first, torch.tensor([0.0, 0.0, 3.0]), 1)
    tensor([1, 0, 3], dtype=torch.uint8)
    """
    fired = kept != 0
    return fired.to(torch.uint8) if codes is None else torch.add(codes, fired, alpha=2**number)


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


def look_up(table: Tensor, index: Tensor) -> Tensor:
    """Rows of a table.

    Args:
        table: `(X, Y)`, or `(P, X, Y)`.
        index: int64 `(..)`, or `(P, ..)`.

    Returns:
        `(.., Y)`, or `(P, .., Y)`.

    >>> look_up(torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([1, 0, 1]))
    tensor([[3., 4.],
            [1., 2.],
            [3., 4.]])
    """
    if table.dim() == 3:
        population, rows = table.shape[:2]
        index = index + (torch.arange(population, device=index.device) * rows).reshape(-1, *(1,) * (index.dim() - 1))
    return table.reshape(-1, table.shape[-1]).index_select(0, index.reshape(-1)).reshape(*index.shape, -1)


def input_change(table: Tensor, gate: Tensor, codes: Tensor) -> Tensor:
    """How much the input weights of each hidden unit change, `(.., B, H)`, before the presynaptic factor.

    Args:
        table: `(G, C)`, or `(P, G, C)`.
        gate: Condition of the reward, int64 `(.., B)`.
        codes: `(.., B, H)` uint8.
    """
    return look_up(table, gate).gather(-1, codes.long())


def hidden_change(table: Tensor, gate: Tensor, codes: Tensor, factor: Tensor | None) -> Tensor:
    """How much each hidden weight changes, `(R, H, H)` post by pre, for the `R` lifetimes of all individuals.

    Args:
        table: `(G, C, C)` by pre and post code, or `(P, G, C, C)`.
        gate: Condition of the reward, int64 `(.., B)`.
        codes: `(.., B, H)` uint8.
        factor: What the presynaptic activity multiplies, `(.., B, H)`; None: nothing.
    """
    count, units = table.shape[-1], codes.shape[-1]
    by_pre = look_up(table.flatten(-3, -2), torch.add(codes, gate.unsqueeze(-1), alpha=count))
    if factor is not None:
        by_pre = by_pre * factor.unsqueeze(-1)
    # Both look-ups copy whole rows, which is several times quicker than gathering H x H entries.
    return look_up(by_pre.reshape(-1, units, count).mT, codes.reshape(-1, units).long())


def output_change(table: Tensor, columns: Tensor, codes: Tensor) -> Tensor:
    """How much each output weight changes, `(.., B, K, H)`.

    Args:
        table: `(C, S)`, or `(P, C, S)`.
        columns: Condition of each output, int64 `(.., B, K)`.
        codes: `(.., B, H)` uint8.
    """
    entries = look_up(table.mT, columns)
    if entries.shape[-1] == 2:
        # Two codes, silent and fired: lerp is exact at both ends, and quicker than a look-up.
        silent, fired = entries.unbind(-1)
        return torch.lerp(silent.unsqueeze(-1), fired.unsqueeze(-1), codes.to(entries.dtype).unsqueeze(-2))
    index = codes.long().unsqueeze(-2).expand(*columns.shape, codes.shape[-1])
    return entries.gather(-1, index)


def scaled_(fresh: Tensor, axis: Literal[-1, -2]) -> Tensor:
    """Scale weights `(.., O, I)` to Euclidean length 1 along `axis`; what is all zero stays so.

    Without a graph this is done in place. The gradient is finite everywhere.

    >>> scaled_(torch.tensor([[3.0, 4.0], [0.0, 0.0]]), -1)
    tensor([[0.6000, 0.8000],
            [0.0000, 0.0000]])
    """
    if axis == -1:
        total = torch.linalg.vector_norm(fresh, dim=-1, keepdim=True).square()
    elif fresh.shape[-2] <= FEW_ROWS:
        # Row by row, no matrix of squares has to be allocated, which takes longer than the sums.
        first, *others = fresh.unbind(-2)
        total = first.square()
        for row in others:
            total = torch.addcmul(total, row, row)
        total = total.unsqueeze(-2)
    else:
        total = fresh.square().sum(-2, keepdim=True)
    factor = total.masked_fill(total <= TINY**2, 1.0).rsqrt()
    return fresh * factor if torch.is_grad_enabled() else fresh.mul_(factor)
