"""Config files: every mistake is named, all of them at once, with the nearest valid name."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from plastic_rl.config import ConfigModel, Schedule, apply_overrides, dump, read_mapping, validate
from plastic_rl.config.loading import parse_override
from plastic_rl.errors import ConfigError


class Gradient(ConfigModel):
    name: str = "gradient"
    learning_rate: Schedule = Schedule(start=1e-3, end=1e-3)
    n_envs: int = Field(default=32, ge=1)


class Experiment(ConfigModel):
    title: str
    mode: Literal["fused", "reference"] = "fused"
    share: float | None = None
    splits: tuple[str, ...] = ("test",)
    algorithm: Gradient = Gradient()


GOOD: dict[str, Any] = {"title": "bandit", "algorithm": {"name": "gradient", "n_envs": 4, "learning_rate": 5e-3}}


def message_of(mapping: dict[str, Any]) -> str:
    with pytest.raises(ConfigError) as caught:
        validate(Experiment, mapping, "example.yaml")
    return str(caught.value)


def test_a_good_mapping_becomes_a_model() -> None:
    experiment = validate(Experiment, GOOD)
    assert (experiment.algorithm.n_envs, experiment.algorithm.learning_rate(0.3)) == (4, 0.005)
    assert experiment.model_dump(mode="json")["algorithm"]["learning_rate"] == 0.005


def test_all_problems_come_at_once_with_dotted_paths_and_nearest_names() -> None:
    message = message_of(
        {
            "titel": "bandit",
            "mode": "fussed",
            "share": "half",
            "algorithm": {"name": "gradient", "n_env": 3, "n_envs": 0, "learning_rate": {"start": 1, "stop": 0}},
        }
    )
    assert message.splitlines() == [
        "8 problems in example.yaml:",
        "  title: missing, and it has no default.",
        "  mode: must be 'fused' or 'reference', got 'fussed'. Did you mean 'fused'?",
        "  share: must be a number, got 'half'.",
        "  algorithm.learning_rate.end: missing, and it has no default.",
        "  algorithm.learning_rate.stop: unknown key. Valid: kind, start, end.",
        "  algorithm.n_envs: must be greater than or equal to 1, got 0.",
        "  algorithm.n_env: unknown key. Did you mean 'n_envs'? Valid: name, learning_rate, n_envs.",
        "  titel: unknown key. Did you mean 'title'? Valid: title, mode, share, splits, algorithm.",
    ]


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"algorithm": {"name": "gradient", "n_envs": True}}, "algorithm.n_envs: must be a number, got True."),
        ({"algorithm": {"name": "gradient", "n_envs": "8"}}, "algorithm.n_envs: must be a number, got '8'."),
        ({"algorithm": 3}, "algorithm: "),
        ({"share": float("nan")}, "share: must be a finite number, got nan."),
        ({"title": 3}, "title: must be a valid string, got 3."),
    ],
)
def test_each_mistake_is_named(change: dict[str, Any], line: str) -> None:
    message = message_of({**GOOD, **change})
    assert message.startswith("1 problem in example.yaml:\n  " + line)


def test_overrides_are_merged_before_validation() -> None:
    merged = apply_overrides(GOOD, ["algorithm.n_envs=8", "share=5e-1", "splits=[valid, test]", "title="])
    assert merged["algorithm"] == {"name": "gradient", "n_envs": 8, "learning_rate": 5e-3}
    assert (merged["share"], merged["splits"], merged["title"]) == (0.5, ["valid", "test"], None)
    assert GOOD["algorithm"]["n_envs"] == 4


def test_an_override_through_a_number_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"leads through algorithm.n_envs, which is 4 and not a mapping"):
        apply_overrides(GOOD, ["algorithm.n_envs.start=8"])


@pytest.mark.parametrize("text", ["n_envs", "=3", "a..b=3", ".a=3"])
def test_malformed_overrides_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="an override is written"):
        parse_override(text)


def test_an_override_of_too_many_keys_is_refused() -> None:
    assert apply_overrides({}, [f"{'.'.join('a' * 32)}=1"])
    with pytest.raises(ConfigError, match="has 33 keys, and configs 32 levels"):
        apply_overrides({}, [f"{'.'.join('a' * 33)}=1"])


keys = st.lists(st.text("abcdefgh_", min_size=1, max_size=6), min_size=1, max_size=4)
values = st.integers() | st.floats(allow_nan=False) | st.booleans() | st.none() | st.sampled_from(["gru", "5e-3", "no"])


@given(keys, values)
def test_any_path_and_value_can_be_overridden(path: list[str], value: object) -> None:
    text = dump(value).removesuffix("\n").removesuffix("\n...")
    merged: Any = apply_overrides({}, [f"{'.'.join(path)}={text}"])
    for key in path:
        merged = merged[key]
    assert merged == value
    assert type(merged) is type(value)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "is empty"),
        (b"# only a comment\n", "is empty"),
        (bytes(range(256)), "is not a text file"),
        (b"a\x00b: 1", "is not valid YAML"),
        (b"- 1\n- 2\n", "must hold a mapping"),
        (b"just words\n", "must hold a mapping"),
        (b"1: 2\n", "keys must be names"),
        (b"a: [1\n", "is not valid YAML"),
        (b"a: 0x" + b"f" * 5000, "is not a usable config: a whole number has 1024 bits at the most, got 20,000"),
        (
            b"a: " + b"[" * 496 + b"]" * 496,
            "is not valid YAML: lists and mappings lie in one another more than 32 deep",
        ),
    ],
)
def test_unusable_files_are_named(tmp_path: Path, content: bytes, complaint: str) -> None:
    file = tmp_path / "broken.yaml"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=complaint) as caught:
        read_mapping(file)
    assert str(file) in str(caught.value)


def test_a_missing_file_suggests_its_neighbour(tmp_path: Path) -> None:
    (tmp_path / "default.yaml").write_text("a: 1\n")
    with pytest.raises(ConfigError, match=r"no such config file: .*defualt.yaml. Did you mean '.*default.yaml'\?"):
        read_mapping(tmp_path / "defualt.yaml")
    with pytest.raises(ConfigError, match="There is no folder"):
        read_mapping(tmp_path / "nowhere" / "default.yaml")
    with pytest.raises(ConfigError, match="is a folder"):
        read_mapping(tmp_path)


@given(st.binary(max_size=200))
def test_no_bytes_crash_the_reader(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    file = tmp_path_factory.getbasetemp() / "any.yaml"
    file.write_bytes(content)
    try:
        assert isinstance(read_mapping(file), dict)
    except ConfigError as error:
        assert str(file) in str(error)
