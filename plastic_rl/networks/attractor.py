"""A network that is an attractor memory: it stores what it sees at once, and completes it (after Hopfield 1982).

    u = x - threshold
    S_0 = tanh(beta g u),   S_r = tanh(beta (W S_{r-1} + g u))     r = 1..rounds
    W <- W + (rate / N) u u^T                                      (storage: hebb)
    W <- W + (rate / u.u) (u - W u) u^T                            (storage: delta; only rows of units that are known)

There is a unit for each column that is seen, and no weight from a unit to itself in the recall, which uses the weights
that the step before left. The graded units are the mean values of `plastic_rl.memories.Hopfield`'s stochastic ones
(`S = tanh(beta h)`); the rules that write are the very functions of `plastic_rl.memories.writing`. A column at the
threshold is unknown: it drives nothing, and nothing of it is stored.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor
from typing_extensions import override

from plastic_rl.config import ConfigModel
from plastic_rl.errors import ConfigError
from plastic_rl.feedback import Feedback, FeedbackLayout
from plastic_rl.memories import writing
from plastic_rl.networks.base import Params, PlasticNetwork, State
from plastic_rl.plasticity import Parameter, Range, StateEntry

RANGES: dict[str, Range] = {
    "input_gain": (0.0, 10.0),
    "beta": (0.0, 100.0),
    "threshold": (-1.0, 1.0),
    "rate": (0.0, 2.0),
}
"""Valid values of the four parameters."""


class AttractorConfig(ConfigModel):
    """A memory of what was seen in the lifetime, which completes what is seen now."""

    kind: Literal["attractor"] = Field("attractor", description="Kind of network.")
    storage: Literal["hebb", "delta"] = Field(
        "hebb",
        description="hebb: weights grow with each showing of a pattern; delta: by what of it cannot be recalled yet.",
    )
    rounds: int = Field(3, ge=1, description="Updates of all units in a step.")
    inputs: Literal["features", "all"] = Field(
        "features",
        description="features: what stands before the feedback; all: also previous action, reward, trial start, time.",
    )
    readout: Literal["units", "head"] = Field(
        "head",
        description="units: the first units are the actions, a bit each (MultiBinary); head: an action head reads all.",
    )
    input_gain: float = Field(
        1.0, ge=0, le=10, description="Start of the learned g, by which inputs drive their units."
    )
    beta: float = Field(4.0, ge=0, le=100, description="Start of the learned inverse temperature.")
    threshold: float = Field(
        0.0, ge=-1, le=1, description="Start of the learned middle of inputs: 0 if they are +1 and -1, .5 if 1 and 0."
    )
    rate: float = Field(1.0, ge=0, le=2, description="Start of the learned rate of storing.")


class AttractorNetwork(PlasticNetwork):
    """Graded units with one weight for each pair, written in each step; four numbers are learned.

    Parameters: `input_gain` g, `beta`, `threshold` and `rate`, `(1,)` each. State entry: `weight` W `(B, N, N)`. With
    `readout: units` a bit is 1 with probability `(1 + tanh(beta h)) / 2`, h what drives its unit at last.

    Raises:
        ConfigError: If nothing is seen, or there are fewer units than actions of `readout: units`.
    """

    config_model = AttractorConfig
    config: AttractorConfig

    @override
    def build(self, feedback: FeedbackLayout, generator: torch.Generator | None, steps_per_trial: int | None) -> None:
        config = self.config
        self.units = feedback.start if config.inputs == "features" else feedback.time[1]
        self.has_readout = self.bits_only = config.readout == "units"
        self.output_size = feedback.action_size if self.has_readout else self.units
        if self.units < max(1, self.output_size):
            raise ConfigError(
                f"network.inputs={config.inputs} leaves {self.units} units, but {max(1, self.output_size)} are needed: "
                "one for each action with readout: units, else 1. Use inputs: all, or readout: head"
            )
        self._entries = {"weight": StateEntry((self.units, self.units))}
        for name, valid in RANGES.items():
            start = torch.full((1,), float(getattr(config, name)), dtype=torch.float32)
            self.adopt(name, Parameter(start, valid=valid, is_gain=name == "rate"))

    @override
    def step(
        self, params: Params, x: Tensor, feedback: Feedback, state: State, episode_start: Tensor
    ) -> tuple[Tensor, State]:
        # One number, or one for each individual, to go with (.., B, N).
        gain, beta, threshold, rate = (params[name].unsqueeze(-1) for name in RANGES)
        following = dict(self.reset(episode_start, state))
        weights = following["weight"]
        # What is unknown stands where the threshold starts, wherever learning has moved it since.
        known = (x[..., : self.units] != self.config.threshold).to(x.dtype)
        seen = (x[..., : self.units] - threshold) * known
        diagonal = weights.diagonal(dim1=-2, dim2=-1)
        drive = beta * gain * seen
        for _ in range(self.config.rounds):
            units = torch.tanh(drive)
            drive = beta * (writing.through(weights, units) - diagonal * units + gain * seen)
        if not self.plasticity_frozen:
            if self.config.storage == "hebb":
                following["weight"] = writing.hebb(weights, seen, rate.unsqueeze(-1) / self.units)
            else:
                size = seen.square().sum(-1, keepdim=True).clamp_min(1e-6)
                following["weight"] = writing.delta(weights, seen, (rate / size).unsqueeze(-1), known)
        return (drive[..., : self.output_size] if self.has_readout else torch.tanh(drive)), following

    @override
    def readout(self, params: Params, features: Tensor) -> Tensor:
        """Logits of the bits: `sigmoid(2 beta h) = (1 + tanh(beta h)) / 2`."""
        return 2 * features
