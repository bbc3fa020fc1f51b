"""Loading what users write: files, modules and installed packages that register environments, tasks, rules."""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
import importlib.util
import sys
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType

from plastic_rl.errors import PluginError

_LOADED: list[str] = []


def load_plugin(spec: str) -> ModuleType:
    """Import a plugin, so that what it registers is known from now on; a second time does nothing.

    Args:
        spec: Path of a `.py` file, or the dotted name of an importable module.

    Returns:
        The module.

    Raises:
        PluginError: If there is no such file or module, or importing it fails.
    """
    path: Path | None = None
    try:
        if Path(spec).suffix == ".py" or "/" in spec or "\\" in spec:
            path = Path(spec).expanduser()
    except RuntimeError:
        raise PluginError(f"no plugin file {spec!r}: the user after ~ has no home directory here") from None
    if path is not None and not path.is_file():
        raise PluginError(f"no plugin file {spec!r} (looked in {Path.cwd()}); give the path of a .py file")
    try:
        module = importlib.import_module(spec) if path is None else _load_file(path.resolve())
    except ModuleNotFoundError as missing:
        if missing.name == spec or (missing.name and spec.startswith(f"{missing.name}.")):
            hint = f" Did you mean the file {spec}.py?" if Path(f"{spec}.py").is_file() else ""
            raise PluginError(f"no plugin module {spec!r} can be imported.{hint}") from missing
        raise PluginError(f"plugin {spec!r} needs the module {missing.name!r}, which is not installed") from missing
    except Exception as broken:
        # A plugin is foreign code: what it raises while it is imported can be anything.
        raise PluginError(f"plugin {spec!r} failed while being imported: {type(broken).__name__}: {broken}") from broken
    _remember(spec if path is None else str(path.resolve()))
    return module


def loaded_plugins() -> list[str]:
    """What `load_plugins` takes to import, in another process, the plugins that this one has imported."""
    return list(_LOADED)


def load_plugins(specs: Iterable[str]) -> None:
    """Import several plugins, see `load_plugin`."""
    for spec in specs:
        load_plugin(spec)


def _remember(spec: str) -> None:
    if spec not in _LOADED:
        _LOADED.append(spec)


def _load_file(path: Path) -> ModuleType:
    # The digest keeps two files of one name apart; the module stays importable by that name within this process.
    name = f"plastic_rl_plugin_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    if name in sys.modules:
        return sys.modules[name]
    module_spec = importlib.util.spec_from_file_location(name, path)
    if module_spec is None or module_spec.loader is None:
        raise PluginError(f"{path} cannot be imported as Python")
    module = importlib.util.module_from_spec(module_spec)
    sys.modules[name] = module
    try:
        module_spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def load_entry_point_plugins() -> list[str]:
    """Import the plugins of installed packages (entry points of the group `plastic_rl.plugins`); return their names."""
    names = []
    for entry in sorted(importlib.metadata.entry_points(group="plastic_rl.plugins"), key=lambda entry: entry.name):
        try:
            entry.load()
        except Exception as broken:
            raise PluginError(
                f"the installed plugin {entry.name!r} ({entry.value}) failed while being imported: "
                f"{type(broken).__name__}: {broken}"
            ) from broken
        names.append(entry.name)
        _remember(entry.module)
    return names
