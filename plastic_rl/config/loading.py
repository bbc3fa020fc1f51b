"""From a YAML file and overrides to one validated model: read, merge, validate once, report everything at once."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError

from plastic_rl.config import yaml_core
from plastic_rl.errors import ConfigError, did_you_mean, nearest

Model = TypeVar("Model", bound=BaseModel)


def read_mapping(path: str | Path) -> dict[str, Any]:
    """Read a config file as a plain mapping.

    Raises:
        ConfigError: If the file is missing, a folder, unreadable, empty, binary, no YAML, or not a mapping.
    """
    path = Path(path)
    if path.is_dir():
        raise ConfigError(f"{path} is a folder, not a config file. Give a YAML file, e.g. {path}/NAME.yaml.")
    try:
        text = path.read_bytes().decode("utf-8")
    except FileNotFoundError:
        raise ConfigError(f"no such config file: {path}.{_neighbour(path)}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is not a text file: a config is a YAML file in UTF-8.") from None
    except OSError as error:
        raise ConfigError(f"cannot read the config file {path}: {error.strerror}.") from None
    try:
        mapping = yaml_core.parse(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not valid YAML: {_one_line(error)}.") from None
    except (RecursionError, ValueError) as error:
        raise ConfigError(f"{path} is not a usable config: {_one_line(error)}.") from None
    if mapping is None:
        raise ConfigError(f"{path} is empty: a config holds at least an environment and a network.")
    if not isinstance(mapping, dict):
        raise ConfigError(f"{path} must hold a mapping (`key: value` lines), got {_kind_of(mapping)}.")
    for key in mapping:
        if not isinstance(key, str):
            raise ConfigError(f"{path}: keys must be names, got {key!r}. Put quotes around it if it is one.")
    return mapping


def _neighbour(path: Path) -> str:
    folder = path.parent
    if not folder.is_dir():
        return f" There is no folder {folder} either."
    names = sorted(entry.name for entry in folder.iterdir() if entry.suffix in {".yaml", ".yml"})
    match = nearest(path.name, names)
    if match:
        return f" Did you mean {str(folder / match)!r}?"
    return f" In {folder}: {', '.join(names)}." if names else ""


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".")


def _kind_of(value: Any) -> str:
    names = {list: "a list", str: "a text", bool: "a truth value", int: "a number", float: "a number"}
    return names.get(type(value), repr(type(value).__name__))


def parse_override(text: str) -> tuple[list[str], Any]:
    """Split `key.path=value` into its path and its value, which is read as YAML.

    Raises:
        ConfigError: If there is no `=`, a part of the path is empty, or the value is no YAML.

    >>> parse_override("algorithm.learning_rate=5e-3")
    (['algorithm', 'learning_rate'], 0.005)
    """
    path, separator, value = text.partition("=")
    keys = path.strip().split(".")
    if not separator or not all(keys):
        raise ConfigError(f"an override is written key.path=value, e.g. network.hidden_size=200; got {text!r}.")
    if len(keys) > yaml_core.MOST_LEVELS:
        raise ConfigError(
            f"the override {text[:40]}... has {len(keys):,} keys, and configs {yaml_core.MOST_LEVELS} levels."
        )
    try:
        return keys, yaml_core.parse(value)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"the value of the override {text[:80]!r} is not valid YAML: {_one_line(error)}.") from None


def apply_overrides(mapping: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Return a deep copy of `mapping` with each `key.path=value` set; later ones win.

    Raises:
        ConfigError: If an override is malformed or leads through something that is not a mapping.

    >>> apply_overrides({"network": {"kind": "gru"}}, ["network.hidden_size=48"])
    {'network': {'kind': 'gru', 'hidden_size': 48}}
    """
    merged = copy.deepcopy(dict(mapping))
    for text in overrides:
        keys, value = parse_override(text)
        inner = merged
        for depth, key in enumerate(keys[:-1], start=1):
            if inner.get(key) is None:
                inner[key] = {}
            if not isinstance(inner[key], dict):
                reached = ".".join(keys[:depth])
                raise ConfigError(
                    f"the override {text!r} leads through {reached}, which is {inner[key]!r} and not a mapping. "
                    f"Set it whole: {reached}={{{'.'.join(keys[depth:])}: ...}}."
                )
            inner = inner[key]
        inner[keys[-1]] = value
    return merged


def merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return `base` with `changes` on top, key by key wherever both hold a mapping; neither is modified.

    A mapping that has another `name` takes the place of the whole: options are those of a part.

    >>> merge({"cap": 5, "step": {"hidden": 0.1, "output": 0.1}}, {"step": {"hidden": 0.01}})
    {'cap': 5, 'step': {'hidden': 0.01, 'output': 0.1}}
    >>> merge({"rule": {"name": "rewire", "every": 5}}, {"rule": {"name": "sparse"}})
    {'rule': {'name': 'sparse'}}
    """
    merged = {**base, **changes}
    for key, value in changes.items():
        below = base.get(key)
        if isinstance(value, Mapping) and isinstance(below, Mapping) and not _names_another(value, below):
            merged[key] = merge(below, value)
    return merged


def _names_another(change: Mapping[str, Any], below: Mapping[str, Any]) -> bool:
    """Whether a mapping names another part, whose options are its own."""
    return "name" in change and "name" in below and change["name"] != below["name"]


def differences(one: Any, other: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yield where two configs differ: dotted path, and what stands there in each (None: nothing).

    >>> list(differences({"cap": 5, "step": {"hidden": 0.1}}, {"cap": 5, "step": {"hidden": 0.2}}))
    [('step.hidden', 0.1, 0.2)]
    """
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        for name in dict.fromkeys([*one, *other]):
            yield from differences(one.get(name), other.get(name), f"{path}.{name}".lstrip("."))
    elif one != other:
        yield path, one, other


def validate(model: type[Model], mapping: Mapping[str, Any], source: str = "config") -> Model:
    """Validate `mapping` as `model`; the message says that it came from `source`.

    Raises:
        ConfigError: With every problem, its dotted path, and the nearest valid name of an unknown key.
    """
    validated, problems = check(model, mapping)
    if validated is None:
        raise ConfigError(describe(problems, source))
    return validated


def describe(problems: Sequence[str], source: str) -> str:
    """Compose the message of a ConfigError out of `problems`, one line each."""
    count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
    return "\n".join([f"{count} in {source}:", *(f"  {problem}" for problem in problems)])


def check(model: type[Model], mapping: Mapping[str, Any], prefix: Sequence[str] = ()) -> tuple[Model | None, list[str]]:
    """Validate without raising: return the model and no problems, or None and every problem as one line.

    `prefix`: keys that lead to this mapping within a larger one.
    """
    try:
        return model.model_validate(mapping), []
    except ValidationError as error:
        return None, [line for details in error.errors(include_url=False) for line in _problems(model, details, prefix)]


def _problems(model: type[BaseModel], details: Mapping[str, Any], prefix: Sequence[str]) -> list[str]:
    """One problem; or those of a mapping that was checked by a model of its own, each with its own keys."""
    if details["type"] == "problems":
        where = ".".join([*prefix, *map(str, details["loc"])])
        return [f"{where}.{problem}" for problem in details["ctx"]["problems"]]
    return [_problem(model, details, prefix)]


def _problem(model: type[BaseModel], details: Mapping[str, Any], prefix: Sequence[str]) -> str:
    keys = [str(part) for part in details["loc"]]
    where = ".".join([*prefix, *keys])
    match details["type"]:
        case "extra_forbidden":
            names = [field.alias or name for name, field in _holder(model, keys).model_fields.items()]
            return f"{where}: unknown key.{did_you_mean(keys[-1], names)} Valid: {', '.join(names)}."
        case "missing":
            return f"{where}: missing, and it has no default."
        case "literal_error":
            expected = str(details["ctx"]["expected"])
            valid = expected.replace(" or ", ", ").replace("'", "").split(", ")
            return f"{where}: must be {expected}, got {details['input']!r}.{did_you_mean(details['input'], valid)}"
        case "value_error" | "assertion_error":
            message = str(details["msg"]).removeprefix("Value error, ")
            return f"{where}: {message}" if where else message
        case _:
            message = str(details["msg"]).replace("Input should be", "must be").replace("dictionary", "mapping")
            return f"{where}: {message}, got {details['input']!r:.80}."


def _holder(model: type[BaseModel], keys: Sequence[str]) -> type[BaseModel]:
    """Return the model in which the last of `keys` stands."""
    for key in keys[:-1]:
        if key in model.model_fields:
            model = next(models_in(model.model_fields[key].annotation), model)
    return model


def models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """Yield the pydantic models inside a type annotation: `A`, `A | None`, `list[A]`, `Annotated[A, ...]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif get_origin(annotation) is Annotated:
        yield from models_in(get_args(annotation)[0])
    elif get_origin(annotation) in {Union, UnionType, list, tuple, dict, Mapping, Sequence}:
        for argument in get_args(annotation):
            yield from models_in(argument)
