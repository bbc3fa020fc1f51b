"""Arguments and options that several verbs share."""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from plastic_rl.errors import RunError

Plugins = Annotated[
    list[str] | None,
    typer.Option(
        "--plugin",
        metavar="FILE.py|MODULE",
        help="Import this first: it may register environments, task distributions, rules, networks. "
        "Can be given several times.",
    ),
]
Wrappers = Annotated[
    list[str] | None,
    typer.Option(
        "--wrapper",
        metavar="MAPPING",
        help="A change of the task, as in a config, e.g. '{name: lesion, share: 0.25}' (see envs list). Can be given "
        "several times, the one next to the environment first; those of training are then left out.",
    ),
]
RunsFolder = Annotated[Path, typer.Option("--runs-folder", metavar="FOLDER", help="Where runs live.")]
AgentsFolder = Annotated[Path, typer.Option("--agents-folder", metavar="FOLDER", help="Where exported agents live.")]
RunOrAgent = Annotated[
    str,
    typer.Argument(
        metavar="RUN|AGENT",
        help="A run or an exported agent: its path, or its name where not both a run and an agent have it.",
    ),
]
RunName = Annotated[str, typer.Argument(metavar="RUN", help="A run: its path, or its name.")]

RUNS = Path("runs")
AGENTS = Path("agents")


def load_plugins(plugins: Sequence[str] | None) -> list[str]:
    """Import the plugins of installed packages and those given, and return the latter.

    Raises:
        PluginError: If one cannot be imported.
    """
    from plastic_rl.envs import load_entry_point_plugins, load_plugin

    load_entry_point_plugins()
    for plugin in plugins or []:
        load_plugin(plugin)
    return list(plugins or [])


def note(line: str) -> None:
    """Print what is going on to standard error, where it does not mix with results."""
    typer.echo(line, err=True)


def terminal_width() -> int | None:
    """Return the columns of the terminal that stdout is; None where it is none."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def folded(text: str) -> str:
    """Break the lines that are too long for the terminal; they go on below, indented."""
    width = terminal_width()
    if width is None:
        return text
    lines = (textwrap.wrap(line, width, subsequent_indent="    ", break_on_hyphens=False) for line in text.split("\n"))
    return "\n".join("\n".join(parts) for parts in lines)


def refuse_existing(*files: Path, option: str = "--output") -> None:
    """Refuse to write onto files that the user named by `option` and that are there already.

    Raises:
        RunError: Naming the first.
    """
    for file in files:
        if file.exists():
            raise RunError(f"{file} exists already, and nothing is overwritten. Give {option} another name.")


def check_picture(file: Path) -> None:
    """Refuse a file whose name is not that of a picture.

    Raises:
        RunError: Naming it.
    """
    if file.suffix not in {".png", ".svg", ".pdf"}:
        raise RunError(f"a picture ends in .png, .svg or .pdf; got {file}")


def key_values(texts: Sequence[str], option: str, example: str = "side=11") -> dict[str, Any]:
    """Read `KEY=VALUE` words, the values as YAML; later ones win.

    Raises:
        typer.BadParameter: If one is not of that form.
        ConfigError: If a value is no YAML.

    >>> key_values(["side=11", "wall_penalty=1e-1"], "--env-kwargs")
    {'side': 11, 'wall_penalty': 0.1}
    """
    from plastic_rl.config import apply_overrides

    for text in texts:
        names = text.partition("=")[0].strip().split(".")
        if "=" not in text or not all(name.isidentifier() for name in names):
            raise typer.BadParameter(f"{option} takes KEY=VALUE, e.g. {example}; got {text!r}")
    return apply_overrides({}, texts)


def wrappers_of(texts: Sequence[str]) -> list[dict[str, Any]]:
    """Read wrappers, each a YAML mapping of its name and arguments, with every default written out.

    Raises:
        ConfigError: If one is no mapping, or no wrapper.

    >>> wrappers_of(["{name: observation_gain, factor: 8, from_trial: 10}"])
    [{'name': 'observation_gain', 'factor': 8.0, 'from_trial': 10, 'from_step': 0}]
    """
    from plastic_rl.config.loading import parse_override
    from plastic_rl.envs.wrappers import checked_wrappers

    return checked_wrappers([parse_override(f"wrapper={text}")[1] for text in texts])


def comma_separated(text: str, what: str) -> list[int]:
    """Read whole numbers separated by commas.

    Raises:
        typer.BadParameter: If one is not a whole number of 0 or more.

    >>> comma_separated("0,1,2", "seeds")
    [0, 1, 2]
    """
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() for part in parts):
        raise typer.BadParameter(f"{what} are whole numbers separated by commas, e.g. 0,1,2; got {text!r}")
    return [int(part) for part in parts]
