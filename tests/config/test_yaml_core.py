"""YAML by the core schema of YAML 1.2: numbers are numbers, everything comes back as it was written."""

from __future__ import annotations

import math

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from plastic_rl.config import dump, parse

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc", "Cn", "Co")), max_size=20)
    | st.sampled_from(["5e-3", "1e6", "no", "yes", "on", "~", "null", "0x1f", "017", "1:30", "1_000", "2020-01-01", ""])
)
documents = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("abc_.5e-", max_size=6), inner, max_size=4),
    max_leaves=12,
)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5e-3", 0.005),
        ("1e6", 1e6),
        ("-1E+2", -100.0),
        (".5", 0.5),
        ("3.", 3.0),
        ("7", 7),
        ("017", 17),
        ("0o17", 15),
        ("0x1F", 31),
        ("no", "no"),
        ("on", "on"),
        ("1:30", "1:30"),
        ("1_000", "1_000"),
        ("2020-01-01", "2020-01-01"),
        ("true", True),
        ("~", None),
        ("-.inf", -math.inf),
        ("[1, 2e-1]", [1, 0.2]),
    ],
)
def test_scalars_follow_the_core_schema(text: str, value: object) -> None:
    parsed = parse(text)
    assert parsed == value
    assert type(parsed) is type(value)


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ("{a: ", "}"), ("- ", ""), ("? ", ""), ("a: [", "]")])
def test_nesting_of_any_depth_is_read_or_refused(opening: str, closing: str) -> None:
    assert parse("[" * 32 + "]" * 32) is not None
    for depth in (33, 100, 200, 496, 100_000):
        with pytest.raises(yaml.YAMLError):
            parse(opening * depth + "1" + closing * depth)


@settings(deadline=None)
@given(documents)
def test_what_is_dumped_is_read_back_equal(document: object) -> None:
    def typed(value: object) -> object:
        if isinstance(value, dict):
            return {key: typed(item) for key, item in value.items()}
        return [typed(item) for item in value] if isinstance(value, list) else (type(value), repr(value))

    assert typed(parse(dump(document))) == typed(document)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("a: 1\na: 2", "twice"),
        ("a: &x 1\nb: *x", "aliases"),
        ("a: !!python/object/apply:os.system [echo]", "could not determine a constructor"),
        ("{[1]: 2}", "a key must be a name"),
        ("a: [1", "expected ',' or ']'"),
        ("a: 1\n---\nb: 2", "expected a single document"),
    ],
)
def test_ambiguous_and_active_yaml_is_refused(text: str, complaint: str) -> None:
    with pytest.raises(yaml.YAMLError, match=complaint.replace("[", r"\[").replace("]", r"\]")):
        parse(text)
