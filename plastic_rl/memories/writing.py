"""Local rules that write one pattern into weights, for NumPy arrays and torch tensors alike.

They use only operators that both have, so that memories, and networks that carry a memory along, share them. Shapes:
weights `(.., N, N)`, post by pre; pattern `(.., N)`.
"""

from __future__ import annotations

from typing import Any


def through(weights: Any, state: Any) -> Any:
    """`W S`, `(.., N)`."""
    return (weights @ state[..., None])[..., 0]


def hebb(weights: Any, pattern: Any, rate: Any) -> Any:
    """`W + rate p p^T` (Hebb 1949; Hopfield 1982)."""
    return weights + rate * (pattern[..., :, None] * pattern[..., None, :])


def delta(weights: Any, pattern: Any, rate: Any, known: Any = 1.0) -> Any:
    """`W + rate (p - W p) p^T` (Widrow & Hoff 1960; Diederich & Opper 1987).

    With `rate = 1 / p.p` the pattern is a fixed point after one write; stable for rates below twice that. Rows of units
    where `known (.., N)` is 0 stay as they are: what they should be is not told.
    """
    error = known * (pattern - through(weights, pattern))
    return weights + rate * (error[..., :, None] * pattern[..., None, :])
