"""Sparse weights in gradient training: a fixed share of them is there, and which ones is learned.

RigL (Evci et al. 2020, arXiv 1911.11134): every dT updates k = f(t) n of the n weights that are there are dropped,
those of smallest |w|, and as many grow among those that are not there then, where the |gradient| of the loss by the
dense weights is largest. SET (Mocanu et al. 2018, doi 10.1038/s41467-018-04316-3) grows random ones.

    f(t) = share / 2 (1 + cos(pi t / T_end)) up to T_end, then 0

A weight that grows starts at 0; the optimizer's running averages of what was dropped or grown are 0. Weights that are
not there are exactly 0, and have no part in the norm to which gradients are clipped. Each matrix has the same density
(the paper's uniform distribution). What is sparse is a parameter: of plastic synapses, W = W0 + alpha F, name both.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from plastic_rl.algorithms.patterns import matching
from plastic_rl.algorithms.weight_changes import WeightChange, forget
from plastic_rl.checkpoint import count_in
from plastic_rl.config import ConfigModel
from plastic_rl.envs.vector_env import stored_array
from plastic_rl.errors import CheckpointError, ConfigError
from plastic_rl.plasticity.structure import lowest
from plastic_rl.policies import PlasticPolicy


class SparsityConfig(ConfigModel):
    """Which weights are sparse, and how those that are there are chosen."""

    weights: tuple[str, ...] = Field(
        ("network.*weight",),
        min_length=1,
        description="Patterns (`*` stands for anything) of the names of trained matrices that are sparse.",
    )
    density: float = Field(0.1, gt=0, le=1, description="Share of each matrix that is there: rounded, 1 at least.")
    interval: int = Field(100, ge=1, description="dT, updates from one exchange of weights to the next.")
    share: float = Field(
        0.3, ge=0, le=1, description="Of the weights that are there, what is exchanged at first; 0: none ever is."
    )
    until: float = Field(
        0.75,
        gt=0,
        le=1,
        description="Share of the training (of each of its stages), T_end, in which the exchanged share goes to 0.",
    )
    grow: Literal["gradient", "random"] = Field(
        "gradient", description="gradient: weights grow where the dense gradient is largest (RigL); random: SET."
    )


class Sparsity(WeightChange):
    """Keeps matrices sparse, and exchanges which of their weights are there.

    Args:
        config: What is sparse, and how.
        policy: Its parameters are made sparse at once; with its optimizer.
        generator: Draws the first masks, what grows at random, and among equals.

    Attributes:
        masks: Which weights are there, bool, by the parameter's name.
        updates: Gradient steps so far.
        exchanges: Weights that have changed places so far.

    Raises:
        ConfigError: If a pattern matches no trained matrix.
    """

    def __init__(self, config: SparsityConfig, policy: PlasticPolicy, generator: torch.Generator) -> None:
        self.config, self.policy, self.generator = config, policy, generator
        trained = {name: own for name, own in policy.named_parameters() if own.requires_grad and own.dim() == 2}
        # A number for all synapses, (1, 1), is no matrix.
        names = [name for name, own in trained.items() if own.numel() > 1]
        if not names:
            raise ConfigError("sparsity needs weights that are trained, in matrices; this policy has none")
        chosen = {name for pattern in config.weights for name in matching(pattern, names, "algorithm.sparsity.weights")}
        self.parameters = {name: own for name, own in trained.items() if name in chosen}
        self.masks: dict[str, Tensor] = {}
        for name, own in self.parameters.items():
            mask = lowest(torch.zeros(own.numel(), dtype=torch.float32), self._numbers(own), self.count(own))
            self.masks[name] = mask.view(own.shape).to(own.device)
        self._dense: dict[str, Tensor] = {}
        self.updates = self.exchanges = 0
        self._prune()

    def count(self, parameter: Tensor) -> int:
        """How many weights of a matrix are there."""
        return max(1, round(self.config.density * parameter.numel()))

    def exchanged(self, remaining: float) -> float:
        """f(t): which share of the weights is exchanged when this share of the training remains."""
        gone = (1 - remaining) / self.config.until
        return 0.0 if gone >= 1 else self.config.share / 2 * (1 + math.cos(math.pi * gone))

    def acted(self, outputs: Mapping[str, Tensor], counted: Tensor) -> None:
        """See `WeightChange.acted`: what units put out is of no matter here."""

    def before_step(self) -> None:
        """See `WeightChange.before_step`: only weights that are there have gradients."""
        is_due = (self.updates + 1) % self.config.interval == 0 and self.config.grow == "gradient"
        self._dense = {}
        for name, own in self.parameters.items():
            if own.grad is not None:
                if is_due:
                    self._dense[name] = own.grad.detach().abs()
                # A product keeps NaN, which is to be found out.
                own.grad.mul_(self.masks[name])

    @torch.no_grad()
    def after_step(self, remaining: float) -> dict[str, float]:
        """See `WeightChange.after_step`."""
        self.updates += 1
        share = self.exchanged(remaining)
        if self.updates % self.config.interval == 0 and share > 0:
            for name, own in self.parameters.items():
                self.exchanges += self._exchange(name, own, round(share * self.count(own)))
        self._prune()
        return {"exchanged_weights": self.exchanges}

    def _exchange(self, name: str, own: Tensor, count: int) -> int:
        """Drop `count` weights of a matrix and grow as many; return how many changed places."""
        before = self.masks[name].cpu().flatten()
        strength = own.abs().cpu().flatten()
        kept = before & ~lowest(strength.masked_fill(~before, torch.inf), self._numbers(own), count)
        gain = torch.zeros_like(strength)
        if self.config.grow == "gradient" and name in self._dense:
            gain = self._dense[name].cpu().flatten()
        grown = lowest((-gain).masked_fill(kept, torch.inf), self._numbers(own), count)
        new = (~kept).view(own.shape).to(own.device)
        self.masks[name] = (kept | grown).view(own.shape).to(own.device)
        own.masked_fill_(new, 0.0)
        forget(self.policy.optimizer, own, new)
        return int((grown & ~before).sum())

    @torch.no_grad()
    def _prune(self) -> None:
        for name, own in self.parameters.items():
            own.masked_fill_(~self.masks[name], 0.0)

    def _numbers(self, parameter: Tensor) -> Tensor:
        return torch.rand(parameter.numel(), generator=self.generator, dtype=torch.float64)

    def document(self) -> dict[str, Any]:
        """See `WeightChange.document`."""
        masks = {name: mask.cpu().numpy().copy() for name, mask in self.masks.items()}
        return {"updates": self.updates, "exchanges": self.exchanges, "masks": masks}

    def restore(self, document: dict[str, Any] | None) -> None:
        """See `WeightChange.restore`."""
        if document is not None:
            for name, own in self.parameters.items():
                mask = torch.from_numpy(stored_array(name, document["masks"][name], self.masks[name].cpu().numpy()))
                if int(mask.sum()) != self.count(own):
                    raise CheckpointError(
                        f"of {name!r} {int(mask.sum())} weights are there in the checkpoint, but {self.count(own)} by "
                        f"the density {self.config.density:g}"
                    )
                self.masks[name] = mask.to(own.device)
            self.updates, self.exchanges = count_in(document, "updates"), count_in(document, "exchanges")
        self._prune()
