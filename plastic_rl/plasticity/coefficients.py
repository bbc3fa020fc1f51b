"""Terms with coefficients of their own: ABCD, the general polynomial form, gated terms, BCM; and the delta rule.

The rate-based family is one polynomial in the weight and the two activities (Confavreux & Vogels 2020):
`D = sum_{c,i,j <= 2} theta[c,i,j] F^c post^i preT^j`. The coefficients of a term are one set for all synapses of a
layer, one for each post neuron or one for each synapse, as the rule's `coefficients` say.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from plastic_rl.plasticity.gains import RATE, GainConfig, Parameter
from plastic_rl.plasticity.terms import TERMS, Term

ABCD_NAMES = ("coefficient_a", "coefficient_b", "coefficient_c", "coefficient_d")
DEGREES = 3
"""Powers 0, 1, 2 of weight, post and pre in the general form."""


def _horner(factors: list[Tensor], variable: Tensor) -> Tensor:
    """`factors[0] + factors[1] variable + factors[2] variable^2 + ...`, all broadcast."""
    total = factors[-1]
    for factor in reversed(factors[:-1]):
        total = torch.addcmul(factor, total, variable)
    return total


class ABCD(Term):
    """`D = A post pre + B pre + C post + D` (Najarro & Risi 2020, eq. 1, without its learning rate, which is eta)."""

    def parameters(
        self, post_size: int, pre_size: int, coefficients: GainConfig, generator: torch.Generator | None = None
    ) -> dict[str, Parameter]:
        """`coefficient_a` to `coefficient_d`, each `(1, 1)`, `(O, 1)` or `(O, I)`."""
        return {name: coefficients.draw(post_size, pre_size, generator, is_gain=False) for name in ABCD_NAMES}

    def change(
        self, params: Mapping[str, Tensor], pre: Tensor, post: Tensor, trace: Tensor, state: Mapping[str, Tensor]
    ) -> Tensor:
        """Return `(A post + B) pre + (C post + D)`."""
        a, b, c, d = (params[name].unsqueeze(-3) for name in ABCD_NAMES)
        column = post.unsqueeze(-1)
        return torch.addcmul(torch.addcmul(d, c, column), torch.addcmul(b, a, column), pre.unsqueeze(-2))


class General(Term):
    """`D = sum_{c,i,j <= 2} theta[c,i,j] F^c post^i preT^j` (Confavreux & Vogels 2020)."""

    def parameters(
        self, post_size: int, pre_size: int, coefficients: GainConfig, generator: torch.Generator | None = None
    ) -> dict[str, Parameter]:
        """`theta`, `(3, 3, 3, ..)`: powers of weight, post and pre, then as the granularity has it (e.g. `(1, 1)`)."""
        drawn = [coefficients.draw(post_size, pre_size, generator).value for _ in range(DEGREES**3)]
        theta = torch.stack(drawn).reshape(DEGREES, DEGREES, DEGREES, *drawn[0].shape)
        return {"theta": Parameter(theta, coefficients.trainable, is_gain=False)}

    def change(
        self, params: Mapping[str, Tensor], pre: Tensor, post: Tensor, trace: Tensor, state: Mapping[str, Tensor]
    ) -> Tensor:
        """Return the polynomial, evaluated by Horner's scheme in pre, then post, then weight."""
        theta = params["theta"].unsqueeze(-3)
        row, column = pre.unsqueeze(-2), post.unsqueeze(-1)
        by_weight = []
        for of_weight in theta.unbind(-6):
            by_post = [_horner(list(of_post.unbind(-4)), row) for of_post in of_weight.unbind(-5)]
            by_weight.append(_horner(by_post, column))
        return _horner(by_weight, trace)


class PresynapticallyGated(Term):
    """`D = (post - threshold) pre`: a synapse changes where its pre neuron is active."""

    def parameters(
        self, post_size: int, pre_size: int, coefficients: GainConfig, generator: torch.Generator | None = None
    ) -> dict[str, Parameter]:
        """`threshold`, `(1, 1)`, `(O, 1)` or `(O, I)`."""
        return {"threshold": coefficients.draw(post_size, pre_size, generator, is_gain=False)}

    def change(
        self, params: Mapping[str, Tensor], pre: Tensor, post: Tensor, trace: Tensor, state: Mapping[str, Tensor]
    ) -> Tensor:
        """Return the outer product of post beyond its threshold, and pre."""
        return (post.unsqueeze(-1) - params["threshold"].unsqueeze(-3)) * pre.unsqueeze(-2)


class BCM(Term):
    """`D = post (post - theta) pre`, where theta is a running average of `post^2` (Bienenstock, Cooper & Munro 1982).

    theta must grow faster than linearly with post, or nothing bounds the weights. In a batch of K orthonormal,
    equiprobable inputs a linear neuron becomes selective to one, with response K and theta K; stable for
    `eta tau < 1`, where `1 / tau` is `bcm_rate`.
    """

    def parameters(
        self, post_size: int, pre_size: int, coefficients: GainConfig, generator: torch.Generator | None = None
    ) -> dict[str, Parameter]:
        """`bcm_rate` `(1,)`, 0.1, not trained."""
        return {"bcm_rate": Parameter(torch.full((1,), 0.1, dtype=torch.float32), trainable=False, valid=RATE)}

    def state_entries(self, post_size: int, pre_size: int) -> dict[str, tuple[int, ...]]:
        """`bcm_threshold` theta, one for each post neuron."""
        return {"bcm_threshold": (post_size,)}

    def change(
        self, params: Mapping[str, Tensor], pre: Tensor, post: Tensor, trace: Tensor, state: Mapping[str, Tensor]
    ) -> Tensor:
        """Return the outer product of `post (post - theta)` and pre, with the theta of before this step."""
        return (post * (post - state["bcm_threshold"])).unsqueeze(-1) * pre.unsqueeze(-2)

    def next_state(
        self, params: Mapping[str, Tensor], pre: Tensor, post: Tensor, trace: Tensor, state: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """Return theta with this step's `post^2` taken in."""
        return {"bcm_threshold": torch.lerp(state["bcm_threshold"], post.square(), params["bcm_rate"].unsqueeze(-2))}


class Delta(Term):
    """`D = (v - F k) kT`, with the post activity as target `v` and the pre activity as key `k` (Widrow & Hoff 1960).

    With eta = 1 and `|k| = 1` one write makes `F k = v`. Stable for `0 < eta |k|^2 < 2`: take eta small in wide layers.
    """

    def change(
        self, params: Mapping[str, Tensor], pre: Tensor, post: Tensor, trace: Tensor, state: Mapping[str, Tensor]
    ) -> Tensor:
        """Return the outer product of the error of recall and the key."""
        row = pre.unsqueeze(-2)
        recalled = (row @ trace.mT).squeeze(-2)
        return (post - recalled).unsqueeze(-1) * row


TERMS.register("abcd", ABCD())
TERMS.register("general", General())
TERMS.register("presynaptically_gated", PresynapticallyGated())
TERMS.register("bcm", BCM())
TERMS.register("delta", Delta())
