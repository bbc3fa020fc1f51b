"""The contract of every neuron: a drive and a state in, an output and the next state out.

A neuron is a part like those of a synapse (`plastic_rl.plasticity.parts`): its numbers are parameters, what changes in
a lifetime is state, and both may lead with a population axis. Units are those of each model's docstring; time is in ms.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, ClassVar, NamedTuple

import torch
from pydantic import Field
from torch import Tensor

from plastic_rl.config.signatures import handed_on
from plastic_rl.errors import ConfigError
from plastic_rl.plasticity import Parameter, Part, Setting, StateEntry
from plastic_rl.plasticity.gains import NamedTensors
from plastic_rl.registry import Registry


class Drive(NamedTuple):
    """What reaches the units in one step.

    Attributes:
        current: Input current, `(.., B, O)`.
        conductance: What the current was divided by to reach it from a reversal potential: the units get
            `current - conductance u` at voltage u, `(.., B, O)`; None: 0.
    """

    current: Tensor
    conductance: Tensor | None = None


class Neuron(Part):
    """What a unit does with its input.

    Attributes:
        spiking: Whether the output is spikes, 0 or 1, with a surrogate gradient; else a rate.
        takes_conductance: Whether the unit has a voltage on which a conductance can act.
        largest_step: The longest step that the model's integration can bear, ms.
    """

    spiking: ClassVar[bool] = False
    takes_conductance: ClassVar[bool] = False
    largest_step: ClassVar[float] = math.inf

    def parameters(self, size: int, generator: torch.Generator | None = None) -> dict[str, Parameter]:
        """Parameters of `O = size` units, by name: its `numbers` unless overridden."""
        return self.numbers()

    def state_entries(self, size: int) -> dict[str, StateEntry]:
        """What `O = size` units carry from step to step, by name. Nothing by default."""
        return {}

    @abstractmethod
    def step(self, params: NamedTensors, drive: Drive, state: NamedTensors) -> tuple[Tensor, dict[str, Tensor]]:
        """One step of `step_size` ms with the drive held.

        Args:
            params: Its parameters, by the names that `parameters` gave them.
            drive: Entries `(.., B, O)`.
            state: Its entries, `(.., B, O)`; never modified.

        Returns:
            The output, `(.., B, O)`, and its entries after the step.
        """


class SpikingNeuron(Neuron):
    """A unit with a voltage that emits spikes.

    Args:
        surrogate_slope: k of the surrogate gradient of a spike, `1 / (1 + k |v|)^2` with v the distance from the
            threshold in units that each model names (Zenke & Ganguli 2018, doi 10.1162/neco_a_01086).
        differentiate_reset: Whether gradients also flow through the reset that a spike causes.
    """

    spiking = True

    def __init__(
        self,
        step_size: float = 1.0,
        *,
        surrogate_slope: Annotated[float, Field(ge=0), Setting] = 2.0,
        differentiate_reset: bool = False,
        **shared: Any,
    ) -> None:
        super().__init__(step_size, **handed_on(locals()))

    def spikes(self, distance: Tensor) -> Tensor:
        """1 where the `distance` from the threshold is 0 or more, else 0; with the surrogate gradient."""
        return surrogate_spike(distance, self.options.surrogate_slope)

    def reset(self, spikes: Tensor, voltage: Tensor, value: Tensor) -> Tensor:
        """The voltage after the spikes: `value` where there was one."""
        fired = spikes if self.options.differentiate_reset else spikes.detach()
        return voltage + fired * (value - voltage)


class IntegratedNeuron(SpikingNeuron):
    """A unit whose equations have no closed form: `inner_steps` steps of a numerical method a step, the drive held.

    Args:
        inner_steps: Steps of the numerical method in one step.

    Raises:
        ConfigError: If these are longer than `largest_step`.
    """

    def __init__(
        self, step_size: float = 1.0, *, inner_steps: Annotated[int, Field(ge=1)] | None = None, **shared: Any
    ) -> None:
        super().__init__(step_size, **handed_on(locals()))
        needed = max(1, math.ceil(step_size / self.largest_step - 1e-9))
        self.inner_steps: int = self.options.inner_steps or needed
        if self.inner_steps < needed:
            raise ConfigError(
                f"{type(self).__name__} bears steps of {self.largest_step:g} ms at the most, got {step_size:g} ms in "
                f"{self.inner_steps} inner steps, {step_size / self.inner_steps:g} ms each; use inner_steps={needed} "
                "or more, or leave it out"
            )
        self.inner_step_size = step_size / self.inner_steps


class _Spike(torch.autograd.Function):
    """Heaviside forward, `1 / (1 + k |v|)^2` backward."""

    @staticmethod
    def forward(ctx: Any, distance: Tensor, slope: float) -> Tensor:
        ctx.save_for_backward(distance)
        ctx.slope = slope
        return (distance >= 0).to(distance.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (distance,) = ctx.saved_tensors
        return gradients[0] / (1 + ctx.slope * distance.abs()).square(), None


def surrogate_spike(distance: Tensor, slope: float) -> Tensor:
    """1 where `distance` from the threshold is 0 or more, else 0; its gradient is taken to be `1 / (1 + k |v|)^2`.

    Args:
        distance: v, of any shape.
        slope: k, 0 or more; with 0 the gradient passes unchanged.

    >>> v = torch.tensor([-1.0, 0.0, 1.0], requires_grad=True)
    >>> surrogate_spike(v, 1.0).tolist()
    [0.0, 1.0, 1.0]
    >>> torch.autograd.grad(surrogate_spike(v, 1.0).sum(), v)[0].tolist()
    [0.25, 1.0, 0.25]
    """
    spikes: Tensor = _Spike.apply(distance, slope)  # type: ignore[no-untyped-call]
    return spikes


def smooth_spike(distance: Tensor, slope: float) -> Tensor:
    """The smooth function whose true derivative is the gradient of `surrogate_spike`: `1/2 + v / (1 + k |v|)`."""
    return 0.5 + distance / (1 + slope * distance.abs())


def runge_kutta_4(
    derivative: Callable[[Sequence[Tensor]], Sequence[Tensor]], state: Sequence[Tensor], h: float
) -> list[Tensor]:
    """One step of the classical fourth-order Runge-Kutta method.

    Args:
        derivative: Change of each entry of the state per ms, given all of them.
        state: Entries of one shape.
        h: Length of the step, ms.
    """

    def moved(slopes: Sequence[Tensor], by: float) -> list[Tensor]:
        return [entry + by * slope for entry, slope in zip(state, slopes, strict=True)]

    first = derivative(state)
    second = derivative(moved(first, h / 2))
    third = derivative(moved(second, h / 2))
    fourth = derivative(moved(third, h))
    mean = [(a + 2 * b + 2 * c + d) / 6 for a, b, c, d in zip(first, second, third, fourth, strict=True)]
    return moved(mean, h)


def number(params: Mapping[str, Tensor], name: str) -> Tensor:
    """A number of a part, so that it broadcasts against `(.., B, O)`."""
    return params[name].unsqueeze(-2)


NEURONS: Registry[type[Neuron]] = Registry("neuron")
"""Neurons by the name that `network.neuron` takes."""
