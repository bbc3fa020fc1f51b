"""Between a unit's output and its synapses: short-term plasticity, and the kinetics of what a spike releases.

Both take the presynaptic activity `(.., B, I)` of a step and return what the synapses see of it. Data flow: output of
the units of the step before -> `short_term` -> `kinetics` -> weights. Sources stand with each part.
"""

from __future__ import annotations

from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

from plastic_rl.config.signatures import handed_on
from plastic_rl.plasticity.gains import NamedTensors
from plastic_rl.plasticity.parts import Curves, Part, StateEntry
from plastic_rl.registry import Registry

TimeConstant = Annotated[float, Field(ge=0.1, le=1e5)]
"""ms."""


class Presynaptic(Part):
    """Nothing in between: synapses see the activity as it is, `s = y`."""

    def state_entries(self, size: int) -> dict[str, StateEntry]:
        """What `I = size` units carry from step to step, by name. Nothing by default."""
        return {}

    def step(self, params: NamedTensors, activity: Tensor, state: NamedTensors) -> tuple[Tensor, dict[str, Tensor]]:
        """One step of `step_size` ms, at whose start the activity arrives.

        Args:
            params: Its `numbers`, by name.
            activity: y: rates, or spikes 0 or 1, `(.., B, I)`.
            state: Its entries, `(.., B, I)`; never modified.

        Returns:
            What the synapses see, `(.., B, I)`, and its entries at the end of the step.
        """
        return activity, {}


class ExponentialKinetics(Presynaptic):
    """A conductance that jumps with a spike and decays, `g = exp(-t / tau)`.

    Synapses see its mean over the step, so that a spike weighs tau (in ms) at any step size.

    Args:
        tau_synapse: tau, ms.
    """

    def __init__(self, step_size: float = 1.0, *, tau_synapse: TimeConstant = 5.0, **shared: Any) -> None:
        super().__init__(step_size, **handed_on(locals()))

    def state_entries(self, size: int) -> dict[str, StateEntry]:
        """`conductance` g."""
        return {"conductance": StateEntry((size,))}

    def step(self, params: NamedTensors, activity: Tensor, state: NamedTensors) -> tuple[Tensor, dict[str, Tensor]]:
        """See `Presynaptic.step`."""
        steps = self.step_size / params["tau_synapse"].unsqueeze(-2)
        conductance = state["conductance"] + activity
        return conductance * -torch.expm1(-steps) / steps, {"conductance": conductance * torch.exp(-steps)}

    def curves(self) -> Curves:
        """See `Part.curves`: the conductance after a spike."""
        return _response(self)


class AlphaKinetics(ExponentialKinetics):
    """A conductance that rises and decays after a spike, `g = t / tau exp(-t / tau)`: 1/e at its peak, t = tau.

    Synapses see its mean over the step, so that a spike weighs tau (in ms) at any step size.
    """

    def state_entries(self, size: int) -> dict[str, StateEntry]:
        """`conductance` g, and `conductance_source`, from which it rises."""
        return {"conductance": StateEntry((size,)), "conductance_source": StateEntry((size,))}

    def step(self, params: NamedTensors, activity: Tensor, state: NamedTensors) -> tuple[Tensor, dict[str, Tensor]]:
        """See `Presynaptic.step`."""
        steps = self.step_size / params["tau_synapse"].unsqueeze(-2)
        kept, lost = torch.exp(-steps), -torch.expm1(-steps)
        conductance, source = state["conductance"], state["conductance_source"] + activity
        mean = (conductance * lost + source * (lost - steps * kept)) / steps
        following = {"conductance": (conductance + source * steps) * kept, "conductance_source": source * kept}
        return mean, following


class Markram(Presynaptic):
    """Efficacy u R that use depresses and facilitates (Markram, Wang & Tsodyks 1998, doi 10.1073/pnas.95.9.5323).

        s = u R y,  u = U + f (1 - U)
        R <- R - u R |y|,  f <- f + U (1 - f) |y|
        then R recovers to 1 (tau_depression), f decays to 0 (tau_facilitation)

    The first spike sees u = U, R = 1. Rates act as a share of a spike; beyond 1 they count as 1. Steps are exact.

    Args:
        utilisation: U, share of the resources that the first spike uses.
        tau_depression: Time in which resources recover, ms.
        tau_facilitation: Time for which use facilitates, ms.
    """

    def __init__(
        self,
        step_size: float = 1.0,
        *,
        utilisation: Annotated[float, Field(ge=0, le=1)] = 0.5,
        tau_depression: TimeConstant = 800.0,
        tau_facilitation: TimeConstant = 50.0,
        **shared: Any,
    ) -> None:
        super().__init__(step_size, **handed_on(locals()))

    def state_entries(self, size: int) -> dict[str, StateEntry]:
        """`facilitation` f, from 0, and `resources` R, from 1."""
        return {"facilitation": StateEntry((size,)), "resources": StateEntry((size,), start=1.0)}

    def step(self, params: NamedTensors, activity: Tensor, state: NamedTensors) -> tuple[Tensor, dict[str, Tensor]]:
        """See `Presynaptic.step`."""
        use = params["utilisation"].unsqueeze(-2)
        kept, gone = (
            torch.exp(-self.step_size / params[name].unsqueeze(-2)) for name in ("tau_facilitation", "tau_depression")
        )
        facilitation, resources = state["facilitation"], state["resources"]
        share = activity.abs().clamp_max(1)
        efficacy = (use + facilitation * (1 - use)) * resources
        left = resources - efficacy * share
        return efficacy * activity, {
            "facilitation": (facilitation + use * (1 - facilitation) * share) * kept,
            "resources": 1 + (left - 1) * gone,
        }

    def curves(self) -> Curves:
        """See `Part.curves`: the efficacy along regular trains."""
        efficacies = {}
        for rate in (5, 10, 20, 50):
            train = type(self)(1000 / rate, **self.options.model_dump())
            efficacies[f"{rate} Hz"] = _outputs(train, torch.ones(15))
        return Curves("spike of a regular train", "efficacy u R", torch.arange(1.0, 16.0), efficacies)


def _outputs(part: Presynaptic, activity: Tensor) -> Tensor:
    """What synapses see of one unit's `activity (T,)`, `(T,)`."""
    params = {name: one.value for name, one in part.numbers().items()}
    state = {name: torch.full((1, 1), float(entry.start)) for name, entry in part.state_entries(1).items()}
    seen = []
    for one in activity:
        output, state = part.step(params, one.reshape(1, 1), state)
        seen.append(output.squeeze())
    return torch.stack(seen)


def _response(part: ExponentialKinetics) -> Curves:
    """The conductance after a spike at 0, for six time constants."""
    tau = part.options.tau_synapse
    fine = type(part)(tau / 50, **part.options.model_dump())
    times = (torch.arange(300) + 0.5) * tau / 50
    return Curves(
        "time after the spike, ms", "conductance", times, {"": _outputs(fine, (torch.arange(300) == 0).float())}
    )


KINETICS: Registry[type[Presynaptic]] = Registry("kinetics")
"""What becomes of a spike at the synapse, by name."""
KINETICS.register("none", Presynaptic)
KINETICS.register("exponential", ExponentialKinetics)
KINETICS.register("alpha", AlphaKinetics)

SHORT_TERM: Registry[type[Presynaptic]] = Registry("short-term plasticity")
"""Short-term plasticity, by name."""
SHORT_TERM.register("none", Presynaptic)
SHORT_TERM.register("markram", Markram)
