"""Spontaneous activity: what the inputs of a network are before there is anything to observe.

Each process is a function of a lifetime's key and age, so that it comes out the same however the network is run.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

from plastic_rl.config.signatures import handed_on
from plastic_rl.errors import ConfigError
from plastic_rl.networks.start_weights import normal_numbers, step_numbers
from plastic_rl.plasticity import Parameter, Part, Setting
from plastic_rl.plasticity.gains import NamedTensors
from plastic_rl.registry import Registry

STREAM = 1 << 21
"""Stream of a lifetime's random numbers that spontaneous activity is drawn from."""


class Process(Part):
    """What `I` inputs are, step by step, in a lifetime's spontaneous phase.

    Args:
        amplitude: Root mean square of an input, or its height where it is 0 at most times.
    """

    def __init__(
        self, step_size: float = 1.0, *, amplitude: Annotated[float, Field(ge=0)] = 1.0, **shared: Any
    ) -> None:
        super().__init__(step_size, **handed_on(locals()))

    def parameters(self, size: int, generator: torch.Generator | None = None) -> dict[str, Parameter]:
        """Parameters for `I = size` inputs, by name: its `numbers` unless overridden."""
        return self.numbers()

    def inputs(self, params: NamedTensors, keys: Tensor, ages: Tensor, size: int) -> Tensor:
        """The inputs of one step, `(.., B, I)`.

        Args:
            params: Its parameters, by the names that `parameters` gave them.
            keys: Of the lifetimes, `(.., B)`.
            ages: Steps that they have lived, `(.., B)`.
            size: `I`.
        """
        drawn = self.drawn(params, keys, ages, size).to(params["amplitude"].dtype)
        return params["amplitude"].unsqueeze(-2) * drawn

    @abstractmethod
    def drawn(self, params: NamedTensors, keys: Tensor, ages: Tensor, size: int) -> Tensor:
        """The inputs at amplitude 1; for the arguments see `inputs`."""


class White(Process):
    """Gaussian noise, independent in each input and step."""

    def drawn(self, params: NamedTensors, keys: Tensor, ages: Tensor, size: int) -> Tensor:
        """See `Process.drawn`."""
        return normal_numbers(step_numbers(keys, ages, STREAM, (size,)))


class Correlated(Process):
    """A few Gaussian sources, mixed into all inputs by a random matrix, the same in all lifetimes (after Linsker 1986).

    The columns of the matrix are orthogonal: they are the principal components of the inputs, the first one first
    (doi 10.1073/pnas.83.19.7508: structure that grows from correlated activity before there is anything to see).

    Args:
        sources: Number of sources.
        falloff: Standard deviation of each source, as a share of that of the one before.
    """

    def __init__(
        self,
        step_size: float = 1.0,
        *,
        sources: Annotated[int, Field(ge=1)] = 3,
        falloff: Annotated[float, Field(ge=0, le=1), Setting] = 0.5,
        **shared: Any,
    ) -> None:
        super().__init__(step_size, **handed_on(locals()))

    def parameters(self, size: int, generator: torch.Generator | None = None) -> dict[str, Parameter]:
        """`amplitude`, and `mixing`, `(I, sources)`, not learned.

        Raises:
            ConfigError: If there are more sources than inputs.
        """
        sources, falloff = self.options.sources, self.options.falloff
        if sources > size:
            raise ConfigError(f"sources must not exceed the {size} features that they are mixed into, got {sources}")
        directions, _ = torch.linalg.qr(torch.randn(size, sources, generator=generator, dtype=torch.float64))
        deviations = falloff ** torch.arange(sources, dtype=torch.float64)
        mixing = directions * deviations * math.sqrt(size) / deviations.norm()
        own = Parameter(mixing.to(torch.float32), trainable=False, is_gain=False)
        return self.numbers() | {"mixing": own}

    def drawn(self, params: NamedTensors, keys: Tensor, ages: Tensor, size: int) -> Tensor:
        """See `Process.drawn`."""
        mixing = params["mixing"]
        sources = normal_numbers(step_numbers(keys, ages, STREAM, (mixing.shape[-1],)))
        return sources.to(mixing.dtype) @ mixing.mT


class Waves(Process):
    """A patch of activity that moves over the inputs, which lie on a ring, as over the retina (Meister et al. 1991).

    `x_i = exp(-d^2 / (2 width^2))`, d the distance of input i from the centre of the patch. Every so many steps another
    wave begins anywhere, in either direction (doi 10.1126/science.2035024).

    Args:
        width: Standard deviation of the patch, in inputs.
        speed: Inputs that it moves on in a step.
        duration: Steps of a wave.
    """

    def __init__(
        self,
        step_size: float = 1.0,
        *,
        width: Annotated[float, Field(ge=0.1), Setting] = 1.0,
        speed: Annotated[float, Field(ge=0), Setting] = 0.5,
        duration: Annotated[int, Field(ge=1)] = 10,
        **shared: Any,
    ) -> None:
        super().__init__(step_size, **handed_on(locals()))

    def drawn(self, params: NamedTensors, keys: Tensor, ages: Tensor, size: int) -> Tensor:
        """See `Process.drawn`."""
        options = self.options
        wave = ages // options.duration
        start, way = step_numbers(keys, wave, STREAM, (2,)).unbind(-1)
        moved = torch.where(way < 0.5, -options.speed, options.speed) * (ages - wave * options.duration)
        places = torch.arange(size, dtype=start.dtype, device=start.device)
        apart = torch.remainder(places - (size * start + moved).unsqueeze(-1), size)
        distance = torch.minimum(apart, size - apart)
        return torch.exp(-distance.square() / (2 * options.width**2))


class Poisson(Process):
    """Spikes, independent in each input and step: 1 with some probability, else 0.

    Args:
        rate: Probability of a spike in a step.
    """

    def __init__(
        self, step_size: float = 1.0, *, rate: Annotated[float, Field(ge=0, le=1), Setting] = 0.1, **shared: Any
    ) -> None:
        super().__init__(step_size, **handed_on(locals()))

    def drawn(self, params: NamedTensors, keys: Tensor, ages: Tensor, size: int) -> Tensor:
        """See `Process.drawn`."""
        return step_numbers(keys, ages, STREAM, (size,)).lt(self.options.rate)


PROCESSES: Registry[type[Process]] = Registry("spontaneous process")
"""Processes by the name that `network.development.process` takes."""
PROCESSES.register("white", White)
PROCESSES.register("correlated", Correlated)
PROCESSES.register("waves", Waves)
PROCESSES.register("poisson", Poisson)
