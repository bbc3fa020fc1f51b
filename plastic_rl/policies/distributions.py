"""Action distributions as plain functions of the action head's output; no `torch.distributions` in the hot loop.

Sampling is a deterministic function of noise drawn ahead for a whole rollout: a draw per step costs more than the
sample itself. Leading axes `..` are any of `T`, `P`, `B`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any, Literal

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from plastic_rl.arrays import BoolArray, IntArray, SingleArray
from plastic_rl.errors import SpaceError


class ActionDistribution(ABC):
    """How the `head_size` outputs of the action head become an action.

    Attributes:
        head_size: Number of outputs of the action head.
        noise_size: Number of random numbers per action.
        noise_kind: Whether they are uniform in [0, 1) or standard normal.
        has_scale: True where a learned `log_std` of `head_size` entries belongs to the distribution.
    """

    head_size: int
    noise_size: int
    noise_kind: Literal["uniform", "normal"] = "uniform"
    has_scale: bool = False

    def draw_noise(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Return noise `(*shape, noise_size)` for `sample`, from a CPU generator."""
        draw = torch.rand if self.noise_kind == "uniform" else torch.randn
        return draw((*shape, self.noise_size), generator=generator, dtype=torch.float32)

    @abstractmethod
    def sample(self, head: Tensor, log_std: Tensor | None, noise: Tensor) -> Tensor:
        """Return actions `(.., action size)` for head outputs `(.., head_size)` and noise `(.., noise_size)`."""

    @abstractmethod
    def mode(self, head: Tensor) -> Tensor:
        """Return the most probable actions."""

    @abstractmethod
    def evaluate(self, head: Tensor, log_std: Tensor | None, actions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return `(log probability, entropy, sum of squared probabilities)` of `actions`, each `(..)`."""

    def certainty(self, head: Tensor) -> Tensor:
        """How sure the head is of an action, `(.., head_size)`: bounded, it says how much reward to expect."""
        return torch.softmax(head, -1).square()

    def to_environment(self, actions: Tensor) -> Tensor:
        """Return `actions` in the form that the environment's space takes."""
        return actions


class Categorical(ActionDistribution):
    """One of `n` actions; sampled by inverse CDF. Actions are int64 `(..)`.

    >>> dist = Categorical(2)
    >>> head = torch.tensor([[0.0, math.log(3.0)]])  # probabilities 1/4 and 3/4
    >>> dist.sample(head, None, torch.tensor([[0.2]])), dist.sample(head, None, torch.tensor([[0.3]]))
    (tensor([0]), tensor([1]))
    """

    noise_size = 1

    def __init__(self, n: int) -> None:
        self.head_size = n

    def sample(self, head: Tensor, log_std: Tensor | None, noise: Tensor) -> Tensor:
        """Invert the cumulative distribution at the noise."""
        cumulative = torch.softmax(head, -1).cumsum(-1)
        # As torch.searchsorted takes it without a copy or a warning; drawn ahead it mostly is so already.
        wanted = (*cumulative.shape[:-1], 1)
        if noise.shape != wanted or noise.dtype is not cumulative.dtype or not noise.is_contiguous():
            noise = noise.to(cumulative.dtype).expand(wanted).contiguous()
        # How many are not above the draw: at most all but the last, whatever the rounding of their sum.
        return torch.searchsorted(cumulative, noise, right=True).clamp_max_(self.head_size - 1).squeeze(-1)

    def mode(self, head: Tensor) -> Tensor:
        """The largest output."""
        return head.argmax(-1)

    def choose_rows(self, head: SingleArray, noise: SingleArray | None) -> IntArray:
        """`sample`, or `mode` without noise, in NumPy and up to rounding: `(B,)` for `(B, n)` and noise `(B, 1)`."""
        if noise is None:
            return np.asarray(head.argmax(-1))
        # The ufuncs themselves: for few numbers the functions around them would cost more than the sums.
        weights = np.exp(head - np.maximum.reduce(head, -1, keepdims=True))
        cumulative = np.add.accumulate(weights, -1)
        below: BoolArray = cumulative[:, :-1] / cumulative[:, -1:] <= noise
        return np.asarray(np.add.reduce(below, -1))

    def evaluate(self, head: Tensor, log_std: Tensor | None, actions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Exact values from the log-softmax."""
        log_probability, entropy, sum_p2 = _Terms.apply(head, actions)  # type: ignore[no-untyped-call]
        return log_probability, entropy, sum_p2


class _Terms(torch.autograd.Function):
    """`log p_a`, entropy `H` and `S = sum_k p_k^2` of a choice with logits `x (.., n)`, with closed-form gradients.

    d log p_a / dx_k = [k = a] - p_k;  dH / dx_k = -p_k (log p_k + H);  dS / dx_k = 2 p_k (p_k - S)

    Actions come first within, `(n, ..)`: sums over a few of them then run along memory.
    """

    @staticmethod
    def forward(ctx: Any, head: Tensor, actions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        logs = torch.log_softmax(head.movedim(-1, 0).contiguous(), 0)
        p = logs.exp()
        entropy, sum_p2 = -(p * logs).sum(0), (p * p).sum(0)
        ctx.save_for_backward(logs, p, entropy, sum_p2, actions)
        return logs.gather(0, actions.unsqueeze(0)).squeeze(0), entropy, sum_p2

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_log: Tensor, of_entropy: Tensor, of_sum: Tensor) -> tuple[Tensor, None]:
        logs, p, entropy, sum_p2, actions = ctx.saved_tensors
        common = of_log + of_entropy * entropy + 2 * of_sum * sum_p2
        gradient = (2 * of_sum * p - of_entropy * logs - common) * p
        gradient.scatter_add_(0, actions.unsqueeze(0), of_log.unsqueeze(0))
        return gradient.movedim(0, -1), None


class MultiCategorical(ActionDistribution):
    """Several independent categorical choices; actions are int64 `(.., number of choices)`."""

    def __init__(self, sizes: tuple[int, ...]) -> None:
        self.parts = tuple(Categorical(size) for size in sizes)
        self.sizes = sizes
        self.head_size = sum(sizes)
        self.noise_size = len(sizes)

    def _heads(self, head: Tensor) -> tuple[Tensor, ...]:
        return torch.split(head, list(self.sizes), -1)

    def sample(self, head: Tensor, log_std: Tensor | None, noise: Tensor) -> Tensor:
        """Sample each choice on its own."""
        choices = zip(self.parts, self._heads(head), torch.split(noise, 1, -1), strict=True)
        return torch.stack([part.sample(own, None, draw) for part, own, draw in choices], -1)

    def mode(self, head: Tensor) -> Tensor:
        """The largest output of each choice."""
        return torch.stack([own.argmax(-1) for own in self._heads(head)], -1)

    def evaluate(self, head: Tensor, log_std: Tensor | None, actions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Sums (log probability, entropy) and product (squared probabilities) of the choices."""
        choices = zip(self.parts, self._heads(head), actions.unbind(-1), strict=True)
        results = [part.evaluate(own, None, action) for part, own, action in choices]
        log_probability, entropy, collision = (torch.stack(values) for values in zip(*results, strict=True))
        return log_probability.sum(0), entropy.sum(0), collision.prod(0)


class IndependentBits(ActionDistribution):
    """Bits that are 1 with a probability of their own, whose logit is the head's output; actions are int64 `(.., n)`.

    >>> dist = IndependentBits(2)
    >>> head = torch.tensor([[math.log(3.0), 0.0]])  # probabilities 3/4 and 1/2
    >>> dist.sample(head, None, torch.tensor([[0.7, 0.7]])), dist.mode(head)
    (tensor([[1, 0]]), tensor([[1, 0]]))
    """

    def __init__(self, n: int) -> None:
        self.head_size = self.noise_size = n

    def sample(self, head: Tensor, log_std: Tensor | None, noise: Tensor) -> Tensor:
        """1 where the noise is below the probability."""
        return (noise < torch.sigmoid(head)).long()

    def mode(self, head: Tensor) -> Tensor:
        """1 where it is the more probable bit."""
        return (head > 0).long()

    def evaluate(self, head: Tensor, log_std: Tensor | None, actions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Sums (log probability, entropy) and product (squared probabilities) of the bits."""
        one, zero = nn.functional.logsigmoid(head), nn.functional.logsigmoid(-head)
        p, q = one.exp(), zero.exp()
        chosen = torch.where(actions > 0, one, zero)
        return chosen.sum(-1), -(p * one + q * zero).sum(-1), (p.square() + q.square()).prod(-1)

    def certainty(self, head: Tensor) -> Tensor:
        """Square of what the probabilities of 1 and 0 differ by: 0 where a bit is guessed."""
        return torch.tanh(head / 2).square()


class DiagonalGaussian(ActionDistribution):
    """A Gaussian with a learned, state-independent standard deviation; clipped to the space when acting.

    The "sum of squared probabilities" of a density is the integral of its square, `prod 1 / (2 sqrt(pi) sigma)`.
    """

    noise_kind = "normal"
    has_scale = True

    def __init__(self, space: spaces.Box) -> None:
        self.shape = space.shape
        self.head_size = self.noise_size = math.prod(space.shape)
        self._low = torch.as_tensor(space.low.reshape(-1), dtype=torch.float32)
        self._high = torch.as_tensor(space.high.reshape(-1), dtype=torch.float32)

    def sample(self, head: Tensor, log_std: Tensor | None, noise: Tensor) -> Tensor:
        """Mean plus noise times the standard deviation."""
        assert log_std is not None, "PlasticPolicy has one"
        return head + log_std.exp() * noise

    def mode(self, head: Tensor) -> Tensor:
        """The mean."""
        return head

    def evaluate(self, head: Tensor, log_std: Tensor | None, actions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Closed forms of the diagonal Gaussian."""
        assert log_std is not None, "PlasticPolicy has one"
        standardised = (actions - head) * (-log_std).exp()
        log_probability = (-0.5 * standardised.square() - log_std - 0.5 * math.log(2 * math.pi)).sum(-1)
        entropy = (log_std + 0.5 * math.log(2 * math.pi * math.e)).sum(-1).expand_as(log_probability)
        collision = (-log_std - math.log(2 * math.sqrt(math.pi))).sum(-1).exp().expand_as(log_probability)
        return log_probability, entropy, collision

    def certainty(self, head: Tensor) -> Tensor:
        """The mean, squashed."""
        return torch.tanh(head)

    def to_environment(self, actions: Tensor) -> Tensor:
        """Clip to the space."""
        low, high = self._low.to(actions.device), self._high.to(actions.device)
        return actions.clamp(low, high).reshape(*actions.shape[:-1], *self.shape)


def make_distribution(space: spaces.Space[object]) -> ActionDistribution:
    """Return the distribution for an action space.

    Raises:
        SpaceError: Unless the space is Discrete (from 0), MultiDiscrete (from 0) or MultiBinary (one axis each), or a
            bounded Box.
    """
    if isinstance(space, spaces.Discrete) and space.start == 0:
        return Categorical(int(space.n))
    if isinstance(space, spaces.MultiDiscrete) and space.nvec.ndim == 1 and not space.start.any():
        return MultiCategorical(tuple(int(size) for size in space.nvec))
    if isinstance(space, spaces.MultiBinary) and len(space.shape) == 1:
        return IndependentBits(space.shape[0])
    if isinstance(space, spaces.Box) and space.is_bounded():
        return DiagonalGaussian(space)
    raise SpaceError(
        f"action space {space} is not supported; valid are Discrete and MultiDiscrete counting from 0, MultiBinary "
        "with one axis, and Box with finite bounds. Wrap the environment so that it has one of them "
        "(gymnasium.wrappers.RescaleAction, ...)"
    )
