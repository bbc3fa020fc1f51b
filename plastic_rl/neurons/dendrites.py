"""Dendrites: branches that each pass their input through a function of their own before the unit sums them.

Source: Poirazi, Brannon & Mel 2003, Neuron 37, doi 10.1016/S0896-6273(03)00149-1: a pyramidal neuron as a network of
two layers, `y = f(sum_branch g(sum_i w_i x_i))`, of which f is the unit's `Neuron`.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

from plastic_rl.config.signatures import handed_on
from plastic_rl.neurons.base import number
from plastic_rl.plasticity import Part
from plastic_rl.plasticity.gains import NamedTensors
from plastic_rl.plasticity.parts import Curves, ranges
from plastic_rl.registry import Registry


class Dendrites(Part):
    """What the J branches of a unit make of their input."""

    @abstractmethod
    def branch(self, params: NamedTensors, branches: Tensor) -> Tensor:
        """G of each branch's input, `(.., B, O, J)`.

        Args:
            params: Its numbers, so that they broadcast against `(.., B, O, J)`.
            branches: `sum_i w_i x_i` of each branch, `(.., B, O, J)`.
        """

    def drive(self, params: NamedTensors, branches: Tensor) -> Tensor:
        """The unit's drive, `(.., B, O)`: the sum of its branches.

        Args:
            params: Its `numbers`, by name.
            branches: `sum_i w_i x_i` of each branch, `(.., B, O, J)`; never modified.
        """
        numbers = {name: number(params, name).unsqueeze(-2) for name in ranges(type(self.options))}
        return self.branch(numbers, branches).sum(-1)

    def curves(self) -> Curves:
        """See `Part.curves`: g."""
        inputs = torch.linspace(-2, 4, 301)
        params = {name: one.value for name, one in self.numbers().items()}
        drive = self.drive(params, inputs.reshape(-1, 1, 1)).squeeze(-1)
        return Curves("input of a branch", "what it passes on", inputs, {"": drive})


class LinearBranches(Dendrites):
    """`g(x) = x`: branches make no difference, the unit is a point."""

    def branch(self, params: NamedTensors, branches: Tensor) -> Tensor:
        """See `Dendrites.branch`."""
        return branches


class SigmoidBranches(Dendrites):
    """`g(x) = 1 / (1 + exp(-(x - threshold) / width))`: a branch saturates.

    Args:
        branch_threshold: Input at which a branch is half active.
        branch_width: How much input beyond the threshold it takes to be mostly active.
    """

    def __init__(
        self,
        step_size: float = 1.0,
        *,
        branch_threshold: Annotated[float, Field(ge=-1000, le=1000)] = 1.0,
        branch_width: Annotated[float, Field(ge=1e-3, le=1000)] = 0.2,
        **shared: Any,
    ) -> None:
        super().__init__(step_size, **handed_on(locals()))

    def branch(self, params: NamedTensors, branches: Tensor) -> Tensor:
        """See `Dendrites.branch`."""
        return torch.sigmoid((branches - params["branch_threshold"]) / params["branch_width"])


class RectifiedBranches(Dendrites):
    """`g(x) = max(x - threshold, 0)`: a branch is silent up to its threshold.

    Args:
        branch_threshold: Input at which a branch begins to pass something on.
    """

    def __init__(
        self,
        step_size: float = 1.0,
        *,
        branch_threshold: Annotated[float, Field(ge=-1000, le=1000)] = 0.0,
        **shared: Any,
    ) -> None:
        super().__init__(step_size, **handed_on(locals()))

    def branch(self, params: NamedTensors, branches: Tensor) -> Tensor:
        """See `Dendrites.branch`."""
        return torch.relu(branches - params["branch_threshold"])


DENDRITES: Registry[type[Dendrites]] = Registry("dendrites")
"""Functions of branches, by name."""
DENDRITES.register("linear", LinearBranches)
DENDRITES.register("sigmoid", SigmoidBranches)
DENDRITES.register("rectified", RectifiedBranches)
