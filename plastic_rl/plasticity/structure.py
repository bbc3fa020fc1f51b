"""Structure: which synapses there are, `W = M (W0 + alpha F)`; a synapse that is not there has a weight of exactly 0.

M is state where lifetimes draw it from their key or rewire it, and a parameter that stays where it is drawn with the
start weights. The random numbers come from the network; the number of synapses follows from the density, and stays.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from plastic_rl.config.signatures import handed_on
from plastic_rl.errors import ConfigError
from plastic_rl.plasticity.gains import RATE, NamedTensors, Parameter
from plastic_rl.plasticity.parts import Part, Setting, StateEntry
from plastic_rl.registry import Registry


class Structure(Part):
    """Every unit is joined to every other, `M = 1`.

    Attributes:
        is_sparse: True where some synapses are not there.
        rewires: True where M changes within a lifetime.
        draws: True where each lifetime draws its own M.
    """

    is_sparse: ClassVar[bool] = False
    rewires: ClassVar[bool] = False
    draws: bool = False

    def parameters(
        self, post_size: int, pre_size: int, generator: torch.Generator | None = None
    ) -> dict[str, Parameter]:
        """`connected` M, `(O, I)`, where it is drawn with the start weights. Nothing by default."""
        return {}

    def state_entries(self, post_size: int, pre_size: int) -> dict[str, StateEntry]:
        """`connected` M, `(O, I)` bool, where it is state. Nothing by default."""
        return {}


class Sparse(Structure):
    """`W = M (W0 + alpha F)`, M drawn at random with a given density: the others do not exist.

    Args:
        density: Share of the synapses that are there; their number is rounded, and the same in every lifetime.
        drawn: lifetime: anew in each lifetime; start: once, with the start weights.
        loops: Whether a unit may be joined to itself; false is for recurrent synapses, and leaves their diagonal out.
    """

    is_sparse = True

    def __init__(
        self,
        step_size: float = 1.0,
        *,
        density: Annotated[float, Field(gt=0, le=1), Setting] = 0.1,
        drawn: Literal["lifetime", "start"] = "start",
        loops: bool = True,
        **shared: Any,
    ) -> None:
        super().__init__(step_size, **handed_on(locals()))
        self.draws = self.options.drawn == "lifetime"

    def parameters(
        self, post_size: int, pre_size: int, generator: torch.Generator | None = None
    ) -> dict[str, Parameter]:
        """`connected`, 0 or 1, never trained, where `drawn` at the start."""
        if self.draws:
            return {}
        numbers = torch.rand(post_size * pre_size, generator=generator, dtype=torch.float64)
        connected = self.first(numbers, post_size, pre_size).to(torch.float32)
        return {"connected": Parameter(connected, trainable=False, valid=RATE, is_gain=False)}

    def state_entries(self, post_size: int, pre_size: int) -> dict[str, StateEntry]:
        """`connected`, where lifetimes draw it."""
        return {"connected": StateEntry((post_size, pre_size), dtype=torch.bool)} if self.draws else {}

    def count(self, post_size: int, pre_size: int) -> int:
        """How many synapses there are: 1 at least."""
        density: float = self.options.density
        return max(1, round(density * self.places(post_size, pre_size)))

    def places(self, post_size: int, pre_size: int) -> int:
        """How many synapses there could be.

        Raises:
            ConfigError: If loops are left out of synapses that do not join a layer with itself.
        """
        if self.options.loops:
            return post_size * pre_size
        if post_size != pre_size or post_size == 1:
            raise ConfigError(
                "structure.loops: false leaves out what joins a unit to itself, in recurrent synapses of 2 units or "
                f"more; these are of {pre_size} units onto {post_size}: leave loops out"
            )
        return post_size * (pre_size - 1)

    def left_out(self, connected: Tensor) -> Tensor:
        """Where no synapse may be: nowhere, or on the diagonal of `connected (.., O, I)`; bool, flat `(O I)`."""
        none = torch.zeros(connected.shape[-2:], dtype=torch.bool, device=connected.device)
        return (none if self.options.loops else none.fill_diagonal_(True)).flatten()

    def first(self, numbers: Tensor, post_size: int, pre_size: int) -> Tensor:
        """M as it is drawn, `(.., O, I)` bool, from uniform `numbers (.., O I)`."""
        scores = torch.zeros_like(numbers)
        if not self.options.loops:
            scores = scores.masked_fill(self.left_out(scores.view(*scores.shape[:-1], post_size, pre_size)), torch.inf)
        chosen = lowest(scores, numbers, self.count(post_size, pre_size))
        return chosen.view(*numbers.shape[:-1], post_size, pre_size)

    def connected(self, params: NamedTensors, state: NamedTensors) -> Tensor:
        """M, `(.., B, O, I)` or `(.., 1, O, I)` bool."""
        return state["connected"] if "connected" in state else params["connected"].unsqueeze(-3) > HALF


class Rewire(Sparse):
    """`W = M (W0 + alpha F)`; every S steps the weakest synapses go and as many others come (Mocanu et al. 2018).

    A share of them, those of smallest |W|, is pruned. Grown are random ones of those that were not there (SET, doi
    10.1038/s41467-018-04316-3), or the ones of largest eligibility |E|, what the rule would have changed most, as RigL
    takes the largest gradient (Evci et al. 2020, arXiv 1911.11134). A grown synapse starts with F = E = 0.

    Args:
        every: S, environment steps.
        share: Of the synapses, what is replaced; at the most as many as there are others.
        grow: random, or eligibility, which needs a rule with an eligibility trace.
    """

    rewires = True

    def __init__(
        self,
        step_size: float = 1.0,
        *,
        every: Annotated[int, Field(ge=1)] = 20,
        share: Annotated[float, Field(ge=0, le=1), Setting] = 0.1,
        grow: Literal["random", "eligibility"] = "random",
        **shared: Any,
    ) -> None:
        super().__init__(step_size, **handed_on(locals()))

    def state_entries(self, post_size: int, pre_size: int) -> dict[str, StateEntry]:
        """`connected`, from the parameter of this name where it is drawn at the start."""
        start: float | str = 0.0 if self.draws else "connected"
        return {"connected": StateEntry((post_size, pre_size), dtype=torch.bool, start=start)}

    def due(self, ages: Tensor) -> Tensor:
        """Which lifetimes rewire before this step, `(.., B)` bool, given the steps that they have lived."""
        every: int = self.options.every
        return (ages > 0) & (ages % every == 0)

    def rewired(self, weight: Tensor, connected: Tensor, eligibility: Tensor | None, numbers: Tensor) -> Tensor:
        """M after some synapses went and others came, `(.., B, O, I)` bool.

        Args:
            weight: W, `(.., B, O, I)`.
            connected: M before.
            eligibility: E, likewise, where synapses grow by it.
            numbers: Uniform, `(.., B, O I)`; equals are drawn by them.
        """
        present = connected.flatten(-2)
        count, places = self.count(*connected.shape[-2:]), self.places(*connected.shape[-2:])
        replaced = min(round(self.options.share * count), places - count)
        gains = torch.zeros_like(numbers)
        if self.options.grow == "eligibility":
            assert eligibility is not None, "a rule whose synapses grow by eligibility has a trace of it"
            gains = eligibility.detach().abs().flatten(-2)
        strength = weight.detach().abs().flatten(-2)
        pruned = lowest(strength.masked_fill(~present, torch.inf), numbers, replaced)
        grown = lowest((-gains).masked_fill(present | self.left_out(connected), torch.inf), numbers, replaced)
        return (present & ~pruned | grown).view_as(connected)


HALF = 0.5


def lowest(scores: Tensor, numbers: Tensor, count: int) -> Tensor:
    """Mark the `count` lowest of `scores (.., N)`, bool; of equal ones, those of lowest `numbers (.., N)`.

    >>> lowest(torch.tensor([3.0, 1.0, 1.0, 2.0]), torch.tensor([0.1, 0.9, 0.2, 0.5]), 1).tolist()
    [False, False, True, False]
    """
    if count == 0:
        return torch.zeros_like(scores, dtype=torch.bool)
    last = scores.topk(count, dim=-1, largest=False).values[..., -1:]
    lower, equal = scores < last, scores == last
    drawn = numbers.masked_fill(~equal, torch.inf).topk(count, dim=-1, largest=False).indices
    places = torch.arange(count, device=scores.device).expand_as(drawn)
    return lower.scatter(-1, drawn, places < count - lower.sum(-1, keepdim=True)) | lower


STRUCTURES: Registry[type[Structure]] = Registry("structure")
STRUCTURES.register("none", Structure)
STRUCTURES.register("sparse", Sparse)
STRUCTURES.register("rewire", Rewire)
