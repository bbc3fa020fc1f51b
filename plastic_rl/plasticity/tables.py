"""Rule tables: what happened on the two sides of a synapse, looked up in a table (Cristian et al. 2021; Joosten 2021).

A unit's **code** is its firing history within a step: bit t is set where it fired in round t, so N rounds of recurrence
give `C = 2^(N+1)` codes. A table says by how much a weight changes:

    input table   (G, C)      row: code of the post unit; G conditions of the reward (1 where it is not gated)
    hidden table  (G, C, C)   row: code of the pre unit, column: code of the post unit
    output table  (C, S)      row: code of the pre unit, column: condition of the output (see `CONDITIONS`)

Data flows from activations through `k_cap` to codes, and from codes (as one-hot `Z (.., C, H)`) through matrix products
with the tables to changes of weights. A look-up as a product with a one-hot matrix is exact (it adds zeros), is
differentiable in the table, and for whole weight matrices is several times quicker than gathering entry by entry.

Axis letters: `R` rows, which are `B` lifetimes or `P B` of a population; `H` hidden units, `K` outputs, `C` codes.
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


def code_count(rounds: int) -> int:
    """Number of firing histories after `rounds` rounds of recurrence, `C`.

    >>> code_count(0), code_count(3)
    (2, 16)
    """
    return int(2 ** (rounds + 1))


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
    threshold = values.detach().topk(k, dim=-1, sorted=False).values.amin(-1, keepdim=True)
    dropped = values < threshold
    kept = values.masked_fill(dropped, 0)
    if bool((torch.count_nonzero(kept, -1) <= k).all()):
        return kept
    # Several values equal the k-th largest: only as many of them stay as there is room for, counted from the left.
    equal = values == threshold
    room = k - (values > threshold).sum(-1, keepdim=True)
    return kept.masked_fill(equal & (equal.cumsum(-1) > room), 0)


def add_round(codes: Tensor | None, kept: Tensor, number: int) -> Tensor:
    """Take round `number` into the codes `(.., H)` int64: its bit is set where `kept (.., H)` is not 0.

    >>> first = add_round(None, torch.tensor([2.0, 0.0, -1.0]), 0)
    >>> add_round(first, torch.tensor([0.0, 0.0, 3.0]), 1)
    tensor([1, 0, 3])
    """
    fired = kept != 0
    return fired.long() if codes is None else torch.add(codes, fired, alpha=2**number)


def one_hot_codes(codes: Tensor, count: int, dtype: torch.dtype) -> Tensor:
    """Return `Z (.., C, H)`: 1 where unit h has code c. From `codes (.., H)`."""
    return (codes.unsqueeze(-2) == torch.arange(count, device=codes.device).unsqueeze(-1)).to(dtype)


def output_conditions(
    kind: OutputTable, chosen: Tensor, rewarded: Tensor, label: Tensor | None, outcome: Tensor | None
) -> Tensor:
    """Which column of the output table holds for each output, as one-hot `(.., K, S)`.

    Args:
        kind: Of the output table.
        chosen: The action taken, one-hot `(.., K)`.
        rewarded: 1 where the reward was above its average, else 0, `(..)`. Read by label-free tables only.
        label: The correct action, one-hot `(.., K)`. Read by supervised tables only.
        outcome: 1 where there was an outcome, else 0, `(..)`; then steps without one have two columns of their own.
            None: no such columns. Read by label-free tables only.

    >>> chosen, rewarded = torch.tensor([0.0, 1.0]), torch.tensor(1.0)
    >>> output_conditions("label_free", chosen, rewarded, None, None)
    tensor([[0., 1., 0., 0.],
            [0., 0., 0., 1.]])
    """
    if kind == "label_free":
        good = rewarded.unsqueeze(-1).expand_as(chosen)
        columns = _pairs(good, chosen)
        if outcome is not None:
            present = outcome.unsqueeze(-1)
            absent = 1 - present.expand_as(chosen)
            columns = [column * present for column in columns] + [(1 - chosen) * absent, chosen * absent]
        return torch.stack(columns, -1)
    assert label is not None, "a supervised table is given the label"
    if kind == "supervised":
        return torch.stack([1 - label, label], -1)
    return torch.stack(_pairs(label, chosen), -1)


def _pairs(low: Tensor, high: Tensor) -> list[Tensor]:
    """The four combinations of two truth values, the first one counting by ones and the second by twos."""
    not_low, not_high = 1 - low, 1 - high
    return [not_low * not_high, low * not_high, not_low * high, low * high]


def look_up_rows(table: Tensor, conditions: Tensor) -> Tensor:
    """Return what `conditions (.., B, G)`, one-hot, select of `table (.., G, X)`: `(.., B, X)`."""
    return conditions @ table


def scaled(weights: Tensor, axis: Literal[-1, -2]) -> Tensor:
    """Scale `weights (.., O, I)` to Euclidean length 1 along `axis`; what is all zero stays so, with a finite gradient.

    >>> scaled(torch.tensor([[3.0, 4.0], [0.0, 0.0]]), -1)
    tensor([[0.6000, 0.8000],
            [0.0000, 0.0000]])
    """
    length: Tensor = torch.linalg.vector_norm(weights, dim=axis, keepdim=True)
    return weights / length.masked_fill(length <= TINY, 1.0)


def additive(weights: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """`W + left @ right` for `weights (R, O, I)`, `left (R, O, N)` and `right (R, N, I)`."""
    return torch.baddbmm(weights, left, right)


def multiplicative(weights: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """`W (1 + left @ right)`, elementwise: an entry says by what share a weight changes.

    In the form `D = (T - 1) W` of a table of factors T, entries are `T - 1`: 0 changes nothing.
    """
    return torch.addcmul(weights, weights, torch.bmm(left, right))
