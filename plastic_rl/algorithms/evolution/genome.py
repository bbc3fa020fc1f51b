"""What evolves: some of a policy's parameters as one vector, with a start, a scale and bounds for each gene.

Genes are float64 `(N,)` and stand in the order of the policy's parameters, each flattened row by row.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from plastic_rl.algorithms.patterns import matching
from plastic_rl.arrays import FloatArray
from plastic_rl.config import ConfigModel
from plastic_rl.errors import ConfigError
from plastic_rl.plasticity import UNBOUNDED, Range
from plastic_rl.policies import PlasticPolicy


class GeneGroup(ConfigModel):
    """How parameters whose names match a pattern are searched."""

    scale: float = Field(default=1.0, gt=0)
    """Their initial standard deviation, as a multiple of `sigma`."""
    low: float | None = None
    """Lower bound of their values; null: none."""
    high: float | None = None
    """Upper bound of their values; null: none."""

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.low is not None and self.high is not None and self.low >= self.high:
            raise ValueError(f"low must be below high, got low {self.low:g} and high {self.high:g}")
        return self


@dataclass(frozen=True)
class Genome:
    """The parameters that evolve, and how.

    Attributes:
        names: Dotted names of the parameters, in the policy's order.
        shapes: Their shapes.
        start: Their values at the start, within the bounds, `(N,)`.
        scale: Initial standard deviation of each gene as a multiple of sigma, `(N,)`.
        low: Lower bounds, `(N,)`; minus infinity without one.
        high: Upper bounds, `(N,)`; infinity without one.
    """

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    start: FloatArray
    scale: FloatArray
    low: FloatArray
    high: FloatArray

    @classmethod
    def of(
        cls,
        policy: PlasticPolicy,
        evolve: Sequence[str] | None = None,
        groups: Mapping[str, GeneGroup] | None = None,
    ) -> Genome:
        """Read the genome of a policy, at its present parameters.

        Args:
            policy: Its parameters are not changed.
            evolve: Patterns (`*` stands for anything) of the names of the parameters that evolve; None: all that are
                trainable and that actions depend on (`acting_parameters`).
            groups: Scale and bounds by pattern; a later group goes before an earlier one. Bounds narrow a parameter's
                valid range, and starts beyond them are moved to them.

        Raises:
            ConfigError: If a pattern matches no such parameter, or bounds lie outside its valid range.
        """
        names = policy.acting_parameters()
        if evolve is not None:
            chosen = {name for pattern in evolve for name in matching(pattern, names, "algorithm.evolve")}
            names = [name for name in names if name in chosen]
        if not names:
            raise ConfigError("no parameter evolves: `evolve` needs at least one pattern of a name")
        parameters = policy.parameters_by_name()
        shapes = tuple(tuple(parameters[name].shape) for name in names)
        settings = dict.fromkeys(names, GeneGroup())
        for pattern, group in (groups or {}).items():
            settings |= dict.fromkeys(matching(pattern, names, "algorithm.groups"), group)
        sizes = [int(parameters[name].numel()) for name in names]

        def spread(values: Iterable[float]) -> FloatArray:
            return np.repeat(np.array(list(values), dtype=np.float64), sizes)

        ranges = policy.valid_ranges()
        bounds = [_bounds(name, settings[name], ranges.get(name, UNBOUNDED)) for name in names]
        low, high = spread(low for low, _ in bounds), spread(high for _, high in bounds)
        flat = [parameters[name].detach().reshape(-1).double().cpu().numpy() for name in names]
        start = np.clip(np.concatenate(flat), low, high)
        return cls(tuple(names), shapes, start, spread(settings[name].scale for name in names), low, high)

    @property
    def size(self) -> int:
        """Number of genes, `N`."""
        return len(self.start)

    def parameters(self, genes: FloatArray) -> dict[str, Tensor]:
        """Return the parameters that genes `(.., N)` stand for, each `(.., *shape)` float32."""
        flat = torch.from_numpy(np.ascontiguousarray(genes)).to(torch.float32)
        sizes = [int(np.prod(shape, dtype=np.int64)) for shape in self.shapes]
        pieces = torch.split(flat, sizes, -1)
        lead = flat.shape[:-1]
        return {
            name: piece.reshape(*lead, *shape)
            for name, shape, piece in zip(self.names, self.shapes, pieces, strict=True)
        }

    def write(self, genes: FloatArray, policy: PlasticPolicy) -> None:
        """Give `policy` the parameters that genes `(N,)` stand for."""
        own: dict[str, Any] = dict(policy.named_parameters())
        with torch.no_grad():
            for name, value in self.parameters(genes).items():
                own[name].copy_(value)


def _bounds(name: str, group: GeneGroup, valid: Range) -> Range:
    """Where a parameter is searched: its valid range, as far as its group allows."""
    low = valid[0] if group.low is None else max(group.low, valid[0])
    high = valid[1] if group.high is None else min(group.high, valid[1])
    if low >= high:
        raise ConfigError(
            f"algorithm.groups leaves no values for {name}: valid are those from {valid[0]:g} to {valid[1]:g}, and its "
            f"group has low {group.low} and high {group.high}"
        )
    return low, high
