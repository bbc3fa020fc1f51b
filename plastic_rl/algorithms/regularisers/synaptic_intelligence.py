"""`synaptic_intelligence`: what each parameter did for the loss on its path (Zenke, Poole & Ganguli 2017).

Source: Zenke, Poole & Ganguli 2017, arXiv 1703.04200, eq. 3 to 5.
"""

from __future__ import annotations

from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

from plastic_rl.algorithms.regularisers.base import (
    GradientsOfSamples,
    Regulariser,
    RegulariserState,
    entry,
    quadratic_penalty,
)
from plastic_rl.config.signatures import handed_on
from plastic_rl.plasticity.gains import NamedTensors
from plastic_rl.plasticity.parts import Setting


class SynapticIntelligence(Regulariser):
    """`c sum_i Omega_i (w_i - w*_i)^2`, `Omega = sum over stages of omega / ((Delta w)^2 + xi)`, w* of the last stage.

    `omega_i = sum_t -g_i(t) (w_i(t+1) - w_i(t))` is how much of the fall of the loss was parameter i's doing, g the
    gradient of the loss without the penalty; Delta w is how far the stage has moved it. Where noise makes an omega
    negative it counts as 0: else the penalty had no minimum. A weight that is exchanged, or drawn anew with its unit
    (`sparsity`, `unit_turnover`), begins its path there: omega and Delta w are of the steps since then.

    Args:
        strength: c.
        xi: Keeps Omega finite where a parameter has hardly moved; in units of a squared parameter.
    """

    # `start`, where paths begin, is there once one does not begin at the anchor.
    entries = ("anchor", "omega", "importance", "start")
    sees_steps = True

    def __init__(
        self,
        step_size: float = 1.0,
        *,
        strength: Annotated[float, Setting, Field(ge=0)] = 0.1,
        xi: Annotated[float, Setting, Field(gt=0)] = 1e-3,
        **shared: Any,
    ) -> None:
        super().__init__(step_size, **handed_on(locals()))

    def begun(self, parameters: NamedTensors) -> RegulariserState:
        """The first stage starts from the parameters as they were drawn."""
        return _stage_from(parameters)

    def penalty(self, parameters: NamedTensors, state: NamedTensors) -> Tensor | None:
        """See `Regulariser.penalty`."""
        anchor, importance = entry(state, "anchor"), entry(state, "importance")
        if not importance:
            return None
        parts = [quadratic_penalty(parameters[name] - anchor[name], weight) for name, weight in importance.items()]
        return torch.stack(parts).sum() * float(2.0 * self.options.strength)

    def stepped(
        self, state: NamedTensors, gradients: NamedTensors, before: NamedTensors, after: NamedTensors
    ) -> RegulariserState:
        """Add what the step did to omega."""
        path = {
            f"omega/{name}": own - gradients[name] * (after[name].detach() - before[name])
            for name, own in entry(state, "omega").items()
            if name in gradients
        }
        return {**state, **path}

    def set_anew(self, state: NamedTensors, before: NamedTensors, after: NamedTensors) -> RegulariserState:
        """Begin the paths of parameters that were put elsewhere at where they are now."""
        jumped = {name: own.detach() != before[name] for name, own in after.items()}
        if not any(bool(where.any()) for where in jumped.values()):
            return dict(state)
        omega, start = entry(state, "omega"), entry(state, "start") or entry(state, "anchor")
        paths = {f"omega/{name}": omega[name].masked_fill(where, 0.0) for name, where in jumped.items()}
        begun = {name: torch.where(where, after[name].detach(), start[name]) for name, where in jumped.items()}
        return {**state, **paths, **{f"start/{name}": own for name, own in begun.items()}}

    def stage_ended(
        self, state: NamedTensors, parameters: NamedTensors, gradients: GradientsOfSamples
    ) -> RegulariserState:
        """Add the stage's omega to Omega, and begin the next from the parameters as they are."""
        start, earlier = entry(state, "start") or entry(state, "anchor"), entry(state, "importance")
        ended = _stage_from(parameters)
        for name, omega in entry(state, "omega").items():
            moved = parameters[name].detach() - start[name]
            own = omega.clamp_min(0.0) / (moved.square() + self.options.xi)
            ended[f"importance/{name}"] = own + earlier[name] if name in earlier else own
        return ended


def _stage_from(parameters: NamedTensors) -> RegulariserState:
    own = {name: parameter.detach() for name, parameter in parameters.items()}
    anchor = {f"anchor/{name}": value.clone() for name, value in own.items()}
    return anchor | {f"omega/{name}": torch.zeros_like(value) for name, value in own.items()}
