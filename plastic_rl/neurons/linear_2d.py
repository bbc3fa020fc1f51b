"""Two linear equations: what a unit with a voltage and a slow current does near its rest (linear reduction).

Source: Gerstner, Kistler, Naud & Paninski 2014, Neuronal Dynamics, section 4.3; Izhikevich 2001, Neural Netw. 14, for
units that resonate.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

from plastic_rl.config.signatures import handed_on
from plastic_rl.neurons.base import NEURONS, Drive, Neuron, number
from plastic_rl.plasticity import StateEntry
from plastic_rl.plasticity.gains import NamedTensors

TimeConstant = Annotated[float, Field(ge=0.1, le=1e5)]
"""ms."""


class Linear2D(Neuron):
    """Linear reduction to two variables: a unit that can ring, without spikes.

        tau du/dt = a u - w + I
        tau_w dw/dt = c u - w

    The output is u, from rest 0. Steps are exact while the drive is held. The unit returns to rest where
    `a / tau < 1 / tau_w` and a < c; it rings where `(a / tau + 1 / tau_w)^2 < 4 c / (tau tau_w)`, as with the defaults
    (at 35 Hz), and then resonates with inputs of that frequency. Elsewhere its activity grows without bound.

    Args:
        tau: Time constant of u, ms.
        tau_w: Time constant of w, ms.
        a: What u does to itself: minus its conductance near rest.
        c: How far w follows u.
    """

    variables = ("u", "w")

    def __init__(
        self,
        step_size: float = 1.0,
        *,
        tau: TimeConstant = 5.0,
        tau_w: TimeConstant = 20.0,
        a: Annotated[float, Field(ge=-1000, le=1000)] = -0.5,
        c: Annotated[float, Field(ge=-1000, le=1000)] = 5.0,
        **shared: Any,
    ) -> None:
        super().__init__(step_size, **handed_on(locals()))

    def state_entries(self, size: int) -> dict[str, StateEntry]:
        """`u` and `w`, without dimension, from 0."""
        return {"u": StateEntry((size,)), "w": StateEntry((size,))}

    def matrix(self, params: NamedTensors) -> Tensor:
        """Change per ms of (u, w, I) as a product with these, `(.., 3, 3)`: I is held."""
        tau, tau_w = params["tau"], params["tau_w"]
        zero = torch.zeros_like(tau)
        rows = [[params["a"] / tau, -1 / tau, 1 / tau], [params["c"] / tau_w, -1 / tau_w, zero], [zero, zero, zero]]
        return torch.stack([torch.stack(row, -1) for row in rows], -2)

    def change(self, params: NamedTensors, drive: Drive, values: Sequence[Tensor]) -> list[Tensor]:
        """See `Neuron.change`."""
        return _product(self.matrix(params), drive, values)

    def step(self, params: NamedTensors, drive: Drive, state: NamedTensors) -> tuple[Tensor, dict[str, Tensor]]:
        """See `Neuron.step`."""
        u, w = _product(torch.matrix_exp(self.step_size * self.matrix(params)), drive, [state["u"], state["w"]])
        return u, {"u": u, "w": w}


def _product(matrix: Tensor, drive: Drive, values: Sequence[Tensor]) -> list[Tensor]:
    """The first two rows of `matrix (.., 1, 3, 3)` times (u, w, I)."""
    entries = {f"{row}{column}": matrix[..., row, column] for row in range(2) for column in range(3)}
    u, w = values
    return [
        number(entries, f"{row}0") * u + number(entries, f"{row}1") * w + number(entries, f"{row}2") * drive.current
        for row in range(2)
    ]


NEURONS.register("linear_2d", Linear2D)
