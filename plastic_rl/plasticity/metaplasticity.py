"""Metaplasticity: what a synapse has lived through decides how plastic it still is."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import Field
from torch import Tensor

from plastic_rl.config.signatures import handed_on
from plastic_rl.plasticity.gains import NamedTensors, Parameter
from plastic_rl.plasticity.parts import Part, StateEntry
from plastic_rl.registry import Registry


class Metaplasticity(Part):
    """No metaplasticity, `A = G S`: synapses stay as plastic as they are.

    Attributes:
        own_entries: Its state entries of each synapse.
    """

    own_entries: ClassVar[tuple[str, ...]] = ()

    def parameters(self) -> dict[str, Parameter]:
        """Parameters of its own, by name: its `numbers` unless overridden."""
        return self.numbers()

    def state_entries(self, post_size: int, pre_size: int) -> dict[str, StateEntry]:
        """Its `own_entries`, of shapes that end in `(O, I)`."""
        return {}

    def share(self, params: NamedTensors, state: NamedTensors) -> Tensor | float:
        """What is left of each synapse's plasticity, broadcastable to `(.., B, O, I)`."""
        return 1.0

    def next_state(self, params: NamedTensors, change: Tensor, state: NamedTensors) -> dict[str, Tensor]:
        """Its own entries after a step in which the synapses changed by `change`, `(.., B, O, I)`."""
        return {}


class Importance(Metaplasticity):
    """`A = G S / (1 + k Omega)`, `Omega <- (1 - f) Omega + |A|`: what a modulator made a synapse learn, it keeps.

    Omega, the importance, is how far a synapse was moved by the changes that its modulator let through, and eta falls
    with it, in the change as in a decaying trace's decay. A running path length stands for the importance of Zenke,
    Poole & Ganguli 2017 (arXiv 1703.04200), whose gradient no synapse knows; tags: Frey & Morris 1997.

    Args:
        importance_strength: k.
        importance_forgetting: f, in an environment step.
    """

    own_entries = ("importance",)

    def __init__(
        self,
        step_size: float = 1.0,
        *,
        importance_strength: Annotated[float, Field(ge=0)] = 1.0,
        importance_forgetting: Annotated[float, Field(ge=0, le=1)] = 0.0,
        **shared: Any,
    ) -> None:
        super().__init__(step_size, **handed_on(locals()))

    def state_entries(self, post_size: int, pre_size: int) -> dict[str, StateEntry]:
        """`importance` Omega, `(O, I)`."""
        return {"importance": StateEntry((post_size, pre_size))}

    def share(self, params: NamedTensors, state: NamedTensors) -> Tensor | float:
        """Return `1 / (1 + k Omega)`."""
        return 1 / (1 + params["importance_strength"].unsqueeze(-1).unsqueeze(-1) * state["importance"])

    def next_state(self, params: NamedTensors, change: Tensor, state: NamedTensors) -> dict[str, Tensor]:
        """Return Omega with the length of the change taken in."""
        kept = 1 - params["importance_forgetting"].unsqueeze(-1).unsqueeze(-1)
        return {"importance": kept * state["importance"] + change.abs()}


METAPLASTICITIES: Registry[type[Metaplasticity]] = Registry("metaplasticity")
METAPLASTICITIES.register("none", Metaplasticity)
METAPLASTICITIES.register("importance", Importance)
