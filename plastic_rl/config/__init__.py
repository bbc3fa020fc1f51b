"""Configuration: the base of every config model, schedules, and safe loading of YAML with overrides.

Data flows from a YAML file through `key.path=value` overrides into one plain mapping, which is validated once;
every problem is reported at once, with its dotted path and the nearest valid name. Nothing from a config is ever
evaluated as code.
"""

from __future__ import annotations

from plastic_rl.config.base import ConfigModel
from plastic_rl.config.loading import (
    apply_overrides,
    check,
    describe,
    differences,
    merge,
    read_mapping,
    validate,
)
from plastic_rl.config.schedule import EndsWithin, Schedule, Scheduled
from plastic_rl.config.yaml_core import dump, parse

__all__ = [
    "ConfigModel",
    "EndsWithin",
    "Schedule",
    "Scheduled",
    "apply_overrides",
    "check",
    "describe",
    "differences",
    "dump",
    "merge",
    "parse",
    "read_mapping",
    "validate",
]
