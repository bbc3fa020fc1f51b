"""The contract of every neuron: a drive and a state in, an output and the next state out.

A neuron is a part like those of a synapse (`plastic_rl.plasticity.parts`): its numbers are parameters, what changes in
a lifetime is state, and both may lead with a population axis. Units are those of each model's docstring; time is in ms.
"""

from __future__ import annotations

import itertools
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
from plastic_rl.plasticity.parts import ranges
from plastic_rl.registry import Registry

Voltage = Annotated[float, Field(ge=-1000, le=1000)]
"""mV."""
FAR_BELOW = -1e6
"""Distance from the threshold of a voltage that cannot spike in this step, whatever it is."""
LEAST_FALL = 1e-3
"""How far below its cut-off a voltage is set back at the least, mV."""
REST_GRID = 2001
"""Voltages at which a rest is looked for, in each of its refinements."""


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
        variables: The state entries whose `change` the model's equations give, the voltage first; none by default.
    """

    spiking: ClassVar[bool] = False
    takes_conductance: ClassVar[bool] = False
    largest_step: ClassVar[float] = math.inf
    variables: ClassVar[tuple[str, ...]] = ()

    def parameters(self, size: int, generator: torch.Generator | None = None) -> dict[str, Parameter]:
        """Parameters of `O = size` units, by name: its `numbers` unless overridden."""
        return self.numbers()

    def state_entries(self, size: int) -> dict[str, StateEntry]:
        """What `O = size` units carry from step to step, by name. Nothing by default."""
        return {}

    def change(self, params: NamedTensors, drive: Drive, values: Sequence[Tensor]) -> list[Tensor]:
        """Change of each of its `variables` per ms, of the shape of `values`: for phase planes and Jacobians."""
        return []

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
    """A unit with a voltage that emits spikes, one a step at the most.

    Args:
        surrogate_slope: k of the surrogate gradient of a spike, `1 / (1 + k |v|)^2` with v the distance from the
            threshold in units that each model names (Zenke & Ganguli 2018, doi 10.1162/neco_a_01086).

    Attributes:
        spike_function: Of the distance and k: `surrogate_spike`; tests of gradients put `smooth_spike` in its place.
    """

    spiking = True

    def __init__(
        self,
        step_size: float = 1.0,
        *,
        surrogate_slope: Annotated[float, Field(ge=0, le=1000), Setting] = 2.0,
        **shared: Any,
    ) -> None:
        super().__init__(step_size, **handed_on(locals()))
        self.spike_function = surrogate_spike

    def spikes(self, distance: Tensor) -> Tensor:
        """1 where the `distance` from the threshold is 0 or more, else 0; with the surrogate gradient."""
        return self.spike_function(distance, self.options.surrogate_slope)

    def check_increasing(self, *names: str) -> None:
        """Refuse options that are not increasing in this order.

        Raises:
            ConfigError: Naming the first two that are not.
        """
        for low, high in itertools.pairwise(names):
            lower, upper = getattr(self.options, low), getattr(self.options, high)
            if lower >= upper:
                raise ConfigError(
                    f"{low} of {type(self).__name__} must be below its {high}, got {low}={lower:g}, {high}={upper:g}"
                )


class ResettingNeuron(SpikingNeuron):
    """A unit whose voltage is set back by a spike.

    Args:
        differentiate_reset: Whether gradients also flow through the reset that a spike causes.
    """

    def __init__(self, step_size: float = 1.0, *, differentiate_reset: bool = False, **shared: Any) -> None:
        super().__init__(step_size, **handed_on(locals()))

    def reset(self, spikes: Tensor, voltage: Tensor, value: Tensor) -> Tensor:
        """The voltage after the spikes: `value` where there was one."""
        fired = spikes if self.options.differentiate_reset else spikes.detach()
        return fired * value + (1 - fired) * voltage

    @staticmethod
    def below(cutoff: Tensor, value: Tensor) -> Tensor:
        """The reset `value`, or just below the `cutoff` where one of them was learned across the other."""
        return torch.minimum(value, cutoff - LEAST_FALL)


class IntegratedNeuron(SpikingNeuron):
    """A unit whose equations have no closed form: `inner_steps` steps of a numerical method a step, the drive held.

    Args:
        inner_steps: Steps of the numerical method in one step; by default as few as it can bear.

    Attributes:
        voltages: Range in which a rest is looked for.

    Raises:
        ConfigError: If these are longer than `largest_step`.
    """

    voltages: ClassVar[tuple[float, float]] = (-1000.0, 1000.0)

    def __init__(
        self, step_size: float = 1.0, *, inner_steps: Annotated[int | None, Field(ge=1)] = None, **shared: Any
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

    @abstractmethod
    def coefficients(
        self, params: NamedTensors, drive: Drive, values: Sequence[Tensor]
    ) -> Sequence[tuple[Tensor, Tensor]]:
        """The model's equations: A and B of each of its `variables` x, `dx/dt = A - B x`.

        Those of the voltage may depend on all variables, those of the others on the voltage alone.

        Args:
            params: Its numbers, so that they broadcast against `(.., B, O)`.
            drive: Entries `(.., B, O)`.
            values: Of its `variables`, `(.., B, O)` each.
        """

    @abstractmethod
    def inner_step(self, params: NamedTensors, drive: Drive, values: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Distance from a spike, `(.., B, O)`, 0 or more where there is one, and the values after an inner step.

        The arguments are those of `coefficients`.
        """

    def advance(self, params: NamedTensors, drive: Drive, values: Sequence[Tensor]) -> list[Tensor]:
        """The values that its equations alone lead to in an inner step, by the exponential midpoint rule."""
        return exponential_midpoint(lambda at: self.coefficients(params, drive, at), values, self.inner_step_size)

    def step(self, params: NamedTensors, drive: Drive, state: NamedTensors) -> tuple[Tensor, dict[str, Tensor]]:
        """See `Neuron.step`. The surrogate gradient is that of the inner step that came nearest to a spike."""
        numbers = self.broadcast(params)
        nearest, values = self.inner_step(numbers, drive, [state[name] for name in self.variables])
        for _ in range(self.inner_steps - 1):
            distance, values = self.inner_step(numbers, drive, values)
            nearest = torch.maximum(nearest, distance)
        return self.spikes(nearest), dict(zip(self.variables, values, strict=True))

    def broadcast(self, params: NamedTensors) -> dict[str, Tensor]:
        """Its numbers, so that they broadcast against `(.., B, O)`."""
        return {name: number(params, name) for name in ranges(type(self.options))}

    def change(self, params: NamedTensors, drive: Drive, values: Sequence[Tensor]) -> list[Tensor]:
        """See `Neuron.change`."""
        pairs = self.coefficients(self.broadcast(params), drive, values)
        return [gain - decay * value for (gain, decay), value in zip(pairs, values, strict=True)]

    def steady(self, params: NamedTensors, voltage: Tensor) -> list[Tensor]:
        """The values of its `variables` where all but the voltage have come to rest at `voltage (.., B, O)`."""
        values = [voltage, *(torch.zeros_like(voltage) for _ in self.variables[1:])]
        others = self.coefficients(self.broadcast(params), Drive(torch.zeros_like(voltage)), values)[1:]
        return [voltage, *(gain / decay for gain, decay in others)]

    def rest(self) -> float | None:
        """The lowest voltage to which the unit returns without a drive; None if there is no such."""
        params = exact_numbers(self)
        low, high = self.voltages
        for _ in range(4):
            grid = torch.linspace(low, high, REST_GRID, dtype=torch.float64).unsqueeze(-1)
            falls = self.change(params, Drive(torch.zeros_like(grid)), self.steady(params, grid))[0].squeeze(-1) <= 0
            stable = (falls[1:] & ~falls[:-1]).nonzero()
            if len(stable) == 0:
                return None
            low, high = grid[stable[0, 0]].item(), grid[stable[0, 0] + 1].item()
        return (low + high) / 2

    def restless_start(self) -> float:
        """The voltage that it starts from where it has no rest: the lowest, unless overridden."""
        return self.voltages[0]

    def state_entries(self, size: int) -> dict[str, StateEntry]:
        """Its `variables`, from rest; where it has none, from `restless_start`.

        The start follows from the options; a number that is learned does not move it.
        """
        rest = self.rest()
        voltage = self.restless_start() if rest is None else rest
        starts = self.steady(exact_numbers(self), torch.full((1, 1), voltage, dtype=torch.float64))
        return {
            name: StateEntry((size,), start=start.item()) for name, start in zip(self.variables, starts, strict=True)
        }


class CrossingNeuron(IntegratedNeuron):
    """A unit without a reset: it spikes where its voltage crosses the threshold upwards.

    The surrogate gradient is that of the highest voltage which an inner step reached from below the threshold, so that
    a spike gets it once, where it rises; v is that voltage's distance from the threshold in units of `voltage_unit`.

    Args:
        threshold: Voltage whose upward crossing is a spike, mV.

    Attributes:
        voltage_unit: Unit of the distance from the threshold.
    """

    voltage_unit: ClassVar[float] = 50.0

    def __init__(self, step_size: float = 1.0, *, threshold: Voltage = 0.0, **shared: Any) -> None:
        super().__init__(step_size, **handed_on(locals()))

    def inner_step(self, params: NamedTensors, drive: Drive, values: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """See `IntegratedNeuron.inner_step`."""
        following, threshold = self.advance(params, drive, values), params["threshold"]
        distance = (following[0] - threshold) / self.voltage_unit
        return torch.where(values[0] < threshold, distance, FAR_BELOW), following


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


def phi_1(z: Tensor) -> Tensor:
    """`(exp(z) - 1) / z`, 1 at z = 0."""
    small = z.abs() < 1e-4
    divisor = torch.where(small, 1.0, z)
    return torch.where(small, 1 + z / 2 + z.square() / 6, torch.expm1(divisor) / divisor)


def exponential_midpoint(
    coefficients: Callable[[Sequence[Tensor]], Sequence[tuple[Tensor, Tensor]]], values: Sequence[Tensor], h: float
) -> list[Tensor]:
    """One step of `dx/dt = A(x) - B(x) x` for several x, exact where A and B are constant; second order else.

    Half a step with A and B as they stand, then the whole step with those of its end (Hochbruck & Ostermann 2010,
    doi 10.1017/S0962492910000048). What is at rest stays so, and B >= 0 is stable for every h: unlike an explicit
    method of Runge and Kutta, this one bears the strongest drive.

    Args:
        coefficients: A and B of each x, given all of them; all of the shape of x.
        values: x, of one shape.
        h: Length of the step, ms.

    >>> one = torch.ones((), dtype=torch.float64)
    >>> (x,) = exponential_midpoint(lambda at: [(3 * one, one)], [one], 2.0)
    >>> round(x.item(), 9) == round(3 - 2 * math.exp(-2.0), 9)
    True
    """
    start = torch.stack(list(values))

    def moved(pairs: Sequence[tuple[Tensor, Tensor]], by: float) -> list[Tensor]:
        gains, decays = (torch.stack(entries) for entries in zip(*pairs, strict=True))
        return list((start + by * phi_1(-by * decays) * (gains - decays * start)).unbind())

    return moved(coefficients(moved(coefficients(values), h / 2)), h)


def number(params: Mapping[str, Tensor], name: str) -> Tensor:
    """A number of a part, so that it broadcasts against `(.., B, O)`."""
    return params[name].unsqueeze(-2)


def exact_numbers(neuron: Neuron) -> dict[str, Tensor]:
    """The numbers of a neuron in double precision: as its options have them, not as float32 holds them, `(1,)`."""
    names = ranges(type(neuron.options))
    return {name: torch.tensor([getattr(neuron.options, name)], dtype=torch.float64) for name in names}


NEURONS: Registry[type[Neuron]] = Registry("neuron")
"""Neurons by the name that `network.neuron` takes."""
