"""Sleep: at the end of a trial the steps of past trials are lived through again, with plasticity on.

What is stored of a trial, per lifetime: the inputs of its first steps, what each of these brought (action and reward,
which come with the next observation), and the network's momentary state before the first of them, its age included. All
of it is stored detached: gradients reach what a replay does to synapses through the parameters and through the synapses
as they are when it begins, not through the stored steps.

Sources: Wilson & McNaughton 1994 (doi 10.1126/science.8036517); in reverse: Foster & Wilson 2006 (doi
10.1038/nature04587).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor

from plastic_rl.config import ConfigModel
from plastic_rl.errors import ConfigError
from plastic_rl.feedback import Feedback
from plastic_rl.networks.base import State
from plastic_rl.plasticity import StateEntry

PREFIX = "sleep."
INPUTS, ACTION, REWARD, STEPS = (PREFIX + name for name in ("inputs", "action", "reward", "steps"))
START = f"{PREFIX}start."


class SleepConfig(ConfigModel):
    """Replay of past trials at the end of each trial."""

    times: int = Field(1, ge=1, description="How often the stored trials are replayed at the end of a trial.")
    trials: int = Field(1, ge=1, description="How many of the last trials are stored and replayed, the oldest first.")
    steps: int | None = Field(
        None,
        ge=1,
        description="Most steps stored of a trial, its first ones; null: all, where trials have a fixed length.",
    )
    order: Literal["forward", "reverse"] = Field(
        "forward", description="Order of the steps of a trial in its replay, each with what it brought."
    )
    largest_mib: float = Field(
        16.0, gt=0, description="Most memory that the stored steps of one lifetime may take, MiB."
    )


class StoredStep(NamedTuple):
    """A stored step.

    Attributes:
        inputs: `(.., B, I)`.
        action: What was done in it, `(.., B, A)`.
        reward: What came of it, `(.., B)`.
    """

    inputs: Tensor
    action: Tensor
    reward: Tensor


class StoredTrials:
    """The stored steps of `K` trials with `C` steps each, as entries of the state.

    Args:
        config: What is asked for.
        steps_per_trial: Length of a trial where it is fixed, else None.
        input_size: `I`.
        action_size: `A`.
        momentary: The network's momentary state entries.

    Attributes:
        entries: State entries: `sleep.inputs` `(K, C, I)`, `sleep.action` `(K, C, A)`, `sleep.reward` `(K, C)`,
            `sleep.steps`, the steps of each trial so far, stored or not, `(K,)`, and `sleep.start.NAME` `(K, ...)` for
            each momentary entry. The last of the K is the trial under way.

    Raises:
        ConfigError: If it is not known how many steps are to be stored, or if they would take too much memory.
    """

    def __init__(
        self,
        config: SleepConfig,
        steps_per_trial: int | None,
        input_size: int,
        action_size: int,
        momentary: Mapping[str, StateEntry],
    ) -> None:
        steps = config.steps or steps_per_trial
        if steps is None:
            raise ConfigError(
                "network.sleep: trials have no fixed length here; give steps, the most that are stored of a trial"
            )
        self.trials, self.steps, self.reverse = config.trials, steps, config.order == "reverse"
        self._momentary = tuple(momentary)
        stored = (config.trials, steps)
        self.entries = {
            INPUTS: StateEntry((*stored, input_size)),
            ACTION: StateEntry((*stored, action_size)),
            REWARD: StateEntry(stored),
            STEPS: StateEntry((config.trials,), dtype=torch.int64),
        } | {
            START + name: StateEntry((config.trials, *entry.shape), dtype=entry.dtype)
            for name, entry in momentary.items()
        }
        size = sum(math.prod(entry.shape) * (entry.dtype or torch.float32).itemsize for entry in self.entries.values())
        if size > config.largest_mib * 2**20:
            raise ConfigError(
                f"network.sleep: up to {config.trials * steps:,} stored steps, trials * steps, take {size / 2**20:.4g} "
                f"MiB in each lifetime, more than largest_mib, {config.largest_mib:g}; store fewer, or allow more"
            )

    def told(self, stored: State, feedback: Feedback) -> State:
        """`stored`, with what the step before brought."""
        here = self._places(stored[STEPS][..., -1] - 1) & feedback.valid.unsqueeze(-1)
        return stored | {
            ACTION: _written(stored[ACTION], here, feedback.action.detach()),
            REWARD: _written(stored[REWARD], here, feedback.reward.detach()),
        }

    def noted(self, stored: State, inputs: Tensor, own: State, begins: Tensor) -> State:
        """`stored`, with this step.

        Args:
            stored: The stored steps; never modified.
            inputs: `(.., B, I)`.
            own: The network's state before this step.
            begins: Where it begins a trial, `(.., B)` bool.
        """
        if bool(begins.any()):
            first = {START + name: own[name].detach() for name in self._momentary}
            stored = {name: _moved_up(entry, first.get(name), begins) for name, entry in stored.items()}
        lived = stored[STEPS]
        return stored | {
            INPUTS: _written(stored[INPUTS], self._places(lived[..., -1]), inputs.detach()),
            STEPS: torch.cat([lived[..., :-1], lived[..., -1:] + 1], -1),
        }

    def count(self, stored: State, trial: int) -> Tensor:
        """How many steps of a trial are stored, `(.., B)`."""
        return stored[STEPS][..., trial].clamp_max(self.steps)

    def start(self, stored: State, trial: int) -> State:
        """The momentary state before its first step."""
        lead = stored[STEPS].dim() - 1
        return {name: stored[START + name].select(lead, trial) for name in self._momentary}

    def at(self, stored: State, trial: int, index: int) -> StoredStep:
        """The step of a trial that is replayed after `index` others; of lifetimes that have none, any."""
        count = self.count(stored, trial)
        place = (count - 1 - index if self.reverse else torch.full_like(count, index)).clamp(0, self.steps - 1)
        lead = count.dim()

        def taken(entry: Tensor) -> Tensor:
            of_trial = entry.select(lead, trial)
            where = place.reshape(place.shape + (1,) * (of_trial.dim() - lead))
            return of_trial.take_along_dim(where, lead).squeeze(lead)

        return StoredStep(taken(stored[INPUTS]), taken(stored[ACTION]), taken(stored[REWARD]))

    def _places(self, place: Tensor) -> Tensor:
        """Where among the C steps of the trial under way `place (.., B)` is, `(.., B, C)` bool."""
        return torch.arange(self.steps, device=place.device) == place.unsqueeze(-1)


def _written(entry: Tensor, here: Tensor, value: Tensor) -> Tensor:
    """`entry (.., B, K, C, ...)` with `value (.., B, ...)` in its last trial where `here (.., B, C)`."""
    axis = here.dim() - 1
    last = entry.select(axis, -1)
    mask = here.reshape(here.shape + (1,) * (last.dim() - here.dim()))
    written = torch.where(mask, value.unsqueeze(axis), last)
    return torch.cat([entry.narrow(axis, 0, entry.shape[axis] - 1), written.unsqueeze(axis)], axis)


def _moved_up(entry: Tensor, first: Tensor | None, begins: Tensor) -> Tensor:
    """`entry (.., B, K, ...)` with its oldest trial dropped and `first` (None: 0) of a new one, where `begins`."""
    axis = begins.dim()
    last = torch.zeros_like(entry.select(axis, 0)) if first is None else first
    moved = torch.cat([entry.narrow(axis, 1, entry.shape[axis] - 1), last.unsqueeze(axis)], axis)
    return torch.where(begins.reshape(begins.shape + (1,) * (entry.dim() - axis)), moved, entry)
