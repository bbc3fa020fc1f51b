"""Turnover of hidden units in training: continual backpropagation (Dohare et al. 2024, doi 10.1038/s41586-024-07711-7).

After each update, in each layer of hidden units:

    u_j <- (1 - eta_u) u_j + eta_u mean |h_j| sum_k |w_kj|       the mean is over all steps of the rollout
    c <- c + rho (units older than m updates)
    while c >= 1: the one of them of lowest u is replaced, c <- c - 1

A new unit has incoming weights (and bias, gains, rates) drawn as at the start; what hears it, in the network and in the
action and value heads, has weights 0; the optimizer's running averages of all these numbers are 0, and u and its age.

Where a unit is heard by plastic synapses, W = W0 + alpha F, its alpha counts as a weight and is 0 in a new unit, where
it is one number for each synapse; else traces still carry the unit's output on. A modulator's novelty compares the
outputs of the whole layer, and hears a new unit at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from plastic_rl.algorithms.weight_changes import WeightChange, forget
from plastic_rl.checkpoint import count_in
from plastic_rl.config import ConfigModel
from plastic_rl.envs.vector_env import stored_array
from plastic_rl.errors import CheckpointError, ConfigError
from plastic_rl.networks.hidden_layers import HiddenLayer
from plastic_rl.plasticity.structure import lowest
from plastic_rl.policies import PlasticPolicy


class UnitTurnoverConfig(ConfigModel):
    """How hidden units of little use are replaced in training."""

    rate: float = Field(
        1e-4, gt=0, le=1, description="rho: share of the units older than maturity that is replaced in an update."
    )
    maturity: int = Field(100, ge=0, description="m: units of no more updates than this are not replaced.")
    utility_rate: float = Field(
        0.01, gt=0, le=1, description="eta_u: share of the way to an update's |output| times weights that u moves."
    )


class UnitTurnover(WeightChange):
    """Replaces the hidden units of least use.

    Args:
        config: How many, and when.
        policy: Whose units; with its optimizer.
        generator: Draws new weights, and among units of the same utility.

    Attributes:
        utility: u by layer, `(H,)` each.
        age: Updates that each unit has lived, by layer.
        due: c by layer, the units that are to be replaced, in fractions.
        count: Units replaced so far.

    Raises:
        ConfigError: If the network has no hidden units whose weights are parameters.
    """

    def __init__(self, config: UnitTurnoverConfig, policy: PlasticPolicy, generator: torch.Generator) -> None:
        self.config, self.policy, self.generator = config, policy, generator
        self.layers = {layer.name: layer for layer in policy.hidden_layers()}
        if not self.layers:
            raise ConfigError(
                f"unit_turnover needs hidden units whose weights, in and out, are parameters, and this "
                f"{policy.network_config['kind']} network has none. Use plastic_rnn, plastic_units (with outgoing "
                "weights of granularity synapse that are trained or plastic), plastic_feed_forward (start: trained, "
                "with a hidden layer), rnn, gru or lstm, or leave unit_turnover out"
            )
        self._begin()

    def _begin(self) -> None:
        # In float64 on the CPU, whatever the policy's device: what is kept is small, and saved as it is.
        self.utility = {name: torch.zeros(layer.size, dtype=torch.float64) for name, layer in self.layers.items()}
        self.age = {name: torch.zeros(layer.size, dtype=torch.int64) for name, layer in self.layers.items()}
        self.due = dict.fromkeys(self.layers, 0.0)
        self.count = 0
        self._forget_outputs()

    def _forget_outputs(self) -> None:
        self._outputs = {name: torch.zeros(layer.size, dtype=torch.float32) for name, layer in self.layers.items()}
        self._steps = 0

    def acted(self, outputs: Mapping[str, Tensor], counted: Tensor) -> None:
        """See `WeightChange.acted`."""
        for name in self.layers:
            output = outputs[name]
            total = output[counted.to(output.device)].abs().sum(0)
            self._outputs[name] = self._outputs[name].to(total.device) + total
        self._steps += int(counted.sum())

    def before_step(self) -> None:
        """See `WeightChange.before_step`: gradients are left as they are."""

    def outgoing(self, layer: HiddenLayer) -> Tensor:
        """Sum of the |weights| by which each unit of a layer is heard, `(H,)`."""
        parameters = self.policy.parameters_by_name()
        total = torch.zeros(layer.size, dtype=torch.float64)
        for one in layer.outgoing:
            total += one.sums(layer.size, parameters[one.parameter].detach().abs()).double().cpu()
        return total

    @torch.no_grad()
    def after_step(self, remaining: float) -> dict[str, float]:
        """See `WeightChange.after_step`: utilities, ages, and the replacement of those who are due."""
        for name, layer in self.layers.items():
            self.age[name] += 1
            if self._steps:
                output = self._outputs[name].double().cpu() / self._steps
                self.utility[name].lerp_(output * self.outgoing(layer), self.config.utility_rate)
            mature = self.age[name] > self.config.maturity
            self.due[name] += self.config.rate * int(mature.sum())
            # Ten tenths are a whole, whatever their sum is in binary.
            replaced = min(int(self.due[name] + 1e-9), int(mature.sum()))
            if replaced:
                self.due[name] = max(0.0, self.due[name] - replaced)
                numbers = torch.rand(layer.size, generator=self.generator, dtype=torch.float64)
                chosen = lowest(self.utility[name].masked_fill(~mature, torch.inf), numbers, replaced)
                self.replace(layer, chosen)
                self.count += replaced
        self._forget_outputs()
        return {"replaced_units": self.count}

    @torch.no_grad()
    def replace(self, layer: HiddenLayer, chosen: Tensor) -> None:
        """Replace the units of a layer that are `chosen (H,)` bool."""
        fresh = self.policy.network.rebuilt(self.generator).state_dict()
        parameters: dict[str, Any] = self.policy.parameters_by_name()
        for one in layer.own:
            parameter = parameters[one.parameter]
            where = one.of(chosen.to(parameter.device), parameter)
            drawn = fresh[one.parameter.removeprefix("network.")].to(parameter)
            parameter.copy_(torch.where(where, drawn, parameter))
            forget(self.policy.optimizer, parameter, where)
        for one in layer.outgoing:
            parameter = parameters[one.parameter]
            where = one.of(chosen.to(parameter.device), parameter)
            parameter.masked_fill_(where, 0.0)
            forget(self.policy.optimizer, parameter, where)
        self.utility[layer.name][chosen] = 0.0
        self.age[layer.name][chosen] = 0

    def document(self) -> dict[str, Any]:
        """See `WeightChange.document`."""
        layers = {
            name: {"utility": self.utility[name].numpy().copy(), "age": self.age[name].numpy().copy(), "due": own}
            for name, own in self.due.items()
        }
        return {"layers": layers, "count": self.count}

    def restore(self, document: dict[str, Any] | None) -> None:
        """See `WeightChange.restore`."""
        self._begin()
        if document is None:
            return
        self.count = count_in(document, "count")
        for name in self.layers:
            stored = document["layers"][name]
            utility = stored_array("utility", stored["utility"], self.utility[name].numpy())
            age = stored_array("age", stored["age"], self.age[name].numpy())
            due = float(stored["due"])
            if not (np.isfinite(utility).all() and (age >= 0).all() and 0 <= due <= self.layers[name].size):
                raise CheckpointError(
                    f"what is stored of the units of layer {name!r} must be finite utilities, ages of 0 or more and at "
                    f"most {self.layers[name].size} units due, got {utility}, {age} and {due}"
                )
            self.utility[name], self.age[name], self.due[name] = torch.from_numpy(utility), torch.from_numpy(age), due
