"""Taking arrays back from stored state: only what fits where it goes."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from plastic_rl.errors import CheckpointError

Number = TypeVar("Number", bound=np.generic)


def stored_array(name: str, value: Any, like: npt.NDArray[Number]) -> npt.NDArray[Number]:
    """Return `value` as a fresh array of the type and shape of `like`.

    Raises:
        CheckpointError: If it has another shape or holds another kind of number.

    >>> stored_array("time", [3, 4], np.zeros(2, dtype=np.int64)).tolist()
    [3, 4]
    """
    array = np.asarray(value)
    if array.shape != like.shape or array.dtype.kind != like.dtype.kind:
        raise CheckpointError(
            f"the stored {name!r} must be {like.dtype} of shape {like.shape}, got {array.dtype} of shape {array.shape}"
        )
    return array.astype(like.dtype)
