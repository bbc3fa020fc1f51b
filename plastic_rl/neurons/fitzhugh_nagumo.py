"""The cubic reduction of Hodgkin and Huxley's axon (FitzHugh 1961; Nagumo, Arimoto & Yoshizawa 1962).

Source: FitzHugh 1961, Biophys. J. 1, doi 10.1016/S0006-3495(61)86902-6, eq. 1-2 in the form with fast v and slow w.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import Field
from torch import Tensor

from plastic_rl.config.signatures import handed_on
from plastic_rl.neurons.base import NEURONS, CrossingNeuron, Drive
from plastic_rl.plasticity.gains import NamedTensors


class FitzHughNagumo(CrossingNeuron):
    """The cubic reduction of the axon: a fast and a slow variable.

        dv/dt = v - v^3/3 - w + I
        dw/dt = eps (v + a - b w)

    All is without dimension, one unit of time is read as 1 ms. With the defaults it rests at v = -1.1994, w = -.6243,
    and spikes between the Hopf bifurcations at I = .3313 and 1.4187. At the largest step rates are within 0.7% of those
    of fine ones.

    Args:
        a: Shift of the slow variable's line.
        b: Slope of the slow variable's line.
        epsilon: eps, rate of the slow variable.
        threshold: v whose upward crossing is a spike; v of the surrogate gradient is in its own units.
    """

    largest_step = 0.5
    variables = ("v", "w")
    voltages = (-20.0, 20.0)
    voltage_unit = 1.0

    def __init__(
        self,
        step_size: float = 1.0,
        *,
        a: Annotated[float, Field(ge=-10, le=10)] = 0.7,
        b: Annotated[float, Field(ge=0.01, le=10)] = 0.8,
        epsilon: Annotated[float, Field(ge=1e-4, le=10)] = 0.08,
        threshold: Annotated[float, Field(ge=-10, le=10)] = 0.5,
        **shared: Any,
    ) -> None:
        super().__init__(step_size, **handed_on(locals()))

    def coefficients(
        self, params: NamedTensors, drive: Drive, values: Sequence[Tensor]
    ) -> Sequence[tuple[Tensor, Tensor]]:
        """See `IntegratedNeuron.coefficients`."""
        v, w = values
        epsilon = params["epsilon"]
        return [
            (drive.current - w, v.square() / 3 - 1),
            (epsilon * (v + params["a"]), (epsilon * params["b"]).expand_as(w)),
        ]


NEURONS.register("fitzhugh_nagumo", FitzHughNagumo)
