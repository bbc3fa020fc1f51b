"""Development: a lifetime's time before its first observation, and plasticity that falls with age.

    x_t = spontaneous activity, t < steps             no action, no reward, no trial: nothing is gated by a reward
    eta(a) = eta (floor + (1 - floor) exp(-a / tau))  a: environment steps since birth, the spontaneous ones included

Sources: spontaneous activity before there is anything to see: Wong, Meister & Shatz 1993 (doi
10.1016/0896-6273(93)90122-8), Linsker 1986; critical periods: Hensch 2005 (doi 10.1038/nrn1787).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from plastic_rl.config import ConfigModel
from plastic_rl.errors import ConfigError
from plastic_rl.networks.base import Params, State
from plastic_rl.networks.spontaneous import PROCESSES
from plastic_rl.plasticity import Named, Parameter, Range, make_part, named_in

PROCESS, CRITICAL_PERIOD = "process", "critical_period"
TAU_RANGE: Range = (1.0, 1e6)


class CriticalPeriodConfig(ConfigModel):
    """How plasticity falls with age: by the factor `floor + (1 - floor) exp(-age / tau)`."""

    tau: float = Field(
        200.0, ge=TAU_RANGE[0], le=TAU_RANGE[1], description="Time constant, environment steps since birth."
    )
    floor: float = Field(0.1, ge=0, le=1, description="Share of plasticity that stays.")
    learned: tuple[Literal["tau", "floor"], ...] = Field(
        (), description="Which of the two the outer loop changes; the others stay as they are."
    )


class DevelopmentConfig(ConfigModel):
    """A lifetime's spontaneous phase, and its critical period."""

    steps: int = Field(
        100,
        ge=0,
        description="Environment steps that the network lives on spontaneous activity, plastic, before its first "
        "observation; 0: none.",
    )
    process: Annotated[Named, named_in(PROCESSES)] = Field(
        "white", description="What its features are in this time; the columns of the feedback are 0."
    )
    critical_period: CriticalPeriodConfig | None = Field(
        None, description="How plasticity falls with age, the spontaneous phase included; null: it stays."
    )

    @model_validator(mode="after")
    def _does_something(self) -> Self:
        if self.steps == 0 and self.critical_period is None:
            raise ValueError("steps: 0 without a critical_period would do nothing; leave development out")
        if self.steps == 0 and self.process != type(self).model_fields["process"].default:
            raise ValueError("process would do nothing with steps: 0; leave it out, or give steps")
        return self


class Development:
    """What development is made of, for networks with `I` inputs.

    Args:
        config: What is asked for.
        input_size: `I`, the whole observation.
        features: How many of them are features; the feedback comes after.

    Raises:
        ConfigError: If there are no features to be active.
    """

    def __init__(self, config: DevelopmentConfig, input_size: int, features: int) -> None:
        if config.steps and features < 1:
            raise ConfigError(
                "network.development: this environment has no features that could be active before the first "
                "observation; use steps: 0"
            )
        self.config = config
        self.steps = config.steps
        self.input_size, self.features = input_size, features
        self.process = make_part(PROCESSES, config.process) if config.steps else None

    def parameters(self, generator: torch.Generator | None) -> dict[str, dict[str, Parameter]]:
        """Parameters of the process and of the critical period, by their names."""
        own: dict[str, dict[str, Parameter]] = {}
        if self.process is not None:
            own[PROCESS] = self.process.parameters(self.features, generator)
        period = self.config.critical_period
        if period is not None:
            own[CRITICAL_PERIOD] = {
                name: Parameter(
                    torch.full((1,), getattr(period, name), dtype=torch.float32),
                    name in period.learned,
                    valid=valid,
                    is_gain=False,
                )
                for name, valid in {"tau": TAU_RANGE, "floor": (0.0, 1.0)}.items()
            }
        return own

    def inputs(self, params: Mapping[str, Tensor], state: State) -> Tensor:
        """The observation `(.., B, I)` of a step of the spontaneous phase, by `key` and `age` in the state."""
        assert self.process is not None, "there is a spontaneous phase"
        features = self.process.inputs(params, state["key"], state["age"], self.features)
        return torch.nn.functional.pad(features, (0, self.input_size - self.features))


def openness(params: Params, ages: Tensor) -> Tensor:
    """`floor + (1 - floor) exp(-age / tau)`, `(.., B)`, for `ages (.., B)`.

    >>> params = {"tau": torch.tensor([10.0]), "floor": torch.tensor([0.2])}
    >>> [round(one, 4) for one in openness(params, torch.tensor([0, 10])).tolist()]
    [1.0, 0.4943]
    """
    tau, floor = params["tau"], params["floor"]
    return floor + (1 - floor) * torch.exp(-ages.to(tau.dtype) / tau)
