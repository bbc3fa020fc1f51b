"""Dale's law: all synapses that a unit makes have its sign, for the whole lifetime (Eccles, Fatt & Koketsu 1954).

    W0 = sign |w|,  w the start weight as the outer loop has it
    F  <- -W0 / alpha  where W0 + alpha F came to lie beyond 0
    W  = sign max(sign s M (W0 + alpha F), 0)

So a rule may take a synapse down to 0 and up again, but never across, and what it does beyond 0 is not remembered.

Source: doi 10.1113/jphysiol.1954.sp005226; in trained networks Song et al. 2016, doi 10.1371/journal.pcbi.1004792.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from plastic_rl.plasticity import Parameter

Sign = Literal["presynaptic", "excitatory", "inhibitory"]
"""Whose sign synapses have: their presynaptic unit's, if it has one, or one for all."""
SIDE = (-1.0, 1.0)
"""Valid range of a sign."""


def unit_signs(excitatory: float, size: int) -> Parameter:
    """Signs of units, `(1, O)`: the first `excitatory * size` of them, rounded, 1, the others -1; never trained.

    >>> unit_signs(0.8, 5).value.tolist()
    [[1.0, 1.0, 1.0, 1.0, -1.0]]
    """
    signs = torch.where(torch.arange(size) < round(excitatory * size), 1.0, -1.0)
    return Parameter(signs.unsqueeze(0), trainable=False, valid=SIDE, is_gain=False)


def signed_weights(signs: Tensor, weight: Tensor) -> Tensor:
    """W0, `(.., O, I)`, of `weight` likewise and `signs (.., 1, I)`: what is on the wrong side of 0 is mirrored."""
    return signs.sign() * weight.abs()


def clipped(signs: Tensor, weights: Tensor) -> Tensor:
    """W, `(.., B, O, I)`, 0 where it would be beyond 0, for `signs (.., 1, I)`."""
    own = signs.sign().unsqueeze(-3)
    return own * (own * weights).clamp_min(0)


def held_trace(signs: Tensor, start: Tensor | None, alpha: Tensor, trace: Tensor) -> Tensor:
    """F, `(.., B, O, I)`, less what would take the weight beyond 0.

    Args:
        signs: `(.., 1, I)`.
        start: W0, on its side of 0, broadcastable to `(.., O, I)`; None: 0.
        alpha: Likewise.
        trace: F, `(.., B, O, I)`.
    """
    own, gain = signs.sign().unsqueeze(-3), alpha.unsqueeze(-3)
    from_start = torch.zeros_like(trace) if start is None else start.unsqueeze(-3)
    beyond = own * (from_start + gain * trace) < 0
    # Where alpha is 0 nothing is beyond; a division by it would still spoil gradients.
    return torch.where(beyond, -from_start / torch.where(gain == 0, 1.0, gain), trace)
