"""How actions look to an agent: checked on the way in, and as columns of the next observation on the way back."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
from gymnasium import spaces

from plastic_rl.arrays import Array, SingleArray
from plastic_rl.errors import SpaceError


class ActionCodec:
    """Checks and encodes actions of `Discrete`, `MultiDiscrete`, `MultiBinary` and `Box` spaces for `B` rows at once.

    Discrete actions become one-hot columns, MultiDiscrete ones concatenated one-hots, MultiBinary ones their bits, Box
    ones the (clipped) vector.

    Attributes:
        space: What the agent sees: `Discrete` from 0, `MultiDiscrete` of one axis from 0, `MultiBinary` or `Box` of one
            axis.
        size: Number of columns, `A`.
        low: Lowest value of each column, `(A,)`.
        high: Highest value of each column, `(A,)`.

    Raises:
        SpaceError: If the space is none of the four.

    >>> codec = ActionCodec(spaces.Discrete(3))
    >>> columns = np.zeros((2, 3), dtype=np.float32)
    >>> codec.encode(codec.check(np.array([2, 0]), 2), columns)
    >>> columns.tolist()
    [[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]
    """

    def __init__(self, space: spaces.Space[Any]) -> None:
        self._inner = space
        self.space: spaces.Space[Any]
        if isinstance(space, spaces.Discrete):
            self.space = spaces.Discrete(int(space.n))
            self._sizes = np.array([int(space.n)])
        elif isinstance(space, spaces.MultiDiscrete):
            self._sizes = space.nvec.ravel().astype(np.int64)
            self.space = spaces.MultiDiscrete(self._sizes)
        elif isinstance(space, spaces.MultiBinary):
            self._sizes = np.full(math.prod(space.shape), 2)
            self.space = spaces.MultiBinary(len(self._sizes))
        elif isinstance(space, spaces.Box) and np.issubdtype(space.dtype, np.floating):
            low, high = (np.asarray(bound, dtype=np.float32).ravel() for bound in (space.low, space.high))
            self.space = spaces.Box(low, high, dtype=np.float32)
            self._sizes = np.array([low.size])
        else:
            raise SpaceError(
                f"action spaces must be Discrete, MultiDiscrete, MultiBinary or a floating-point Box, got {space}"
            )
        self._bits = isinstance(self.space, spaces.MultiBinary)
        self.size = len(self._sizes) if self._bits else int(self._sizes.sum())
        self._discrete = not isinstance(self.space, spaces.Box)
        self._offsets = np.concatenate([[0], np.cumsum(self._sizes)[:-1]])
        self._single = isinstance(self.space, spaces.Discrete)
        # Without an axis NumPy compares with it as quickly as it can.
        self._unsigned_sizes = (self._sizes.squeeze() if self._single else self._sizes).view(np.uint64)
        self._one_hot = np.eye(self.size if self._single else 0, dtype=np.float32)
        self._shape = () if self._single else (len(self._sizes),) if self._discrete else (self.size,)
        if isinstance(self.space, spaces.Box):
            self.low, self.high = self.space.low, self.space.high
        else:
            self.low, self.high = np.zeros(self.size, dtype=np.float32), np.ones(self.size, dtype=np.float32)

    def check(self, actions: npt.ArrayLike, rows: int) -> Array:
        """Return `actions` as an array `(B,)` or `(B, A)` of int64 or float32; `SpaceError` where they are none."""
        checked = np.asarray(actions)
        if checked.shape != (rows, *self._shape):
            raise SpaceError(f"actions must have shape {(rows, *self._shape)} for {self.space}, got {checked.shape}")
        if not self._discrete:
            if np.count_nonzero(np.isnan(checked)):
                raise SpaceError(f"actions of {self.space} must be numbers, got {checked.tolist()}")
            return checked.astype(np.float32, copy=False)
        if checked.dtype.kind not in ("biu" if self._bits else "iu"):
            raise SpaceError(f"actions of {self.space} must be integers, got {checked.dtype}")
        checked = checked.astype(np.int64, copy=False)
        # Seen as unsigned, negative numbers are huge: one comparison finds both ends.
        if np.count_nonzero(checked.view(np.uint64) >= self._unsigned_sizes):
            raise SpaceError(f"actions must lie in {self.space}, got {checked.tolist()}")
        return checked

    def encode(self, actions: Array, out: SingleArray) -> None:
        """Write the columns of checked `actions` into `out (B, A)`."""
        if self._single:
            out[...] = self._one_hot.take(actions, axis=0)
        elif self._bits:
            out[...] = actions
        elif self._discrete:
            out[...] = 0.0
            np.put_along_axis(out, actions + self._offsets, 1.0, axis=1)
        else:
            np.clip(actions, self.low, self.high, out=out)

    def inner(self, action: Any) -> Any:
        """Turn one checked action into what the original space holds (start, shape, dtype)."""
        space = self._inner
        if isinstance(space, spaces.Discrete):
            return space.start + space.dtype.type(action)
        if isinstance(space, spaces.MultiDiscrete):
            return (np.asarray(action, dtype=space.dtype).reshape(space.nvec.shape)) + space.start
        # MultiBinary and Box.
        return np.asarray(action, dtype=space.dtype).reshape(space.shape or ())
