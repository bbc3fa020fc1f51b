"""Which data a `data` argument means: a name, or a mapping with a name or a file and what departs from its defaults."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from plastic_rl.envs.catalog import check_keywords
from plastic_rl.errors import ConfigError, UnknownNameError
from plastic_rl.families.classification.data import (
    RECIPES,
    ClassificationRecipe,
    DataSource,
    GaussianMixtureData,
    GeneratedData,
)
from plastic_rl.families.classification.files import read_samples
from plastic_rl.families.classification.pools import BUNDLED, OPTIONAL, PLAN_KEYS, PooledData, bundled, plan_from

DATA_NAMES: tuple[str, ...] = (*RECIPES, *BUNDLED, "gaussian_mixture", "digits_few_shot", *OPTIONAL)
"""Everything that `data` may name."""

_RECIPE_KEYS = tuple(field.name for field in fields(ClassificationRecipe))
_FILE_KEYS = ("file", "labels", "label", "delimiter", "format")
_MIXTURE_KEYS = ("ways", "features", "sigma", "train", "held_out")


def data_source(data: str | Mapping[str, Any]) -> DataSource:
    """Return the source that `data` names.

    Args:
        data: One of `DATA_NAMES`; or a mapping with `name`, and whatever departs from its defaults: the fields of
            `ClassificationRecipe` for generated data, of `PoolPlan` for collections, `ways`, `features`, `sigma`,
            `train`, `held_out` for a mixture; or a mapping with `file`, the other arguments of `read_samples`, and the
            fields of `PoolPlan`.

    Raises:
        ConfigError: If a key or value is not valid.
        UnknownNameError: If no data have that name.

    >>> source = data_source({"name": "D", "class_sep": 3.0})
    >>> source.features, source.classes
    (10, 4)
    """
    data = {"name": data} if isinstance(data, str) else data
    if not isinstance(data, Mapping):
        raise ConfigError(f"data must be a name or a mapping, got {data!r}. Names: {', '.join(DATA_NAMES)}")
    if "file" in data:
        return _from_file(data)
    if not isinstance(data.get("name"), str):
        raise ConfigError(
            f"data must be a name, or a mapping with `name` or `file`, got {data!r}. Names: {', '.join(DATA_NAMES)}"
        )
    name = str(data["name"])
    rest = {key: value for key, value in data.items() if key != "name"}
    if name in RECIPES:
        _only(name, rest, _RECIPE_KEYS)
        # Tasks tell by the name whose they are, so that it says what was changed.
        return GeneratedData(_called(name, rest), replace(RECIPES[name], **rest))
    if name == "gaussian_mixture":
        _only(name, rest, _MIXTURE_KEYS)
        return GaussianMixtureData(_called(name, rest), **rest)
    if name == "digits_few_shot":
        _only(name, rest, PLAN_KEYS)
        plan = plan_from(rest, split_by="classes", ways=5, balanced=True, scale="common")
        return PooledData(_called(name, rest), bundled("digits"), plan)
    if name in (*BUNDLED, *OPTIONAL):
        _only(name, rest, PLAN_KEYS)
        return PooledData(_called(name, rest), bundled(name), plan_from(rest))
    raise UnknownNameError("data set", name, DATA_NAMES)


def _from_file(data: Mapping[str, Any]) -> DataSource:
    _only("file", data, (*_FILE_KEYS, *PLAN_KEYS))
    if not isinstance(data["file"], str):
        raise ConfigError(f"data: `file` must be a path, got {data['file']!r}")
    samples = read_samples(**{key: value for key, value in data.items() if key in _FILE_KEYS})
    # Tasks hold the file's name alone: the folder that it lies in says nothing about them.
    rest = {key: value for key, value in data.items() if key not in {"file", "labels", "format"}}
    return PooledData(_called(Path(data["file"]).name, rest), samples, plan_from(data))


def _only(name: str, given: Mapping[str, Any], valid: tuple[str, ...]) -> None:
    check_keywords(f"the data {name!r}", list(valid), given)


def _called(name: str, rest: Mapping[str, Any]) -> str:
    """Name of a source in tasks.

    >>> _called("D", {"class_sep": 3.0})
    'D(class_sep=3.0)'
    """
    return f"{name}({', '.join(f'{key}={rest[key]}' for key in sorted(rest))})" if rest else name
