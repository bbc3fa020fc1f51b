"""Intrinsic plasticity: a unit adapts its own excitability, so that its output takes on a wanted distribution.

The unit is given `g I + b` in place of its input I; gain g and bias b are state and move after every step.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Annotated, Any

from pydantic import Field
from torch import Tensor

from plastic_rl.config.signatures import handed_on
from plastic_rl.plasticity import Part, StateEntry
from plastic_rl.plasticity.gains import NamedTensors
from plastic_rl.registry import Registry

LOWEST_GAIN = 1e-3
"""Of g: at 0 a unit would be silent for good, and `eta / g` infinite."""


class Intrinsic(Part):
    """How a unit's excitability adapts; numbers are parameters, what adapts is state."""

    @abstractmethod
    def state_entries(self, size: int) -> dict[str, StateEntry]:
        """What `O = size` units adapt, by name."""

    @abstractmethod
    def excited(self, params: NamedTensors, current: Tensor, state: NamedTensors) -> Tensor:
        """What the units are given in place of `current (.., B, O)`."""

    @abstractmethod
    def next_state(
        self, params: NamedTensors, current: Tensor, output: Tensor, state: NamedTensors
    ) -> dict[str, Tensor]:
        """Its entries after a step in which `current` became `output`, both `(.., B, O)`."""


class GainAndBias(Intrinsic):
    """A gain and a bias that follow a gradient of information.

    Args:
        rate: eta.
    """

    def __init__(
        self, step_size: float = 1.0, *, rate: Annotated[float, Field(ge=0, le=1)] = 0.01, **shared: Any
    ) -> None:
        super().__init__(step_size, **handed_on(locals()))

    def state_entries(self, size: int) -> dict[str, StateEntry]:
        """`gain` g, from 1, and `shift` b, from 0."""
        return {"gain": StateEntry((size,), start=1.0), "shift": StateEntry((size,))}

    def excited(self, params: NamedTensors, current: Tensor, state: NamedTensors) -> Tensor:
        """Return `g I + b`."""
        return state["gain"] * current + state["shift"]

    def next_state(
        self, params: NamedTensors, current: Tensor, output: Tensor, state: NamedTensors
    ) -> dict[str, Tensor]:
        """Return `b + db` and `g + eta / g + I db`, of which g stays above 0."""
        rate, gain = params["rate"].unsqueeze(-2), state["gain"]
        moved = rate * self.direction(params, output)
        return {
            "gain": (gain + rate / gain + current * moved).clamp_min(LOWEST_GAIN),
            "shift": state["shift"] + moved,
        }

    @abstractmethod
    def direction(self, params: NamedTensors, output: Tensor) -> Tensor:
        """`db / eta` for an output y, `(.., B, O)`."""


class Triesch(GainAndBias):
    """`db = eta (1 - (2 + 1/mu) y + y^2 / mu)`, `dg = eta / g + I db`: sigmoid rates become exponential (Triesch 2005).

    Source: Triesch 2007, doi 10.1162/neco.2007.19.4.885. The exponential distribution has the most information of all
    with its mean.

    Args:
        mean: mu, the mean rate wanted, from 0 to 1.
    """

    def __init__(
        self, step_size: float = 1.0, *, mean: Annotated[float, Field(ge=1e-3, le=1)] = 0.1, **shared: Any
    ) -> None:
        super().__init__(step_size, **handed_on(locals()))

    def direction(self, params: NamedTensors, output: Tensor) -> Tensor:
        """Return `1 - (2 + 1/mu) y + y^2 / mu`."""
        mean = params["mean"].unsqueeze(-2)
        return 1 - (2 + 1 / mean) * output + output.square() / mean


class Schrauwen(GainAndBias):
    """`db = eta (mu - y (2 s^2 + 1 - y^2 + mu y)) / s^2`, `dg = eta / g + I db`: tanh outputs become normal.

    Source: Schrauwen, Wardermann, Verstraeten, Steil & Stroobandt 2008, doi 10.1016/j.neucom.2007.12.020.

    Args:
        mean: mu, the mean output wanted, from -1 to 1.
        deviation: s, the standard deviation wanted.
    """

    def __init__(
        self,
        step_size: float = 1.0,
        *,
        mean: Annotated[float, Field(ge=-1, le=1)] = 0.0,
        deviation: Annotated[float, Field(ge=0.01, le=1)] = 0.3,
        **shared: Any,
    ) -> None:
        super().__init__(step_size, **handed_on(locals()))

    def direction(self, params: NamedTensors, output: Tensor) -> Tensor:
        """Return `(mu - y (2 s^2 + 1 - y^2 + mu y)) / s^2`."""
        mean, variance = params["mean"].unsqueeze(-2), params["deviation"].unsqueeze(-2).square()
        return (mean - output * (2 * variance + 1 - output.square() + mean * output)) / variance


class AdaptingThreshold(Intrinsic):
    """`theta <- theta + eta (y - target)`, the unit is given `I - theta`: its mean output goes to the target.

    The intrinsic plasticity of Lazar, Pipa & Triesch 2009 (doi 10.3389/neuro.10.023.2009), for spikes and rates.

    Args:
        rate: eta, in units of the input.
        target: Mean output wanted, a step of the unit.
    """

    def __init__(
        self,
        step_size: float = 1.0,
        *,
        rate: Annotated[float, Field(ge=0)] = 0.01,
        target: Annotated[float, Field(ge=-1, le=1)] = 0.1,
        **shared: Any,
    ) -> None:
        super().__init__(step_size, **handed_on(locals()))

    def state_entries(self, size: int) -> dict[str, StateEntry]:
        """`threshold_shift` theta, from 0."""
        return {"threshold_shift": StateEntry((size,))}

    def excited(self, params: NamedTensors, current: Tensor, state: NamedTensors) -> Tensor:
        """Return `I - theta`."""
        return current - state["threshold_shift"]

    def next_state(
        self, params: NamedTensors, current: Tensor, output: Tensor, state: NamedTensors
    ) -> dict[str, Tensor]:
        """Return theta moved by how far the output is beyond the target."""
        excess = output - params["target"].unsqueeze(-2)
        return {"threshold_shift": state["threshold_shift"] + params["rate"].unsqueeze(-2) * excess}


class NoIntrinsic(Intrinsic):
    """Excitability stays as it is."""

    def state_entries(self, size: int) -> dict[str, StateEntry]:
        """Nothing."""
        return {}

    def excited(self, params: NamedTensors, current: Tensor, state: NamedTensors) -> Tensor:
        """Return the current."""
        return current

    def next_state(
        self, params: NamedTensors, current: Tensor, output: Tensor, state: NamedTensors
    ) -> dict[str, Tensor]:
        """Return nothing."""
        return {}


INTRINSICS: Registry[type[Intrinsic]] = Registry("intrinsic plasticity")
INTRINSICS.register("none", NoIntrinsic)
INTRINSICS.register("triesch", Triesch)
INTRINSICS.register("schrauwen", Schrauwen)
INTRINSICS.register("adapting_threshold", AdaptingThreshold)
