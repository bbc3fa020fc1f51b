"""When state starts anew: with the lifetime, or with each trial."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from typing import Literal

import torch
from torch import Tensor

from plastic_rl.errors import ConfigError, unknown_name_message
from plastic_rl.networks.base import State, StateEntry

ResetScope = Literal["lifetime", "trial"]


def check_reset_scopes(reset: Mapping[str, ResetScope], entries: Iterable[str], steps_per_trial: int | None) -> None:
    """Check a network's configured reset scopes.

    Args:
        reset: State entry to scope.
        entries: The network's state entries.
        steps_per_trial: Length of a trial where it is fixed, else None.

    Raises:
        ConfigError: If an entry is unknown, or if something resets with trials of one step, where only recurrence
            carries anything from step to step and nothing would be left to associate.
    """
    names = list(entries)
    for name, scope in reset.items():
        if name not in names:
            raise ConfigError(unknown_name_message("state entry in reset", name, names))
        if scope == "trial" and steps_per_trial == 1:
            raise ConfigError(
                f"reset.{name}: 'trial' is impossible here: trials have one step, and recurrent synapses then never "
                f"see two steps of one trial, so that nothing would be left to associate. Use 'lifetime'."
            )


def reset_where(start: Tensor, state: State, entries: Mapping[str, StateEntry], scope: ResetScope) -> State:
    """Return `state` with the entries that reset with `scope` zeroed where `start`; never modifies its arguments.

    A trial's entries also reset with the lifetime.

    Args:
        start: `(.., B)` bool.
        state: Entries `(.., B, ...)`.
        entries: The network's state entries.
        scope: What starts at `start`.
    """
    names = [name for name, entry in entries.items() if scope == "lifetime" or entry.reset == "trial"]
    if not names or not bool(start.any()):
        return state
    return state | {name: reset_entry(start, state[name]) for name in names}


def reset_entry(start: Tensor, entry: Tensor) -> Tensor:
    """Return `entry` `(.., B, ...)`, zeroed where `start` `(.., B)`."""
    # masked_fill, not a product: a NaN of the last lifetime must not survive.
    return torch.masked_fill(entry, start.reshape(start.shape + (1,) * (entry.dim() - start.dim())), 0)


def stretches(starts: Tensor) -> list[tuple[int, int]]:
    """Cut `T` steps before each one at which something starts: pairs of first step and one past the last.

    Args:
        starts: `(T, B)` bool.

    >>> stretches(torch.tensor([[False, False], [False, False], [True, False]]))
    [(0, 2), (2, 3)]
    """
    cuts = starts.any(dim=1).nonzero().flatten().tolist()
    return list(itertools.pairwise(sorted({0, *cuts, starts.shape[0]})))
