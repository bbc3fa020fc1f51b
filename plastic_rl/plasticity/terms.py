"""Terms: what the activity of the two sides of a synapse did in one step, `D_t = term(pre, post, F_t)`.

Outer products are post-by-pre, `(.., B, O, I)`. A new term is a subclass of `Term`, registered in `TERMS`; it may have
parameters of its own (coefficients, whose granularity and start values the rule's `coefficients` give) and state of its
own (a sliding threshold). Those with coefficients are in `plasticity.coefficients`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

import torch
from torch import Tensor

from plastic_rl.plasticity.gains import GainConfig, Parameter
from plastic_rl.registry import Registry


class Term(ABC):
    """What pre- and postsynaptic activity do to a synapse, before any gain."""

    def parameters(
        self, post_size: int, pre_size: int, coefficients: GainConfig, generator: torch.Generator | None = None
    ) -> dict[str, Parameter]:
        """Coefficients that the outer loop may change, by name. None unless overridden.

        Args:
            post_size: `O`.
            pre_size: `I`.
            coefficients: Granularity and start values that the rule gives the term's coefficients;
                `coefficients.draw(post_size, pre_size, generator)` makes one of them.
            generator: Draws the start values.
        """
        return {}

    def state_entries(self, post_size: int, pre_size: int) -> dict[str, tuple[int, ...]]:
        """Name and shape (without `B`) of what this term carries from step to step; it starts at 0. None by default."""
        return {}

    @abstractmethod
    def change(
        self, params: Mapping[str, Tensor], pre: Tensor, post: Tensor, trace: Tensor, state: Mapping[str, Tensor]
    ) -> Tensor:
        """Return `D`.

        Args:
            params: The network's parameters; this term's own are under the names it gave them.
            pre: `x`, `(.., B, I)`.
            post: `y`, `(.., B, O)`.
            trace: `F`, `(.., B, O, I)`.
            state: The network's state; this term's own entries are under the names it gave them.

        Returns:
            `(.., B, O, I)`.
        """

    def next_state(
        self, params: Mapping[str, Tensor], pre: Tensor, post: Tensor, trace: Tensor, state: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """This term's own state entries after the step, from the same arguments as `change`."""
        return {}


class Hebb(Term):
    """`D = y xT` (arXiv 1804.02464 eq. 2)."""

    def change(
        self, params: Mapping[str, Tensor], pre: Tensor, post: Tensor, trace: Tensor, state: Mapping[str, Tensor]
    ) -> Tensor:
        """Return the outer product of post and pre."""
        return post.unsqueeze(-1) * pre.unsqueeze(-2)


class Oja(Term):
    """`D = y (x - y F)` per synapse (arXiv 1804.02464 eq. 3).

    `F` tends to `x / y`: it is not bounded by 1. Stable for `eta y^2 < 2`.
    """

    def change(
        self, params: Mapping[str, Tensor], pre: Tensor, post: Tensor, trace: Tensor, state: Mapping[str, Tensor]
    ) -> Tensor:
        """Return Hebb's product less what keeps the trace in proportion to it."""
        column = post.unsqueeze(-1)
        return column * (pre.unsqueeze(-2) - column * trace)


TERMS: Registry[Term] = Registry("term")
TERMS.register("hebb", Hebb())
TERMS.register("oja", Oja())
