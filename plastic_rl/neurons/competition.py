"""Competition among the units of a layer: which of them put something out.

It ranks the outputs of a layer's rate units in every substep, and what it leaves of them is what synapses, plasticity
and the intrinsic adaptation of units see. Of equal outputs that of the lowest index ranks first.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from plastic_rl.config.signatures import handed_on
from plastic_rl.errors import ConfigError
from plastic_rl.plasticity import TERMS, Curves, Part, StateEntry
from plastic_rl.plasticity.bounds import TINY
from plastic_rl.plasticity.gains import NamedTensors
from plastic_rl.registry import Registry


def k_cap(values: Tensor, k: int | None) -> Tensor:
    """Keep the k largest of each row, zero the others; of equal ones those of the lowest index are kept.

    Args:
        values: `(.., O)`.
        k: How many to keep; None, or at least O: all.

    Returns:
        `(.., O)`; a unit whose kept value is 0 has not fired.

    >>> k_cap(torch.tensor([[3.0, 1.0, 3.0, 3.0], [-1.0, -2.0, -3.0, -4.0]]), 2)
    tensor([[ 3.,  0.,  3.,  0.],
            [-1., -2., -0., -0.]])
    """
    if k is None or k >= values.shape[-1]:
        return values
    return values * winners(values, k, zeros=False)


def winners(values: Tensor, k: int, *, zeros: bool = True) -> Tensor:
    """Which are the k largest of each row of `values (.., O)`, bool; of equal ones those of the lowest index.

    Args:
        values: Of k + 1 units at the least.
        k: How many.
        zeros: Whether equal values of 0 are told apart too; where not, more than k may be marked, k of them not 0.

    >>> winners(torch.tensor([2.0, 0.0, 0.0, -1.0]), 2).tolist()
    [True, True, False, False]
    """
    threshold, tied = _threshold(values.detach(), k, zeros=zeros)
    kept = values >= threshold
    if tied:
        above = values > threshold
        room = k - above.sum(-1, keepdim=True)
        kept = above | (kept & ((kept & ~above).cumsum(-1) <= room))
    return kept


def _threshold(values: Tensor, k: int, *, zeros: bool) -> tuple[Tensor, bool]:
    """The k-th largest of each row of `values (.., O)`, `(.., 1)`, and whether the next one anywhere equals it."""
    place = values.shape[-1] - k
    if values.is_cpu and values.dtype in (torch.float32, torch.float64):
        # Sorting 300 numbers in NumPy takes a fifth of the time of selecting 50 of them in torch.
        ordered = np.sort(values.numpy(), axis=-1)
        threshold = ordered[..., place : place + 1]
        tied = threshold == ordered[..., place - 1 : place]
        return torch.from_numpy(threshold), bool(np.count_nonzero(tied if zeros else tied * threshold))
    largest = values.topk(k + 1, dim=-1).values
    lowest, next_one = largest[..., k - 1 : k], largest[..., k:]
    return lowest, bool(((lowest == next_one) & (zeros | (lowest != 0))).any())


class Competition(Part):
    """Which units of a layer put something out.

    Attributes:
        by_distance: Whether units are given the drive `w x - |w|^2 / 2` in place of `w x`, which is largest where the
            weights w of their synapses are nearest to the input x: `|x - w|^2 = |x|^2 - 2 (w x - |w|^2 / 2)`.
    """

    by_distance: bool = False

    def check_size(self, size: int) -> None:
        """Refuse a layer of `O = size` units where there would be nothing to compete for.

        Raises:
            ConfigError: Saying which sizes there may be.
        """

    def state_entries(self) -> dict[str, StateEntry]:
        """What it carries from step to step, by name. Nothing by default."""
        return {}

    @abstractmethod
    def outputs(self, params: NamedTensors, output: Tensor, state: NamedTensors) -> Tensor:
        """What is left of the units' outputs, `(.., B, O)`.

        Args:
            params: Its `numbers`, by name.
            output: What the units would put out, `(.., B, O)`; never modified.
            state: Its entries.
        """

    def next_state(self, params: NamedTensors, state: NamedTensors) -> dict[str, Tensor]:
        """Its own entries after a step of `step_size` ms. None by default."""
        return {}


class NoCompetition(Competition):
    """Every unit puts out what it would."""

    def outputs(self, params: NamedTensors, output: Tensor, state: NamedTensors) -> Tensor:
        """Return the outputs."""
        return output


class Ranked(Competition):
    """Units win by rank.

    Args:
        winner: drive: those win whose output is largest; distance: those whose synapses' weights are nearest to their
            input, by a drive of `w x - |w|^2 / 2`, for units whose output rises with it.
    """

    def __init__(
        self, step_size: float = 1.0, *, winner: Literal["drive", "distance"] = "drive", **shared: Any
    ) -> None:
        super().__init__(step_size, **handed_on(locals()))
        self.by_distance = self.options.winner == "distance"

    @property
    def count(self) -> int:
        """How many units win."""
        return 1

    def check_size(self, size: int) -> None:
        """See `Competition.check_size`: more than win."""
        if size <= self.count:
            raise ConfigError(
                f"all of {size} units would win where {self.count} do; use {self.count + 1} units or more, or "
                "competition: none"
            )


class WinnerTakeAll(Ranked):
    """`y_i` stays where it is the largest, the others are 0: `k_cap` with k = 1.

    Source: Rumelhart & Zipser 1985, doi 10.1207/s15516709cog0901_5. With `all_or_none`, synapses onto the units under
    the term `instar` go to the means of the inputs that each of them wins.

    Args:
        all_or_none: Whether a winner puts out 1 in place of its own output; no gradient passes that.
    """

    def __init__(self, step_size: float = 1.0, *, all_or_none: bool = False, **shared: Any) -> None:
        super().__init__(step_size, **handed_on(locals()))

    def outputs(self, params: NamedTensors, output: Tensor, state: NamedTensors) -> Tensor:
        """See `Competition.outputs`."""
        if self.options.all_or_none:
            return winners(output, self.count).to(output.dtype)
        return k_cap(output, self.count)


class KCap(WinnerTakeAll):
    """The k largest `y_i` stay, the others are 0 (Cristian et al. 2021; the caps of Papadimitriou et al. 2020).

    Source of the caps: Papadimitriou, Vempala, Mitropolsky, Collins & Maass 2020, doi 10.1073/pnas.2001893117.

    Args:
        k: How many stay.
    """

    def __init__(self, step_size: float = 1.0, *, k: Annotated[int, Field(ge=1)] = 10, **shared: Any) -> None:
        super().__init__(step_size, **handed_on(locals()))

    @property
    def count(self) -> int:
        """See `Ranked.count`."""
        k: int = self.options.k
        return k


class Neighbourhood(Ranked):
    """`y_i = exp(-d_i^2 / (2 s^2))`, d the distance on a line or grid of units to the winner (Kohonen 1982).

    Source: Kohonen 1982, doi 10.1007/BF00337288. With synapses under the term `instar` the layer is a self-organising
    map: the winner's weights and, less, those of the units around it move to the input, so that neighbours come to
    answer similar inputs. The width s goes exponentially from `width` to `final_width` while a lifetime goes on and is
    plastic. The gradient passes through s, none through the choice of the winner.

    Args:
        columns: Units in a row of the grid; null: all of them, a line.
        width: s at the start of a lifetime, in units of the grid.
        final_width: What s goes to; 0: the winner alone.
        tau_width: Time constant of that, ms.
    """

    def __init__(
        self,
        step_size: float = 1.0,
        *,
        columns: Annotated[int | None, Field(ge=1)] = None,
        width: Annotated[float, Field(ge=0)] = 3.0,
        final_width: Annotated[float, Field(ge=0)] = 0.5,
        tau_width: Annotated[float, Field(ge=1e-3)] = 1000.0,
        **shared: Any,
    ) -> None:
        super().__init__(step_size, **handed_on(locals()))

    def check_size(self, size: int) -> None:
        """See `Competition.check_size`: a whole number of rows."""
        super().check_size(size)
        columns = self.options.columns or size
        if size % columns:
            raise ConfigError(f"rows of {columns} units (columns) do not make up {size} units: use a divisor of {size}")

    def state_entries(self) -> dict[str, StateEntry]:
        """`neighbourhood_width` s."""
        return {"neighbourhood_width": StateEntry((1,), start="width")}

    def places(self, size: int) -> Tensor:
        """Row and column of each of `O = size` units, `(O, 2)`."""
        units = torch.arange(size)
        columns = self.options.columns or size
        return torch.stack([units // columns, units % columns], -1)

    def outputs(self, params: NamedTensors, output: Tensor, state: NamedTensors) -> Tensor:
        """See `Competition.outputs`."""
        places = self.places(output.shape[-1]).to(output)
        winner = output.detach().argmax(-1)
        squares = (places - places[winner].unsqueeze(-2)).square().sum(-1)
        return torch.exp(-squares / (2 * state["neighbourhood_width"].square()).clamp_min(TINY))

    def next_state(self, params: NamedTensors, state: NamedTensors) -> dict[str, Tensor]:
        """Return s nearer to its end."""
        final, tau = (params[name].unsqueeze(-2) for name in ("final_width", "tau_width"))
        return {
            "neighbourhood_width": torch.lerp(final, state["neighbourhood_width"], torch.exp(-self.step_size / tau))
        }

    def curves(self) -> Curves:
        """See `Part.curves`: a map of six units on a line unfolds over inputs that are uniform from 0 to 1."""
        generator = torch.Generator().manual_seed(0)
        inputs = torch.rand(4000, 1, 1, generator=generator)
        weights = 0.4 + 0.2 * torch.rand(1, 6, 1, generator=generator)
        params = {name: one.value for name, one in self.numbers().items()}
        state = {"neighbourhood_width": params["width"].unsqueeze(-2)}
        term, course = TERMS["instar"](), []
        for x in inputs:
            course.append(weights.flatten())
            fit = (weights @ x - weights.square() / 2).squeeze(-1)
            weights = weights + 0.05 * term.change({}, x, self.outputs(params, fit, state), weights, {})
            state |= self.next_state(params, state)
        shown = slice(0, None, 25)
        lines = {f"unit {place + 1}": line[shown] for place, line in enumerate(torch.stack(course, -1))}
        return Curves("inputs seen", "weight of each unit of a line", torch.arange(len(course))[shown], lines)


COMPETITIONS: Registry[type[Competition]] = Registry("competition")
"""Competitions among the units of a layer, by name."""
COMPETITIONS.register("none", NoCompetition)
COMPETITIONS.register("k_cap", KCap)
COMPETITIONS.register("winner_take_all", WinnerTakeAll)
COMPETITIONS.register("neighbourhood", Neighbourhood)
