"""`ewc`: elastic weight consolidation (Kirkpatrick et al. 2017).

Source: Kirkpatrick et al. 2017, arXiv 1612.00796, eq. 3; one penalty for all earlier stages: Huszar 2018, arXiv
1712.03847.
"""

from __future__ import annotations

from collections.abc import Iterable
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


class ElasticWeightConsolidation(Regulariser):
    """`lambda/2 sum_i F_i (w_i - w*_i)^2`, w* where the last stage ended, F the Fisher information of all before.

    F is the mean of squared gradients of the log-likelihood of single lifetimes, lived after the stage with the
    parameters that it ended at, and each divided by its steps, since the loss is a mean over steps too. (The square of
    a batch's mean gradient would vanish at any optimum.) A2C: log pi of the actions that were sampled, so that the
    value head is free; supervised: minus the error. F adds up over stages while w* is that of the last one, which is
    where the sum of all earlier losses has its minimum: on quadratic losses this is training on all stages jointly.

    Args:
        strength: lambda.
        samples: Lifetimes (pieces of `n_steps`, where these are shorter) that F is the mean of.
    """

    entries = ("anchor", "importance")

    def __init__(
        self,
        step_size: float = 1.0,
        *,
        strength: Annotated[float, Setting, Field(ge=0)] = 1.0,
        samples: Annotated[int, Field(ge=1, le=100_000)] = 64,
        **shared: Any,
    ) -> None:
        super().__init__(step_size, **handed_on(locals()))

    def penalty(self, parameters: NamedTensors, state: NamedTensors) -> Tensor | None:
        """See `Regulariser.penalty`."""
        anchor, importance = entry(state, "anchor"), entry(state, "importance")
        if not importance:
            return None
        parts = [quadratic_penalty(parameters[name] - anchor[name], weight) for name, weight in importance.items()]
        return torch.stack(parts).sum() * float(self.options.strength)

    def stage_ended(
        self, state: NamedTensors, parameters: NamedTensors, gradients: GradientsOfSamples
    ) -> RegulariserState:
        """Add the stage's Fisher information, and anchor the parameters where they are."""
        earlier = entry(state, "importance")
        ended: RegulariserState = {}
        for name, own in fisher_information(gradients(self.options.samples), parameters).items():
            ended[f"anchor/{name}"] = parameters[name].detach().clone()
            ended[f"importance/{name}"] = own + earlier[name] if name in earlier else own
        return ended


def fisher_information(gradients: Iterable[NamedTensors], parameters: NamedTensors) -> dict[str, Tensor]:
    """The diagonal of the Fisher information: the mean over samples of the squared gradient of each one's likelihood.

    Args:
        gradients: Of the log-likelihood of a sample, by name; a parameter may lack where it has none.
        parameters: All that the information is wanted of.

    >>> samples = [{"w": torch.tensor([1.0, 2.0])}, {"w": torch.tensor([-1.0, 0.0])}]
    >>> fisher_information(samples, {"w": torch.zeros(2)})
    {'w': tensor([1., 2.])}
    """
    sums = {name: torch.zeros_like(own) for name, own in parameters.items()}
    count = 0
    for sample in gradients:
        count += 1
        for name, gradient in sample.items():
            sums[name] += gradient.square()
    return {name: total / max(count, 1) for name, total in sums.items()}
