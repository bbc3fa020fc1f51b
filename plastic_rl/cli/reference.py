"""The reference of all config keys, drawn from the config models themselves."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Collection, Iterator, Mapping, Sequence
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from plastic_rl.config import Schedule
from plastic_rl.config.loading import models_in
from plastic_rl.config.schedule import EndsWithin
from plastic_rl.envs.wrappers import WRAPPERS, wrapper_model
from plastic_rl.errors import ConfigError, did_you_mean
from plastic_rl.evaluation.measures import MEASURES, measure_model
from plastic_rl.experiment import ComparisonConfig, StudyConfig
from plastic_rl.experiment.config import ExperimentConfig
from plastic_rl.plasticity import PARTS, RULES, Part, RuleConfig, SynapseConfig
from plastic_rl.plasticity.parts import options_model

WIDTH = 110
FILES: Mapping[str, type[BaseModel]] = {"compare": ComparisonConfig, "study": StudyConfig}
"""The sections that are no keys of an experiment: the keys of the files that other verbs read."""


def reference(section: str | None = None, width: int | None = None) -> str:
    """Return the keys of a section, or of a whole config and of the files of comparisons and studies.

    Args:
        section: A top-level key (`algorithm`, `network`, ...), `compare`, `study`, or None.
        width: Columns of the terminal; None: `WIDTH`.

    Raises:
        ConfigError: If there is no such section.
    """
    names = [*ExperimentConfig.model_fields, *FILES]
    if section is not None and section not in names:
        hint = did_you_mean(section, names)
        raise ConfigError(f"a config has no section {section!r}.{hint} Valid: {', '.join(names)}.")
    lines = [line for name in ([section] if section else names) for line in _lines_of(name)]
    room = min(width or WIDTH, WIDTH)
    return "\n".join(textwrap.fill(line, room, subsequent_indent="    ", break_on_hyphens=False) for line in lines)


def _lines_of(name: str) -> Iterator[str]:
    if name in FILES:
        yield f"{name}, the file of `plastic-rl {name}`: {_summary(FILES[name])}"
        for key, own in FILES[name].model_fields.items():
            yield from _nested(key, own)
        if name == "study":
            yield from _measures()
        return
    field = ExperimentConfig.model_fields[name]
    yield from field_lines(name, field, kind="mapping" if name == "algorithm" else None)
    if name == "network":
        yield from _networks()
        return
    if name == "algorithm":
        yield from _algorithms()
        return
    for model in models_in(field.annotation):
        for inner, inner_field in model.model_fields.items():
            yield from _nested(f"{name}.{inner}", inner_field)
    if name == "environment":
        for wrapper in WRAPPERS:
            yield f"environment.wrappers, name {wrapper}: {_summary(wrapper_model(WRAPPERS[wrapper]))}"
            yield from wrapper_lines(wrapper, "environment.wrappers.")


def wrapper_lines(name: str, prefix: str = "") -> Iterator[str]:
    """The keys of a wrapper behind `prefix`, each with its range and default, and its help below."""
    for key, field in wrapper_model(WRAPPERS[name]).model_fields.items():
        yield from field_lines(f"{prefix}{key}", field)


def _measures() -> Iterator[str]:
    for name, measure in MEASURES.items():
        model = measure_model(measure)
        yield f"questions.KEY.measure, name {name}: {_summary(model)}"
        for key, field in model.model_fields.items():
            yield from field_lines(f"questions.KEY.measure.{key}", field)


def _networks() -> Iterator[str]:
    from plastic_rl.networks import NETWORKS
    from plastic_rl.networks.spontaneous import PROCESSES

    for kind, network in NETWORKS.items():
        model: type[BaseModel] = network.config_model
        yield f"network, kind {kind}: {_summary(model)}"
        of_rule = SynapseConfig.model_fields if issubclass(model, RuleConfig) else {}
        for inner, field in model.model_fields.items():
            yield from _nested(f"network.{inner}", field, "as the rule has it" if inner in of_rule else None)
            if names := _registered(model, inner):
                yield f"    One of: {', '.join(sorted(names))}."
    for kind in PARTS:
        if any(kind in network.config_model.model_fields for network in NETWORKS.values()):
            yield from _parts(f"network.{kind}", PARTS[kind])
    yield from _parts("network.development.process", PROCESSES)


def _parts(key: str, registry: Mapping[str, Any]) -> Iterator[str]:
    """The options of the parts that a key may name, those of plugins included."""
    for name, part in registry.items():
        if isinstance(part, type) and issubclass(part, Part):
            own = {option: field for option, field in options_model(part).model_fields.items() if option != "learned"}
            if own:
                yield f"{key} {{name: {name}, ...}}, with options:"
            for option, field in own.items():
                yield from field_lines(f"{key}.{option}", field)


def _algorithms() -> Iterator[str]:
    from plastic_rl.algorithms import ALGORITHMS, algorithm_model
    from plastic_rl.algorithms.regularisers import REGULARISERS

    for name in ALGORITHMS:
        model = algorithm_model(name)
        yield f"algorithm, name {name}: {_summary(model)}"
        for inner, field in model.model_fields.items():
            if inner != "name":
                yield from _nested(f"algorithm.{inner}", field)
    yield from _parts("algorithm.regulariser", REGULARISERS)


def _registered(model: type[BaseModel], key: str) -> Collection[str]:
    """The names, those of plugins included, that a key of a network may name."""
    from plastic_rl.networks.rule_table.config import RULE_TABLE_PRESETS, RuleTableConfig

    if issubclass(model, RuleTableConfig):
        return RULE_TABLE_PRESETS if key == "preset" else ()
    return {"rule": RULES, **PARTS}.get(key, ()) if issubclass(model, RuleConfig) else ()


def _nested(path: str, field: FieldInfo, default: str | None = None) -> Iterator[str]:
    yield from field_lines(path, field, default)
    for model in models_in(field.annotation):
        if model is Schedule:
            continue
        # A mapping of such models has a key of the user's own in between.
        parts = (field.annotation, *get_args(field.annotation))
        inside = f"{path}.KEY" if any(get_origin(part) in {dict, Mapping} for part in parts) else path
        for inner, inner_field in model.model_fields.items():
            yield from _nested(f"{inside}.{inner_field.alias or inner}", inner_field, default)


def field_lines(path: str, field: FieldInfo, default: str | None = None, kind: str | None = None) -> Iterator[str]:
    """Yield what a key is: its type, range and default, then its meaning, indented.

    Args:
        path: The key, with those that lead to it.
        field: Its declaration.
        default: Instead of the declared one.
        kind: Instead of the name of its type.
    """
    stated = default or ("" if field.is_required() else _default(field))
    if isinstance(field.default, BaseModel) and not isinstance(field.default, Schedule):
        stated = ""
    default = f"  (default {stated})" if stated else ""
    yield f"{path}: {kind or _type_name(field.annotation)}{_range(field)}{default}"
    if field.description:
        yield "    " + " ".join(field.description.split())


def _default(field: FieldInfo) -> str:
    value = field.get_default(call_default_factory=True, validated_data={})
    if isinstance(value, BaseModel):
        value = value.model_dump(mode="json")
    if isinstance(value, tuple):
        value = list(value)
    return json.dumps(value) if value is None or isinstance(value, bool) else str(value)


def _type_name(annotation: Any) -> str:
    origin, inside = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _type_name(inside[0])
    if origin is Literal:
        return f"one of {', '.join(map(str, inside))}"
    if origin in {Union, UnionType}:
        return " or ".join(map(_type_name, inside))
    if origin in {dict, Mapping}:
        return f"mapping of {_type_name(inside[1])}" if inside[1] is not Any else "mapping"
    if origin in {list, tuple, Sequence}:
        named = get_origin(inside[0]) is Literal
        return f"list of {', '.join(map(str, get_args(inside[0])))}" if named else f"list of {_type_name(inside[0])}s"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel) and annotation is not Schedule:
        return "mapping"
    return _PLAIN.get(annotation, getattr(annotation, "__name__", str(annotation)))


_PLAIN: dict[Any, str] = {
    int: "whole number",
    float: "number",
    bool: "true or false",
    str: "text",
    dict: "mapping",
    NoneType: "null",
    Any: "value",
    Schedule: "number or schedule",
}


def _range(field: FieldInfo) -> str:
    """The valid values of a number."""
    ends = {end: getattr(each, end) for each in field.metadata for end in ("ge", "gt", "le") if hasattr(each, end)}
    said = [str(each) for each in field.metadata if isinstance(each, EndsWithin)]
    if {"ge", "le"} <= ends.keys():
        said.append(f"from {_plain(ends['ge'])} to {_plain(ends['le'])}")
    elif {"gt", "le"} <= ends.keys():
        said.append(f"above {_plain(ends['gt'])}, up to {_plain(ends['le'])}")
    elif "ge" in ends:
        said.append(f"{_plain(ends['ge'])} or more")
    elif "gt" in ends:
        said.append(f"above {_plain(ends['gt'])}")
    return "".join(f", {one}" for one in said)


def _plain(number: float) -> str:
    return f"{int(number) if number == int(number) else number:,}"


def _summary(model: type[BaseModel]) -> str:
    return " ".join((model.__doc__ or "").strip().split("\n\n")[0].split())
