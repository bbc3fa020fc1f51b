"""Random numbers of a lifetime, start weights and noise, as a function of a key in the state.

The state holds one whole number a lifetime, `key (B,)`; all follows from it, and noise from the lifetime's age too. So
`unroll` finds what `step` drew, a population that shares its keys shares its numbers, and no random generator is
carried about. Numbers come from a counter-based hash (the finaliser of SplitMix64; Steele, Lea & Flood 2014), the same
on every device.

What a lifetime's first step draws by `step_numbers` (age 0), its successor draws at birth by `uniform_numbers` of the
same stream: `next_keys` makes its key of the same hash. So no network uses one stream for both: noise from age 0 on
(Poisson inputs: 0; spontaneous activity: 2 << 20) has streams apart from those of birth (start weights: layers;
structures: from 1 << 20 on), and rewiring, which has the streams of structures, begins at age 1, as does turnover
(from 3 << 20 on).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

_STEP = 0x9E3779B97F4A7C15 - 2**64
_FIRST = 0xBF58476D1CE4E5B9 - 2**64
_SECOND = 0x94D049BB133111EB - 2**64
_MANTISSA = 53


def _shifted(bits: Tensor, places: int) -> Tensor:
    """Shift int64 to the right as if it had no sign."""
    return (bits >> places) & ((1 << (64 - places)) - 1)


def _mixed(bits: Tensor) -> Tensor:
    bits = (bits ^ _shifted(bits, 30)) * _FIRST
    bits = (bits ^ _shifted(bits, 27)) * _SECOND
    return bits ^ _shifted(bits, 31)


def draw_keys(batch: int, generator: torch.Generator | None = None) -> Tensor:
    """Keys of `batch` newborn lifetimes, `(B,)` int64, from a CPU generator (None: torch's global one)."""
    return torch.randint(2**62, (batch,), generator=generator)


def next_keys(keys: Tensor, episode_start: Tensor) -> Tensor:
    """Return `keys (.., B)`, replaced by their successors where `episode_start (.., B)`: a new life, new weights.

    >>> keys = torch.tensor([7, 7])
    >>> later = next_keys(keys, torch.tensor([False, True]))
    >>> bool(later[0] == 7), bool(later[1] == 7)
    (True, False)
    """
    return torch.where(episode_start, _mixed(keys + _STEP), keys)


def uniform_numbers(keys: Tensor, stream: int, count: int) -> Tensor:
    """Independent uniform numbers in (0, 1), float64 `(.., count)`, a function of `keys (..)` and `stream` alone.

    Args:
        keys: int64, any shape.
        stream: Which of a lifetime's random arrays this is, 0 or more; different streams are independent.
        count: Numbers for each key.
    """
    start = _mixed(keys ^ _mixed(torch.full_like(keys, stream + 1) * _STEP))
    counters = torch.arange(1, count + 1, device=keys.device, dtype=torch.int64)
    bits = _shifted(_mixed(start.unsqueeze(-1) + counters * _STEP), 64 - _MANTISSA)
    return (bits.to(torch.float64) + 0.5) * 2.0**-_MANTISSA


def step_numbers(keys: Tensor, ages: Tensor, stream: int, shape: tuple[int, ...]) -> Tensor:
    """Uniform numbers in (0, 1) of one step of each lifetime, float64 `(.., *shape)`.

    Args:
        keys: int64, any shape.
        ages: Steps that the lifetime has lived, of the same shape; every step has numbers of its own.
        stream: See `uniform_numbers`; at age 0 one of which no newborn draws (see the module).
        shape: Of the numbers of one lifetime.
    """
    distinct, place = torch.unique(_mixed(keys + (ages + 1) * _STEP), return_inverse=True)
    return uniform_numbers(distinct, stream, math.prod(shape)).reshape(-1, *shape)[place]


def normal_numbers(uniform: Tensor) -> Tensor:
    """Standard normal numbers by uniform ones in (0, 1), of the same shape and type."""
    return (2 * uniform - 1).erfinv_().mul_(math.sqrt(2))


def normal_weights(keys: Tensor, stream: int, shape: tuple[int, ...]) -> Tensor:
    """Standard normal start weights `(.., *shape)`, float32, as `uniform_numbers` gives them.

    Equal keys are drawn once: a population that shares its lifetimes' keys pays for one individual.

    >>> keys = torch.tensor([3, 4, 3])
    >>> weights = normal_weights(keys, 0, (50, 40))
    >>> torch.equal(weights[0], weights[2]), weights.std().round(decimals=1).item()
    (True, 1.0)
    """
    distinct, place = torch.unique(keys, return_inverse=True)
    normal = normal_numbers(uniform_numbers(distinct, stream, math.prod(shape))).to(torch.float32)
    return normal.reshape(-1, *shape)[place]
