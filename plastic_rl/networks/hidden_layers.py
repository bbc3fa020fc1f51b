"""Layers of hidden units: which numbers of a network's parameters belong to which unit.

What they are is read off the shapes of the parameters beside those of the same network with one unit more, so that no
rule has to tell.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

READING = ("weight", "alpha", "recurrent_weight", "modulator_weight", "attention_weight")
"""Last parts of the names of parameters whose last axis runs over the units that are read."""
STRUCTURE = ("connected", "branch", "sign")
"""Likewise of those that say which synapses there are, and stay."""


@dataclass(frozen=True)
class UnitAxis:
    """An axis of a parameter that runs over units.

    Attributes:
        parameter: Its dotted name.
        axis: From 0.
        units: The unit that each index of the axis belongs to; -1 for none.
    """

    parameter: str
    axis: int
    units: tuple[int, ...]

    def of(self, chosen: Tensor, value: Tensor) -> Tensor:
        """Which numbers of the parameter's `value` belong to `chosen (H,)` bool units: a mask that broadcasts to it.

        >>> UnitAxis("weight", 1, (0, 1, -1)).of(torch.tensor([True, False]), torch.zeros(4, 3)).tolist()
        [[True, False, False]]
        """
        padded = torch.cat([chosen, chosen.new_zeros(1)])
        mask = padded[torch.tensor(self.units, device=chosen.device)]
        return mask.reshape(*(-1 if axis == self.axis else 1 for axis in range(value.dim())))

    def sums(self, size: int, value: Tensor) -> Tensor:
        """Sum of the numbers of `value` that belong to each of the `size` units, `(H,)`."""
        others = [axis for axis in range(value.dim()) if axis != self.axis]
        along = value.sum(others) if others else value
        units = torch.tensor(self.units, device=value.device)
        units = torch.where(units < 0, size, units)
        return value.new_zeros(size + 1).index_add(0, units, along)[:size]


@dataclass(frozen=True)
class HiddenLayer:
    """A layer of hidden units.

    Attributes:
        name: What the network's `watched` calls it.
        size: Number of units, H.
        own: What is a unit's own: its incoming weights, bias, gains and rates.
        outgoing: By what its output is heard.
        is_features: Whether its outputs are the network's features, so that action and value heads hear them too.
    """

    name: str
    size: int
    own: tuple[UnitAxis, ...]
    outgoing: tuple[UnitAxis, ...]
    is_features: bool


def hidden_layer(
    name: str,
    parameters: Mapping[str, Tensor],
    larger: Mapping[str, Tensor],
    size: int,
    *,
    is_features: bool,
    stacked: bool = False,
) -> HiddenLayer:
    """Find what belongs to the units of a layer.

    Args:
        name: Of the layer.
        parameters: Of the network, by name.
        larger: Of the same network whose layer has one unit more.
        size: H.
        is_features: See `HiddenLayer`.
        stacked: Where an axis has several indices for each unit, whether they stand in blocks of one for each unit (the
            gates of an LSTM) or beside each other (branches).
    """
    own: list[UnitAxis] = []
    outgoing: list[UnitAxis] = []
    for parameter, value in parameters.items():
        last = parameter.rpartition(".")[2]
        if last in STRUCTURE:
            continue
        for axis, (length, longer) in enumerate(zip(value.shape, larger[parameter].shape, strict=True)):
            if longer > length:
                one = UnitAxis(parameter, axis, _units(length, longer - length, size, stacked))
                is_read = last in READING and value.dim() > 1 and axis == value.dim() - 1
                (outgoing if is_read else own).append(one)
    return HiddenLayer(name, size, tuple(own), tuple(outgoing), is_features)


def _units(length: int, each: int, size: int, stacked: bool) -> tuple[int, ...]:
    """The unit of each index of an axis that has `each` for every unit, and others behind them."""
    units = torch.arange(size)
    units = units.repeat(each) if stacked else units.repeat_interleave(each)
    return (*units.tolist(), *(-1,) * (length - size * each))
