"""Homeostasis: what holds the activity of units, or the strength of their synapses, once in an environment step.

A synapse may be told of the outputs of its post units in every substep (`observed`), and changes once a step (`held`),
after bound and normalisation.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from plastic_rl.config.signatures import handed_on
from plastic_rl.plasticity.gains import NamedTensors, Parameter
from plastic_rl.plasticity.parts import Part, Setting, StateEntry, momentary
from plastic_rl.registry import Registry


class Homeostasis(Part):
    """No homeostasis: nothing but bound and normalisation holds a synapse.

    Attributes:
        scales: True where there is a factor s on the whole weight, `W = s M (W0 + alpha F)`: state entry `scale`,
            `(O,)`.
    """

    scales: ClassVar[bool] = False

    def parameters(self) -> dict[str, Parameter]:
        """Parameters of its own, by name: its `numbers` unless overridden."""
        return self.numbers()

    def state_entries(self, post_size: int) -> dict[str, StateEntry]:
        """What it carries from step to step, by name. Nothing by default."""
        return {}

    def observed(self, params: NamedTensors, post: Tensor, state: NamedTensors) -> dict[str, Tensor]:
        """What it keeps of the outputs of one environment step.

        Args:
            params: The network's parameters.
            post: `y`, `(.., B, S, O)`: S substeps.
            state: Its own entries; never modified.
        """
        return {}

    def held(
        self, params: NamedTensors, trace: Tensor, slow: Tensor | None, state: NamedTensors
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The trace and its own entries after an environment step.

        Args:
            params: The network's parameters.
            trace: `F`, `(.., B, O, I)`, as changed, bounded and normalised.
            slow: The slow copy of F that a consolidation keeps, likewise; None: there is none.
            state: With what `observed` returned.
        """
        return trace, {}


class SynapticScaling(Homeostasis):
    """`ds/dt = eta s (rho - rbar)`, `W = s (W0 + alpha F)`: all of a unit's weights grow until it is active enough.

    One step takes the exact solution for a unit whose activity is in proportion to s, `s <- s / (e + rbar (1 - e) /
    rho)` with `e = exp(-eta rho)`, under which s stays above 0 and ratios of weights stay as they are. rbar is a
    running average of |y|, over substeps and steps: of spikes, their share of substeps (Turrigiano et al. 1998, doi
    10.1038/36103; van Rossum, Bi & Turrigiano 2000).

    Args:
        scaling_target: rho, mean of |y| that is sought.
        scaling_rate: eta, in an environment step.
        scaling_average: Share of the way to a step's mean |y| that rbar moves.
        largest: s stays between 1 / largest and largest.
    """

    scales = True

    def __init__(
        self,
        step_size: float = 1.0,
        *,
        scaling_target: Annotated[float, Field(ge=1e-6)] = 0.5,
        scaling_rate: Annotated[float, Field(ge=0, le=1)] = 0.01,
        scaling_average: Annotated[float, Field(ge=0, le=1)] = 0.05,
        largest: Annotated[float, Field(ge=1), Setting] = 10.0,
        **shared: Any,
    ) -> None:
        super().__init__(step_size, **handed_on(locals()))

    def state_entries(self, post_size: int) -> dict[str, StateEntry]:
        """`scale` s, from 1; `mean_activity` rbar, from rho: `(O,)`."""
        return {
            "scale": StateEntry((post_size,), start=1.0),
            "mean_activity": StateEntry((post_size,), start="scaling_target"),
        }

    def observed(self, params: NamedTensors, post: Tensor, state: NamedTensors) -> dict[str, Tensor]:
        """Return rbar with the step's mean |y| taken in."""
        average = params["scaling_average"].unsqueeze(-2)
        return {"mean_activity": torch.lerp(state["mean_activity"], post.abs().mean(-2), average)}

    def held(
        self, params: NamedTensors, trace: Tensor, slow: Tensor | None, state: NamedTensors
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return F as it is, and s after the step."""
        target = params["scaling_target"].unsqueeze(-2)
        exponent = -params["scaling_rate"].unsqueeze(-2) * target
        divisor = exponent.exp() - state["mean_activity"] * torch.expm1(exponent) / target
        largest = self.options.largest
        return trace, {"scale": (state["scale"] / divisor).clamp(1 / largest, largest)}


class Heterosynaptic(Homeostasis):
    """`dF = - beta z^3 y (F - F_slow)`: bursts of a unit pull all of its synapses back (Zenke et al. 2015).

    y is the spike, or |rate|, and z a trace of it, read before y raises it; F_slow is the slow copy that consolidation
    keeps, and 0 where there is none: back to W0. Within a step the exact solution is taken, so that F never passes
    F_slow (doi 10.1038/ncomms7922).

    Args:
        heterosynaptic_rate: beta.
        tau_heterosynaptic: Time constant of z, ms.
    """

    def __init__(
        self,
        step_size: float = 1.0,
        *,
        heterosynaptic_rate: Annotated[float, Field(ge=0)] = 0.05,
        tau_heterosynaptic: Annotated[float, Field(ge=0.1, le=1e6)] = 20.0,
        **shared: Any,
    ) -> None:
        super().__init__(step_size, **handed_on(locals()))

    def state_entries(self, post_size: int) -> dict[str, StateEntry]:
        """`burst_trace` z; `bursts`, the sum of `z^3 y` over the substeps of the last step: `(O,)`."""
        return momentary({"burst_trace": StateEntry((post_size,)), "bursts": StateEntry((post_size,))})

    def observed(self, params: NamedTensors, post: Tensor, state: NamedTensors) -> dict[str, Tensor]:
        """Return z after the step, and what its substeps amount to."""
        kept = torch.exp(-self.step_size / params["tau_heterosynaptic"]).unsqueeze(-2)
        burst, bursts = state["burst_trace"], torch.zeros_like(state["bursts"])
        for activity in post.abs().unbind(-2):
            burst = kept * burst
            bursts = bursts + burst**3 * activity
            burst = burst + activity
        return {"burst_trace": burst, "bursts": bursts}

    def held(
        self, params: NamedTensors, trace: Tensor, slow: Tensor | None, state: NamedTensors
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return F pulled back."""
        left = torch.exp(-params["heterosynaptic_rate"].unsqueeze(-2) * state["bursts"]).unsqueeze(-1)
        return left * trace if slow is None else torch.lerp(slow, trace, left), {}


HOMEOSTASES: Registry[type[Homeostasis]] = Registry("homeostasis")
HOMEOSTASES.register("none", Homeostasis)
HOMEOSTASES.register("synaptic_scaling", SynapticScaling)
HOMEOSTASES.register("heterosynaptic", Heterosynaptic)
