"""The native core: plastic networks in C++, for the common rules; and which core computes them here.

`PLASTIC_RL_CORE` chooses: `torch` (the reference, any rule, any device), `native` (the fastest level of instructions
that the processor has), or a level, as `native:avx2`. All levels compute the same bits.
"""

from __future__ import annotations

import importlib
import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType

from plastic_rl.errors import ConfigError, unknown_name_message

VARIABLE = "PLASTIC_RL_CORE"
LEVELS = ("baseline", "avx2", "avx512")
"""Levels of instructions, the fastest last; on processors other than x86-64 there is `baseline` alone."""


@dataclass(frozen=True)
class Core:
    """What computes the rules that the native core knows.

    Attributes:
        level: Of instructions; None: torch.
        reason: Why this one.
        asked_for: Whether `PLASTIC_RL_CORE` asked for it.
    """

    level: str | None
    reason: str
    asked_for: bool = False

    @property
    def name(self) -> str:
        """As `PLASTIC_RL_CORE` and manifests have it: `torch` or `native`."""
        return "torch" if self.level is None else "native"

    def __str__(self) -> str:
        """As the first line of a run has it.

        >>> str(Core("avx2", "the fastest level of this processor"))
        'native, avx2 (the fastest level of this processor)'
        """
        return f"{self.name}{'' if self.level is None else f', {self.level}'} ({self.reason})"


def extension() -> ModuleType | None:
    """The compiled extension, or None where the package was installed without one."""
    try:
        # By name: to the import graph, a module that it cannot read is its package importing itself.
        return importlib.import_module("plastic_rl._native._core")
    except ImportError:
        return None


def levels() -> list[str]:
    """The levels that are compiled and that this processor runs, the fastest last; none without the extension."""
    compiled = extension()
    return [] if compiled is None else list(compiled.levels())


def compiled_levels() -> list[str]:
    """The levels that the extension holds, whether or not this processor runs them."""
    if extension() is None:
        return []
    # As CMakeLists.txt has it.
    return list(LEVELS) if platform.machine().lower() in {"x86_64", "amd64"} else [LEVELS[0]]


def chosen_core(environment: Mapping[str, str] | None = None) -> Core:
    """The core that `PLASTIC_RL_CORE` in `environment` (by default the process's own) asks for, else the fastest.

    Raises:
        ConfigError: If it asks for a core that is unknown, or not here.
    """
    asked = (os.environ if environment is None else environment).get(VARIABLE, "")
    here = levels()
    if not asked:
        if here:
            return Core(here[-1], "the fastest level of this processor")
        return Core(None, "the package was installed without its compiled core")
    if asked == "torch":
        return Core(None, f"{VARIABLE}=torch", asked_for=True)
    known = ["torch", "native", *(f"native:{level}" for level in LEVELS)]
    if asked not in known:
        raise ConfigError(f"{VARIABLE}: {unknown_name_message('core', asked, known)}")
    if not here:
        raise ConfigError(
            f"{VARIABLE}={asked}, but the package was installed without its compiled core; install it where there is "
            "a C++ compiler, or use torch"
        )
    level = here[-1] if asked == "native" else asked.removeprefix("native:")
    if level not in here:
        raise ConfigError(f"{VARIABLE}={asked}, but this processor runs {', '.join(here)} alone")
    return Core(level, f"{VARIABLE}={asked}", asked_for=True)
