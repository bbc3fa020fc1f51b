"""What keeps a trace finite: bounds, applied together with the change, and normalisations, applied after it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from plastic_rl.registry import Registry

Bound = Callable[[Tensor, Tensor, float], Tensor]
"""`bound(kept, change, clip)`: the trace `rho F` that is kept and the change `A`, both `(.., B, O, I)`."""
Normalisation = Callable[[Tensor], Tensor]
"""`normalise(trace)`, `(.., B, O, I)` to the same."""

TINY = 1e-12


def unbounded(kept: Tensor, change: Tensor, clip: float) -> Tensor:
    """`kept + change`."""
    return kept + change


def hard_clip(kept: Tensor, change: Tensor, clip: float) -> Tensor:
    """`clip(kept + change, -c, c)` (backpropamine). The gradient passes where the sum is within or at the bounds."""
    return torch.clamp(kept + change, -clip, clip)


def soft_clip(kept: Tensor, change: Tensor, clip: float) -> Tensor:
    """`clip(F + max(D, 0) (1 - F) + min(D, 0) (1 + F), -1, 1)` (arXiv 1804.02464 supplement).

    Written as `F + D - |D| F`, which is the same. `clip` is not used: the bounds are +-1. Under potentiations A+ and
    depressions A- in turn, F tends to `(A+ - A-) / (A+ + A-)`.
    """
    return torch.clamp(kept + change - change.abs() * kept, -1.0, 1.0)


def non_negative(kept: Tensor, change: Tensor, clip: float) -> Tensor:
    """`clip(kept + change, 0, c)`: the strength of a synapse whose sign is its gain's (Dale)."""
    return torch.clamp(kept + change, 0.0, clip)


def soft_non_negative(kept: Tensor, change: Tensor, clip: float) -> Tensor:
    """`clip(F + max(D, 0) (c - F) + min(D, 0) F, 0, c)` (Kistler & van Hemmen 2000; van Rossum, Bi & Turrigiano 2000).

    Under potentiations A+ and depressions A- in turn, F tends to `c A+ / (A+ + A-)`.
    """
    return torch.clamp(kept + change.clamp_min(0) * clip - change.abs() * kept, 0.0, clip)


def keep_scale(trace: Tensor) -> Tensor:
    """No normalisation."""
    return trace


def incoming_l1(trace: Tensor) -> Tensor:
    """Scale the synapses onto each post neuron to a sum of 1, their signs aside; all-zero ones stay zero."""
    return _divided(trace, trace.abs().sum(-1, keepdim=True))


def incoming_l2(trace: Tensor) -> Tensor:
    """Scale the synapses onto each post neuron to Euclidean length 1; all-zero ones stay zero."""
    length: Tensor = torch.linalg.vector_norm(trace, dim=-1, keepdim=True)
    return _divided(trace, length)


def outgoing_l2(trace: Tensor) -> Tensor:
    """Scale the synapses from each pre neuron to Euclidean length 1; all-zero ones stay zero."""
    length: Tensor = torch.linalg.vector_norm(trace, dim=-2, keepdim=True)
    return _divided(trace, length)


def layer_maximum(trace: Tensor) -> Tensor:
    """Divide by the largest absolute trace of the layer; an all-zero layer stays zero."""
    return _divided(trace, trace.abs().amax(dim=(-2, -1), keepdim=True))


def _divided(trace: Tensor, size: Tensor) -> Tensor:
    """`trace / size`; what has no size is left as it is, and so are gradients: in each step of a silent unit's life."""
    return trace / size.masked_fill(size < TINY, 1.0)


BOUNDS: Registry[Bound] = Registry("bound")
BOUNDS.register("none", unbounded)
BOUNDS.register("hard_clip", hard_clip)
BOUNDS.register("soft_clip", soft_clip)
BOUNDS.register("non_negative", non_negative)
BOUNDS.register("soft_non_negative", soft_non_negative)

NORMALISATIONS: Registry[Normalisation] = Registry("normalisation")
NORMALISATIONS.register("none", keep_scale)
NORMALISATIONS.register("incoming_l1", incoming_l1)
NORMALISATIONS.register("incoming_l2", incoming_l2)
NORMALISATIONS.register("outgoing_l2", outgoing_l2)
NORMALISATIONS.register("layer_maximum", layer_maximum)
