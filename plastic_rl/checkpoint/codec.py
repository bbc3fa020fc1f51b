"""Plain data to JSON and back without loss, and without ever running code.

JSON has no arrays of numbers of a given type, no tuples, no bytes and no NaN. Here each is a mapping with one key that
starts with `$`. Big integers (the state of a PCG64 generator has 128 bits) are plain JSON integers.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import re
from collections.abc import Mapping
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch

from plastic_rl.errors import CheckpointError

MOST_LEVELS = 128
"""Lists and mappings that may lie in one another in a file; more would end somewhere in Python's limit of recursion."""
_TOO_DEEP = f"lists and mappings lie in one another more than {MOST_LEVELS} deep"
_DTYPE = re.compile(r"[<>|=]?[biufc][0-9]{1,2}|[<>|=]?U[0-9]{1,6}")
_FLOATS = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


def encode(value: Any, path: str = "") -> Any:
    """Turn plain data into what JSON can hold.

    Args:
        value: None, truth values, numbers (NaN and infinity too), texts, bytes, lists, tuples, mappings with text keys,
            NumPy arrays and scalars of numbers, truth values or texts.
        path: Where it stands in larger data.

    Raises:
        TypeError: For anything else; the message names the path that leads to it.

    >>> encode((1, float("inf")))
    {'$tuple': [1, {'$float': 'inf'}]}
    """
    if value is None or isinstance(value, bool | str) or type(value) is int:
        return value
    if type(value) is float:
        return value if math.isfinite(value) else {"$float": str(value)}
    if isinstance(value, np.generic):
        return {"$scalar": _encode_array(np.asarray(value), path)}
    if isinstance(value, np.ndarray):
        return {"$array": _encode_array(value, path)}
    if isinstance(value, bytes):
        return {"$bytes": base64.b64encode(value).decode("ascii")}
    if isinstance(value, tuple):
        return {"$tuple": [encode(item, f"{path}[{index}]") for index, item in enumerate(value)]}
    if isinstance(value, list):
        return [encode(item, f"{path}[{index}]") for index, item in enumerate(value)]
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, str):
                raise TypeError(f"mappings in a checkpoint have text keys, got {key!r} at {path or 'the top'}")
        encoded = {key: encode(item, f"{path}.{key}".lstrip(".")) for key, item in value.items()}
        if any(key.startswith("$") for key in value):
            return {"$dict": [[key, item] for key, item in encoded.items()]}
        return encoded
    raise TypeError(f"a checkpoint cannot hold a {type(value).__name__} (at {path or 'the top'})")


def _encode_array(array: npt.NDArray[Any], path: str) -> dict[str, Any]:
    if not _DTYPE.fullmatch(array.dtype.str):
        raise TypeError(f"a checkpoint cannot hold an array of type {array.dtype} (at {path or 'the top'})")
    data = base64.b64encode(array.tobytes()).decode("ascii")
    return {"dtype": array.dtype.str, "shape": list(array.shape), "data": data}


def decode(value: Any) -> Any:
    """Turn what `encode` made back into equal data of equal types.

    Raises:
        CheckpointError: If it is not something that `encode` makes.
    """
    if isinstance(value, list):
        return [decode(item) for item in value]
    if not isinstance(value, dict):
        return value
    tag = next((key for key in value if key.startswith("$")), None)
    if tag is None:
        return {key: decode(item) for key, item in value.items()}
    if len(value) != 1:
        raise CheckpointError(f"damaged data: {tag!r} beside other keys")
    content = value[tag]
    try:
        return _decode_tagged(tag, content)
    except (KeyError, TypeError, ValueError, binascii.Error) as error:
        raise CheckpointError(f"damaged data under {tag!r}: {error}") from None


def _decode_tagged(tag: str, content: Any) -> Any:
    match tag:
        case "$tuple":
            return tuple(decode(item) for item in content)
        case "$dict":
            return {str(key): decode(item) for key, item in content}
        case "$float":
            return _FLOATS[content]
        case "$bytes":
            return base64.b64decode(content, validate=True)
        case "$array":
            return _decode_array(content)
        case "$scalar":
            return _decode_array(content)[()]
    raise CheckpointError(f"unknown kind of data {tag!r}: written by another version of plastic_rl?")


def _decode_array(content: Any) -> npt.NDArray[Any]:
    dtype, shape = str(content["dtype"]), content["shape"]
    if not _DTYPE.fullmatch(dtype) or any(type(size) is not int or not 0 <= size < 2**63 for size in shape):
        raise ValueError(f"type {dtype!r} of shape {shape}")
    data = base64.b64decode(content["data"], validate=True)
    kind = np.dtype(dtype)
    if len(data) != math.prod(shape) * kind.itemsize:
        raise ValueError(f"{len(data)} bytes for type {dtype} of shape {shape}")
    return np.frombuffer(data, dtype=kind).reshape(shape).copy() if data else np.empty(shape, dtype=kind)


def to_json(value: Any) -> bytes:
    """Encode `value` and write it as JSON (equal data give equal bytes).

    Raises:
        TypeError: For what `encode` refuses, and for data nested so deeply that they could not be read back.
    """
    try:
        encoded = encode(value)
    except RecursionError:
        raise TypeError(_TOO_DEEP) from None
    if _too_deep(encoded):
        raise TypeError(_TOO_DEEP)
    return (json.dumps(encoded, indent=1, allow_nan=False, ensure_ascii=False) + "\n").encode("utf-8")


def _too_deep(value: Any) -> bool:
    """Whether lists and mappings lie in one another more than `MOST_LEVELS` deep; found without recursion."""
    level: list[Any] = [[value]]
    for _ in range(MOST_LEVELS + 1):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, dict | list)
        ]
    return bool(level)


def from_json(data: bytes, name: str) -> Any:
    """Read what `to_json` wrote.

    Raises:
        CheckpointError: If it is damaged; the message begins with `name`.
    """
    try:
        encoded = json.loads(data)
        if _too_deep(encoded):
            raise CheckpointError(_TOO_DEEP)
        return decode(encoded)
    except CheckpointError as error:
        raise CheckpointError(f"{name}: {error}") from None
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{name} is not readable as JSON: {error}") from None


def torch_rng_state(generator: torch.Generator) -> npt.NDArray[np.uint8]:
    """Return the state of a torch generator as bytes in an array."""
    return cast("npt.NDArray[np.uint8]", generator.get_state().cpu().numpy().copy())


def set_torch_rng_state(generator: torch.Generator, state: Any) -> None:
    """Restore what `torch_rng_state` returned.

    Raises:
        CheckpointError: If it is not the state of such a generator.
    """
    try:
        generator.set_state(torch.from_numpy(np.asarray(state, dtype=np.uint8).copy()))
    except (RuntimeError, TypeError, ValueError) as error:
        raise CheckpointError(f"not the state of a random-number generator of this device: {error}") from None


def count_in(counters: Mapping[str, Any], name: str) -> int:
    """Read a whole number of 0 or more.

    Raises:
        CheckpointError: If it is something else.
    """
    value = counters[name]
    if type(value) is not int or value < 0:
        raise CheckpointError(f"the stored {name!r} must be a whole number of 0 or more, got {value!r}")
    return value
