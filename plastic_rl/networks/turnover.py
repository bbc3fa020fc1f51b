"""Turnover of hidden units within a lifetime, neurogenesis and apoptosis: the least useful die, new ones are born.

After continual backpropagation (Dohare et al. 2024, doi 10.1038/s41586-024-07711-7), which replaces units in training;
here a lifetime does, by the same measure:

    u_j <- (1 - eta_u) u_j + eta_u |y_j| sum_k |W_kj|      after each step; W_kj: all synapses that leave the unit
    every S steps: of the units older than m steps, those of lowest u are replaced

A new unit has incoming start weights W0 of its own, drawn as those of the network were at first, and F = E = 0; its
outgoing synapses have W0 = F = 0, so that nothing depends on the new unit until a rule has taught others to listen to
it: in the step of the replacement the network puts out what it would if the old unit were cut off (but that units
which compete, or are normalised together, always hear each other). All else of it,
voltage, traces, thresholds, is as at the start of a lifetime; its bias and other parameters are those of its place.

W0 is a parameter, which all lifetimes share, so the new ones are state: `fresh (O, I)`, which stands in place of W0
where a unit was born within the lifetime. (To start F anew alone would give back the unit that died: where F is 0, the
weight is W0.) No gradient reaches W0 from there, and none passes by the choice of the units.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from pydantic import Field
from torch import Tensor

from plastic_rl.config import ConfigModel
from plastic_rl.networks.base import State, reset_entry
from plastic_rl.networks.start_weights import step_numbers
from plastic_rl.plasticity import GainConfig, StateEntry
from plastic_rl.plasticity.structure import lowest

FIRST_STREAM = 3 << 20
"""Random numbers of which unit goes come from this stream, those of new weights from the streams after it."""


class TurnoverConfig(ConfigModel):
    """How hidden units are replaced within a lifetime."""

    every: int = Field(20, ge=1, description="S, environment steps from one turnover to the next.")
    share: float = Field(
        0.05, gt=0, le=1, description="Of the hidden units, what is replaced each time: rounded, 1 unit at least."
    )
    maturity: int = Field(20, ge=0, description="m: units that have lived no more steps than this are not replaced.")
    utility_rate: float = Field(
        0.01, gt=0, le=1, description="eta_u: share of the way to a step's |output| times weights that utility moves."
    )


class Turnover:
    """Which of `size` units go, and what their successors start from.

    State entries: `utility` u and `born`, the age of the lifetime at which a unit was born, 0 with it; `(H,)` each.
    """

    def __init__(self, config: TurnoverConfig, size: int) -> None:
        self.config, self.size = config, size
        self.count = max(1, round(config.share * size))

    def state_entries(self) -> dict[str, StateEntry]:
        """What is kept of each unit."""
        return {"utility": StateEntry((self.size,)), "born": StateEntry((self.size,), dtype=torch.int64)}

    def due(self, ages: Tensor) -> Tensor:
        """Which lifetimes replace units before this step, `(.., B)` bool, given the steps that they have lived."""
        return (ages > 0) & (ages % self.config.every == 0)

    def replaced(self, utility: Tensor, born: Tensor, keys: Tensor, ages: Tensor) -> Tensor:
        """Which units go before this step, `(.., B, H)` bool: as many as are asked for, or all that are old enough.

        Args:
            utility: u, `(.., B, H)`; equals are drawn.
            born: `(.., B, H)`.
            keys: `(.., B)`.
            ages: `(.., B)`, steps that the lifetimes have lived.
        """
        mature = ages.unsqueeze(-1) - born > self.config.maturity
        numbers = step_numbers(keys, ages, FIRST_STREAM, (self.size,))
        chosen = lowest(utility.detach().masked_fill(~mature, torch.inf), numbers, self.count)
        return chosen & mature & self.due(ages).unsqueeze(-1)

    def used(self, utility: Tensor, output: Tensor, outgoing: Tensor) -> Tensor:
        """The utility `(.., B, H)` after a step.

        Args:
            utility: Before it, `(.., B, H)`.
            output: y of the step, likewise.
            outgoing: Sum of the unit's |outgoing weights|, likewise.
        """
        with torch.no_grad():
            return torch.lerp(utility, output.abs() * outgoing, self.config.utility_rate)


def fresh_weights(
    fresh: Tensor, replaced: Tensor, weight: GainConfig, keys: Tensor, ages: Tensor, number: int
) -> Tensor:
    """`fresh (.., B, O, I)` with new rows where units were `replaced (.., B, O)`, drawn as `weight` says.

    Args:
        fresh: What stands in place of W0 where units were replaced before.
        replaced: Bool.
        weight: The start weights; one number a unit where their granularity is not synapse.
        keys: `(.., B)`.
        ages: `(.., B)`.
        number: Of the synapses in the network; each has random numbers of its own.
    """
    columns = fresh.shape[-1] if weight.granularity == "synapse" else 1
    numbers = step_numbers(keys, ages, FIRST_STREAM + 1 + number, (fresh.shape[-2], columns)).to(fresh.dtype)
    return torch.where(replaced.unsqueeze(-1), weight.low + (weight.high - weight.low) * numbers, fresh)


def unit_axes(
    entries: Mapping[str, StateEntry], larger: Mapping[str, StateEntry], size: int
) -> dict[str, tuple[int, ...]]:
    """Which axes of each state entry run over the units of a layer, counted from the end, for those that have one.

    They are read off what a unit more does to the shapes, so that no part has to tell.

    Args:
        entries: Of a network whose layer has `size` units.
        larger: Of the same with one unit more.
        size: H.

    >>> unit_axes({"trace": StateEntry((6, 5))}, {"trace": StateEntry((8, 5))}, 3)  # two branches a unit
    {'trace': (-2,)}
    """
    found: dict[str, tuple[int, ...]] = {}
    for name, entry in entries.items():
        lengths = zip(entry.shape, larger[name].shape, strict=True)
        grown = [of_all != of_more and of_all * (size + 1) == of_more * size for of_all, of_more in lengths]
        if any(grown):
            found[name] = tuple(axis - len(grown) for axis, grows in enumerate(grown) if grows)
    return found


def reborn(entry: Tensor, replaced: Tensor, axes: tuple[int, ...], start: float | Tensor) -> Tensor:
    """`entry (.., B, ...)` at its `start` where it belongs to units that were `replaced (.., B, H)`.

    >>> matrix = torch.arange(9.0).reshape(1, 3, 3)
    >>> reborn(matrix, torch.tensor([[False, True, False]]), (-2, -1), -1.0)[0].tolist()
    [[0.0, -1.0, 2.0], [-1.0, -1.0, -1.0], [6.0, -1.0, 8.0]]
    """
    lead, size = replaced.dim() - 1, replaced.shape[-1]
    for axis in axes:
        length = entry.shape[axis]
        of_axis = replaced.repeat_interleave(length // size, -1)
        shape = [1] * (entry.dim() - lead)
        shape[axis] = length
        entry = reset_entry(of_axis.reshape(*replaced.shape[:-1], *shape), entry, start)
    return entry


def renewed(state: State, *, post: Tensor | None, pre: Tensor | None, weight: Tensor) -> Tensor:
    """W0 of each lifetime, `(.., B, O, I)`: `fresh` where a unit at either end was born within it.

    Args:
        state: The synapses', with `fresh (.., B, O, I)`; 0 where there is none, since no new weights come in.
        post: Whether each unit behind was born within the lifetime, `(.., B, O)` bool; None: it has no such units.
        pre: Likewise before, `(.., B, I)`.
        weight: The network's W0, `(.., O, I)` or what broadcasts to it.
    """
    born = torch.zeros((), dtype=torch.bool, device=weight.device)
    if post is not None:
        born = born | post.unsqueeze(-1)
    if pre is not None:
        born = born | pre.unsqueeze(-2)
    return torch.where(born, state.get("fresh", 0.0), weight.unsqueeze(-3))
