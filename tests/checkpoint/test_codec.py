"""The JSON codec: everything comes back equal, of equal type, to the bit."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from plastic_rl.checkpoint import decode, encode, set_torch_rng_state, to_json, torch_rng_state
from plastic_rl.checkpoint.codec import MOST_LEVELS, from_json
from plastic_rl.errors import CheckpointError

kinds = (
    npst.boolean_dtypes()
    | npst.integer_dtypes(endianness="?")
    | npst.floating_dtypes(endianness="?")
    | npst.unicode_string_dtypes(max_len=5)
)
text = st.text(st.characters(exclude_categories=("Cs",)), max_size=8)
leaves = (
    st.none()
    | st.booleans()
    | st.integers(-(2**140), 2**140)
    | st.floats()
    | text
    | st.binary(max_size=16)
    | npst.arrays(kinds, npst.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3))
    | st.floats(width=32).map(np.float32)
    | st.integers(0, 2**63).map(np.uint64)
    | st.booleans().map(np.bool_)
)
documents = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(text | st.sampled_from(["$tuple", "$array", "$"]), inner, max_size=3)
    ),
    max_leaves=10,
)


def same(first: Any, second: Any) -> bool:
    if type(first) is not type(second):
        return False
    if isinstance(first, dict):
        return list(first) == list(second) and all(same(first[key], second[key]) for key in first)
    if isinstance(first, list | tuple):
        return len(first) == len(second) and all(map(same, first, second))
    if isinstance(first, np.ndarray | np.generic):
        return first.dtype == second.dtype and first.shape == second.shape and first.tobytes() == second.tobytes()
    if isinstance(first, float):
        return np.float64(first).tobytes() == np.float64(second).tobytes() or (math.isnan(first) and math.isnan(second))
    return bool(first == second)


@settings(deadline=None)
@given(documents)
def test_round_trip(document: Any) -> None:
    data = to_json(document)
    restored = from_json(data, "document")
    assert same(restored, document)
    assert to_json(restored) == data


def test_arrays_come_back_writable() -> None:
    restored = decode(encode(np.arange(3)))
    restored[0] = 7
    assert restored.tolist() == [7, 1, 2]


@pytest.mark.parametrize(
    ("value", "path"),
    [({"a": [1, object()]}, r"a\[1\]"), ({1: 2}, "text keys"), (np.array([object()]), "array of type object")],
)
def test_what_cannot_be_kept_is_refused_when_writing(value: Any, path: str) -> None:
    with pytest.raises(TypeError, match=path):
        encode(value)


@pytest.mark.parametrize(
    "damaged",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[" * 100_000,
        b"9" * 10_000,
        b'{"$object": "os.system"}',
        b'{"$float": "three"}',
        b'{"$bytes": "***"}',
        b'{"$tuple": 3}',
        b'{"$tuple": [], "other": 1}',
        b'{"$array": {"dtype": "O", "shape": [1], "data": ""}}',
        b'{"$array": {"dtype": "<f8", "shape": [2], "data": "AAAAAAAAAAA="}}',
        b'{"$array": {"dtype": "<f8", "shape": [-1], "data": "AAAAAAAAAAA="}}',
        b'{"$array": {"dtype": "<f8"}}',
        b'{"$array": 1}',
        b'{"$array": {"dtype": "<f8", "shape": [Infinity], "data": ""}}',
        b'{"$array": {"dtype": "<f8", "shape": [0, 1e300], "data": ""}}',
        b'{"$array": {"dtype": "<f8", "shape": [0, 1180591620717411303424], "data": ""}}',
        b'{"$array": {"dtype": "<f8\\n", "shape": [0], "data": ""}}',
    ],
)
def test_damaged_json_is_refused_when_reading(damaged: bytes) -> None:
    with pytest.raises(CheckpointError, match=r"^rng\.json"):
        from_json(damaged, "rng.json")


@pytest.mark.parametrize("opening", ["[", '{"a": ', '{"$tuple": [', '{"$dict": [["$a", ', '{"$array": '])
def test_nesting_of_any_depth_is_read_or_refused(opening: str) -> None:
    closing = "".join({"[": "]", "{": "}"}.get(character, "") for character in reversed(opening))
    levels = len(closing)
    for depth in (1, 100, 200, 300, 496, 1000, 100_000):
        data = (opening * depth + "1" + closing * depth).encode()
        if depth * levels <= MOST_LEVELS and opening != '{"$array": ':
            assert from_json(to_json(from_json(data, "x")), "x") == from_json(data, "x")
        else:
            with pytest.raises(CheckpointError, match=r"^algorithm\.json"):
                from_json(data, "algorithm.json")


@pytest.mark.parametrize("depth", [127, 128, 129, 496, 5000])
def test_what_could_not_be_read_back_is_not_written(depth: int) -> None:
    value: Any = []
    for _ in range(depth - 1):
        value = [value]
    if depth > MOST_LEVELS:
        with pytest.raises(TypeError, match="more than 128 deep"):
            to_json(value)
    else:
        assert from_json(to_json(value), "x") == value


@given(st.binary(max_size=60))
def test_no_bytes_crash_the_reader(data: bytes) -> None:
    try:
        from_json(data, "env.json")
    except CheckpointError as error:
        assert str(error).startswith("env.json")


@pytest.mark.parametrize("kind", [np.random.PCG64, np.random.Philox, np.random.MT19937, np.random.SFC64])
def test_numpy_generators_go_on_where_they_were(kind: Any) -> None:
    generator = np.random.Generator(kind(3))
    generator.random(5)
    saved = to_json(generator.bit_generator.state)
    expected = generator.random(8)
    other = np.random.Generator(kind(4))
    other.bit_generator.state = from_json(saved, "rng.json")
    np.testing.assert_array_equal(other.random(8), expected)


def test_torch_generators_go_on_where_they_were() -> None:
    generator = torch.Generator().manual_seed(3)
    torch.rand(5, generator=generator)
    saved = to_json(torch_rng_state(generator))
    expected = torch.rand(8, generator=generator)
    other = torch.Generator().manual_seed(4)
    set_torch_rng_state(other, from_json(saved, "rng.json"))
    assert torch.equal(torch.rand(8, generator=other), expected)


def test_states_of_another_generator_are_refused() -> None:
    with pytest.raises(CheckpointError, match="not the state of a random-number generator"):
        set_torch_rng_state(torch.Generator(), np.zeros(7, dtype=np.uint8))
