"""Terms: what the activity of the two sides of a synapse did in one step, `D_t = term(pre, post, F_t)`.

Outer products are post-by-pre, `(.., B, O, I)`. A new term is a subclass of `Term`, registered in `TERMS`; it may have
parameters of its own and state of its own (a sliding threshold). Coefficients of a term are one set for all synapses of
a layer, one for each post neuron or one for each synapse, as the rule's `coefficients` say.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from plastic_rl.config.signatures import handed_on
from plastic_rl.plasticity.gains import GainConfig, NamedTensors, Parameter
from plastic_rl.plasticity.parts import Curves, Part, StateEntry
from plastic_rl.registry import Registry

ABCD_NAMES = ("coefficient_a", "coefficient_b", "coefficient_c", "coefficient_d")
DEGREES = 3
"""Powers 0, 1, 2 of weight, post and pre in the general form."""


class Term(Part):
    """What pre- and postsynaptic activity do to a synapse, before any gain.

    Attributes:
        sees_emission: True where pre is what the presynaptic units put out in this step, and not what of it arrives:
            through recurrent synapses that is a step later.
    """

    sees_emission: ClassVar[bool] = False

    def parameters(
        self, post_size: int, pre_size: int, coefficients: GainConfig, generator: torch.Generator | None = None
    ) -> dict[str, Parameter]:
        """Coefficients that the outer loop may change, by name: its `numbers` unless overridden.

        Args:
            post_size: `O`.
            pre_size: `I`.
            coefficients: Granularity and start values that the rule gives the term's coefficients;
                `coefficients.draw(post_size, pre_size, generator)` makes one of them.
            generator: Draws the start values.
        """
        return self.numbers()

    def state_entries(self, post_size: int, pre_size: int) -> dict[str, StateEntry]:
        """What this term carries from step to step, by name. Nothing by default."""
        return {}

    @abstractmethod
    def change(self, params: NamedTensors, pre: Tensor, post: Tensor, trace: Tensor, state: NamedTensors) -> Tensor:
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

    def factors(
        self, params: NamedTensors, pre: Tensor, post: Tensor, state: NamedTensors
    ) -> tuple[Tensor, Tensor] | None:
        """`(.., B, R, O)` and `(.., B, R, I)` whose outer products, summed over R, are D; None where D reads F.

        With them many substeps' changes are one matrix product.
        """
        return None

    def next_state(
        self, params: NamedTensors, pre: Tensor, post: Tensor, trace: Tensor, state: NamedTensors
    ) -> dict[str, Tensor]:
        """This term's own state entries after the step, from the same arguments as `change`."""
        return {}


def pair_window(term: Term, lags: Tensor, trace: float = 0.0, tail: float = 0.0) -> Tensor:
    """What a presynaptic and a postsynaptic spike do to a synapse by a term that has no coefficients, `(n,)`.

    Args:
        term: The rule's; its steps are the resolution.
        lags: `(n,)`, from the presynaptic to the postsynaptic spike, ms.
        trace: F, which is held.
        tail: Time after the last spike in which the term still changes something, ms.
    """
    reach = float(lags.abs().max())
    params = {name: one.value for name, one in term.numbers().items()}
    state = {name: torch.zeros(len(lags), *entry.shape) for name, entry in term.state_entries(1, 1).items()}
    held, total = torch.full((len(lags), 1, 1), trace), torch.zeros(len(lags), 1, 1)
    times = ((reach + lags) / term.step_size).round()
    for step in range(round((2 * reach + tail) / term.step_size) + 1):
        pre = torch.full((len(lags), 1), float(step == round(reach / term.step_size)))
        post = (times == step).to(pre.dtype).unsqueeze(-1)
        total = total + term.change(params, pre, post, held, state)
        state |= term.next_state(params, pre, post, held, state)
    return total.flatten()


LAG_LABEL = "postsynaptic - presynaptic spike, ms"


class Hebb(Term):
    """`D = y xT` (arXiv 1804.02464 eq. 2)."""

    def factors(
        self, params: NamedTensors, pre: Tensor, post: Tensor, state: NamedTensors
    ) -> tuple[Tensor, Tensor] | None:
        """See `Term.factors`: y and x."""
        return post.unsqueeze(-2), pre.unsqueeze(-2)

    def change(self, params: NamedTensors, pre: Tensor, post: Tensor, trace: Tensor, state: NamedTensors) -> Tensor:
        """Return the outer product of post and pre."""
        return post.unsqueeze(-1) * pre.unsqueeze(-2)


class Oja(Term):
    """`D = y (x - y F)` per synapse (arXiv 1804.02464 eq. 3).

    `F` tends to `x / y`: it is not bounded by 1. Stable for `eta y^2 < 2`.
    """

    def change(self, params: NamedTensors, pre: Tensor, post: Tensor, trace: Tensor, state: NamedTensors) -> Tensor:
        """Return Hebb's product less what keeps the trace in proportion to it."""
        column = post.unsqueeze(-1)
        return column * (pre.unsqueeze(-2) - column * trace)


class Instar(Term):
    """`D = y (x - F)`: the weights of an active unit move to what it sees (Grossberg 1976, doi 10.1007/BF00344744).

    For outputs that are never negative, and with `eta y` of 1 at the most: F then stays among the inputs, and tends to
    the mean of x weighted by y. Where units compete it is competitive learning (Rumelhart & Zipser 1985), and with a
    `neighbourhood` a self-organising map (Kohonen 1982). It is of the whole weight: let the trace start at the start
    weights (`trace_start: weight` in `plastic_units`).
    """

    def change(self, params: NamedTensors, pre: Tensor, post: Tensor, trace: Tensor, state: NamedTensors) -> Tensor:
        """Return the way from the trace to pre, times post."""
        return post.unsqueeze(-1) * (pre.unsqueeze(-2) - trace)


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

    def change(self, params: NamedTensors, pre: Tensor, post: Tensor, trace: Tensor, state: NamedTensors) -> Tensor:
        """Return `(A post + B) pre + (C post + D)`."""
        a, b, c, d = (params[name].unsqueeze(-3) for name in ABCD_NAMES)
        column = post.unsqueeze(-1)
        return torch.addcmul(torch.addcmul(d, c, column), torch.addcmul(b, a, column), pre.unsqueeze(-2))


class General(Term):
    """`D = sum_{c,i,j <= 2} theta[c,i,j] F^c post^i preT^j` (Confavreux & Vogels 2020).

    The rate-based family: one polynomial in the weight and the two activities.
    """

    def parameters(
        self, post_size: int, pre_size: int, coefficients: GainConfig, generator: torch.Generator | None = None
    ) -> dict[str, Parameter]:
        """`theta`, `(3, 3, 3, ..)`: powers of weight, post and pre, then as the granularity has it (e.g. `(1, 1)`)."""
        drawn = [coefficients.draw(post_size, pre_size, generator).value for _ in range(DEGREES**3)]
        theta = torch.stack(drawn).reshape(DEGREES, DEGREES, DEGREES, *drawn[0].shape)
        return {"theta": Parameter(theta, coefficients.trainable, is_gain=False)}

    def change(self, params: NamedTensors, pre: Tensor, post: Tensor, trace: Tensor, state: NamedTensors) -> Tensor:
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

    def change(self, params: NamedTensors, pre: Tensor, post: Tensor, trace: Tensor, state: NamedTensors) -> Tensor:
        """Return the outer product of post beyond its threshold, and pre."""
        return (post.unsqueeze(-1) - params["threshold"].unsqueeze(-3)) * pre.unsqueeze(-2)


class BCM(Term):
    """`D = post (post - theta) pre`, where theta is a running average of `post^2` (Bienenstock, Cooper & Munro 1982).

    theta must grow faster than linearly with post, or nothing bounds the weights. In a batch of K orthonormal,
    equiprobable inputs a linear neuron becomes selective to one, with response K and theta K; stable for
    `eta tau < 1`, where `1 / tau` is `bcm_rate`.

    Args:
        bcm_rate: Share of the way to `post^2` that theta moves in a step.
    """

    def __init__(
        self, step_size: float = 1.0, *, bcm_rate: Annotated[float, Field(ge=0, le=1)] = 0.1, **shared: Any
    ) -> None:
        super().__init__(step_size, **handed_on(locals()))

    def state_entries(self, post_size: int, pre_size: int) -> dict[str, StateEntry]:
        """`bcm_threshold` theta, one for each post neuron."""
        return {"bcm_threshold": StateEntry((post_size,))}

    def change(self, params: NamedTensors, pre: Tensor, post: Tensor, trace: Tensor, state: NamedTensors) -> Tensor:
        """Return the outer product of `post (post - theta)` and pre, with the theta of before this step."""
        return (post * (post - state["bcm_threshold"])).unsqueeze(-1) * pre.unsqueeze(-2)

    def curves(self) -> Curves:
        """See `Part.curves`: the change at pre 1 against post, for some thresholds."""
        post = torch.linspace(0, 2.5, 251)
        lines = {}
        for theta in (0.5, 1.0, 2.0):
            state = {"bcm_threshold": torch.full((251, 1), theta)}
            change = self.change({}, torch.ones(251, 1), post.unsqueeze(-1), torch.zeros(251, 1, 1), state)
            lines[f"theta {theta:g}"] = change.flatten()
        return Curves("post", "change at pre 1", post, lines)

    def next_state(
        self, params: NamedTensors, pre: Tensor, post: Tensor, trace: Tensor, state: NamedTensors
    ) -> dict[str, Tensor]:
        """Return theta with this step's `post^2` taken in."""
        return {"bcm_threshold": torch.lerp(state["bcm_threshold"], post.square(), params["bcm_rate"].unsqueeze(-2))}


class Delta(Term):
    """`D = (v - F k) kT`, with the post activity as target `v` and the pre activity as key `k` (Widrow & Hoff 1960).

    With eta = 1 and `|k| = 1` one write makes `F k = v`. Stable for `0 < eta |k|^2 < 2`: take eta small in wide layers.
    """

    def change(self, params: NamedTensors, pre: Tensor, post: Tensor, trace: Tensor, state: NamedTensors) -> Tensor:
        """Return the outer product of the error of recall and the key."""
        row = pre.unsqueeze(-2)
        recalled = (row @ trace.mT).squeeze(-2)
        return (post - recalled).unsqueeze(-1) * row


class Covariance(Term):
    """`D = (y - theta_y) (x - theta_x)`, activity beyond a threshold for each unit (Sejnowski 1977).

    Products of activities that are never negative add the same to every synapse; what varies together is in the
    products of deviations. With the thresholds at the means D is on average the covariance (doi 10.1007/BF00275079).

    Args:
        threshold: running_mean: each unit's own, as it was before the step; parameter: a number for each unit, which
            may be learned; layer_mean: the mean over the units of a layer, in this step.
        threshold_post: theta_y where it is a parameter; where its running mean starts.
        threshold_pre: theta_x, likewise.
        mean_rate: Share of the way to the activity that a running mean moves in a step.
    """

    def __init__(
        self,
        step_size: float = 1.0,
        *,
        threshold: Literal["parameter", "running_mean", "layer_mean"] = "running_mean",
        threshold_post: float = 0.0,
        threshold_pre: float = 0.0,
        mean_rate: Annotated[float, Field(ge=0, le=1)] = 0.05,
        **shared: Any,
    ) -> None:
        super().__init__(step_size, **handed_on(locals()))

    @classmethod
    def used_numbers(cls, options: Any) -> Collection[str]:
        """See `Part.used_numbers`: those that the thresholds need."""
        means, starts = ["mean_rate"], ["threshold_post", "threshold_pre"]
        return {"layer_mean": [], "parameter": starts, "running_mean": starts + means}[options.threshold]

    def parameters(
        self, post_size: int, pre_size: int, coefficients: GainConfig, generator: torch.Generator | None = None
    ) -> dict[str, Parameter]:
        """`threshold_post` `(O,)` and `threshold_pre` `(I,)`, and `mean_rate`, where thresholds need them."""
        sizes = {"threshold_post": post_size, "threshold_pre": pre_size}
        return {
            name: replace(number, value=number.value.repeat(sizes.get(name, 1)))
            for name, number in self.numbers().items()
        }

    def state_entries(self, post_size: int, pre_size: int) -> dict[str, StateEntry]:
        """`mean_post` `(O,)` and `mean_pre` `(I,)`, where the thresholds are running means."""
        if self.options.threshold != "running_mean":
            return {}
        return {
            "mean_post": StateEntry((post_size,), start="threshold_post"),
            "mean_pre": StateEntry((pre_size,), start="threshold_pre"),
        }

    def change(self, params: NamedTensors, pre: Tensor, post: Tensor, trace: Tensor, state: NamedTensors) -> Tensor:
        """Return the outer product of the deviations of post and pre."""
        left, right = self.factors(params, pre, post, state)
        return left.mT * right

    def factors(self, params: NamedTensors, pre: Tensor, post: Tensor, state: NamedTensors) -> tuple[Tensor, Tensor]:
        """See `Term.factors`: the deviations of y and x."""
        of_post, of_pre = (
            activity - self._threshold(side, activity, params, state)
            for side, activity in (("post", post), ("pre", pre))
        )
        return of_post.unsqueeze(-2), of_pre.unsqueeze(-2)

    def next_state(
        self, params: NamedTensors, pre: Tensor, post: Tensor, trace: Tensor, state: NamedTensors
    ) -> dict[str, Tensor]:
        """Return the running means with this step's activity taken in."""
        if self.options.threshold != "running_mean":
            return {}
        rate = params["mean_rate"].unsqueeze(-2)
        return {
            "mean_post": torch.lerp(state["mean_post"], post, rate),
            "mean_pre": torch.lerp(state["mean_pre"], pre, rate),
        }

    def _threshold(self, side: str, activity: Tensor, params: NamedTensors, state: NamedTensors) -> Tensor:
        match self.options.threshold:
            case "layer_mean":
                return activity.mean(-1, keepdim=True)
            case "running_mean":
                return state[f"mean_{side}"]
        return params[f"threshold_{side}"].unsqueeze(-2)


TERMS: Registry[type[Term]] = Registry("term")
TERMS.register("hebb", Hebb)
TERMS.register("oja", Oja)
TERMS.register("instar", Instar)
TERMS.register("abcd", ABCD)
TERMS.register("general", General)
TERMS.register("presynaptically_gated", PresynapticallyGated)
TERMS.register("bcm", BCM)
TERMS.register("delta", Delta)
TERMS.register("covariance", Covariance)
