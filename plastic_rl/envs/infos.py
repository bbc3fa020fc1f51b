"""Reading the `info` of a vectorised environment's step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]


def number_of_this_step(info: Mapping[str, Any], key: str, ended: BoolArray, rows: int) -> tuple[BoolArray, FloatArray]:
    """Read a number per row from the `info` of a step, whatever the autoreset mode.

    With SAME_STEP, rows that ended keep theirs in `final_info`: what stands in `info` is of their reset.

    Args:
        info: As `VectorEnv.step` returns it.
        key: What to read.
        ended: Which rows' episodes ended with this step, `(B,)`.
        rows: Number of rows, `B`.

    Returns:
        Which rows have it, and their values (0 elsewhere), both `(B,)`.

    >>> info = {"gain": np.array([1.0, 0.0]), "_gain": np.array([True, False])}
    >>> info["final_info"] = {"gain": np.array([0.0, 3.0]), "_gain": np.array([False, True])}
    >>> number_of_this_step(info, "gain", np.array([False, True]), 2)
    (array([ True,  True]), array([1., 3.]))
    """
    known = np.zeros(rows, np.bool_)
    values = np.zeros(rows, np.float64)
    final = info.get("final_info")
    for source, eligible in ((info, np.ones(rows, np.bool_)), (final, ended)):
        if isinstance(source, Mapping) and key in source:
            present = eligible & np.asarray(source.get(f"_{key}", np.ones(rows, np.bool_)), np.bool_)
            values[present] = np.asarray(source[key])[present].astype(np.float64)
            known |= present
    return known, values
