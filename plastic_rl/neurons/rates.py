"""Rate units: the output is a function of the present input alone."""

from __future__ import annotations

import torch
from torch import Tensor

from plastic_rl.neurons.base import NEURONS, Drive, Neuron
from plastic_rl.plasticity.gains import NamedTensors


class Tanh(Neuron):
    """`y = tanh(I)`, from -1 to 1: the unit of Miconi et al. (2018, 2019)."""

    def step(self, params: NamedTensors, drive: Drive, state: NamedTensors) -> tuple[Tensor, dict[str, Tensor]]:
        """See `Neuron.step`."""
        return torch.tanh(drive.current), {}


class ReLU(Neuron):
    """`y = max(I, 0)`."""

    def step(self, params: NamedTensors, drive: Drive, state: NamedTensors) -> tuple[Tensor, dict[str, Tensor]]:
        """See `Neuron.step`."""
        return torch.relu(drive.current), {}


class Sigmoid(Neuron):
    """`y = 1 / (1 + exp(-I))`, from 0 to 1."""

    def step(self, params: NamedTensors, drive: Drive, state: NamedTensors) -> tuple[Tensor, dict[str, Tensor]]:
        """See `Neuron.step`."""
        return torch.sigmoid(drive.current), {}


class Linear(Neuron):
    """`y = I`."""

    def step(self, params: NamedTensors, drive: Drive, state: NamedTensors) -> tuple[Tensor, dict[str, Tensor]]:
        """See `Neuron.step`."""
        return drive.current, {}


NEURONS.register("tanh", Tanh)
NEURONS.register("relu", ReLU)
NEURONS.register("sigmoid", Sigmoid)
NEURONS.register("linear", Linear)
