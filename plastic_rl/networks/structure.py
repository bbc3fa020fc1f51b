"""Which synapses there are, in the networks: drawn from a lifetime's key as it starts, and rewired every so many steps.

A network that has synapses with such a structure carries `key (B,)` and, where they rewire, `age (B,)`, the steps that
a lifetime has lived.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from plastic_rl.networks.base import Params, State
from plastic_rl.networks.start_weights import step_numbers, uniform_numbers
from plastic_rl.plasticity import StateEntry, Synapse
from plastic_rl.plasticity.structure import Rewire, Sparse

CLOCK = {"key": StateEntry((), dtype=torch.int64), "age": StateEntry((), dtype=torch.int64, momentary=True)}
"""What random numbers of a lifetime's steps follow from."""
FIRST_STREAM = 1 << 20
"""Random numbers of the structure of synapses number n come from stream `FIRST_STREAM + n`."""


def clock_entries(synapses: Iterable[Synapse]) -> dict[str, StateEntry]:
    """`key` and `age`, as far as the structures of these synapses need them."""
    structures = [synapse.structure for synapse in synapses]
    names = ["key"] if any(one.draws or one.rewires for one in structures) else []
    names += ["age"] if any(one.rewires for one in structures) else []
    return {name: CLOCK[name] for name in names}


def drawn_structure(synapse: Synapse, keys: Tensor, number: int) -> State:
    """M of newborn lifetimes, `(.., O, I)`, where they draw it: a function of `keys (..)`, for synapses `number`."""
    structure, (post_size, pre_size) = synapse.structure, (synapse.post_size, synapse.pre_size)
    if not (isinstance(structure, Sparse) and structure.draws):
        return {}
    distinct, place = torch.unique(keys, return_inverse=True)
    numbers = uniform_numbers(distinct, FIRST_STREAM + number, post_size * pre_size)
    return {"connected": structure.first(numbers, post_size, pre_size)[place]}


def rewired(
    synapse: Synapse, params: Params, start: Tensor | None, own: State, keys: Tensor, ages: Tensor, number: int
) -> State:
    """What of the state of synapses `number` changes before a step: M, F and what else each synapse has.

    Args:
        synapse: The synapses.
        params: Their parameters, under their own names.
        start: W0, `(.., O, I)`; None: 0.
        own: Their state, under their own names; never modified.
        keys: `(.., B)`.
        ages: `(.., B)`, the steps lived before this one.
        number: Among the network's synapses; each has random numbers of its own.
    """
    structure = synapse.structure
    if not isinstance(structure, Rewire):
        return {}
    due = structure.due(ages)
    if not bool(due.any()):
        return {}
    numbers = step_numbers(keys, ages, FIRST_STREAM + number, (synapse.post_size * synapse.pre_size,))
    return synapse.rewired(params, start, own, numbers, due)
