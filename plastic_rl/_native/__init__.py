"""The compiled core, where the package was built with a C++ compiler; everything works without it, more slowly."""

from __future__ import annotations

import importlib
from types import ModuleType

core: ModuleType | None
try:
    core = importlib.import_module("plastic_rl._native._core")
except ImportError:
    core = None


def levels() -> list[str]:
    """Return the instruction-set levels that this machine can run, best last; without a compiled core, none."""
    return [] if core is None else list(core.levels())
