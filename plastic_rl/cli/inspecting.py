"""The verbs that look: envs, config, inspect, doctor."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from plastic_rl.cli.options import (
    AGENTS,
    RUNS,
    AgentsFolder,
    Plugins,
    RunOrAgent,
    RunsFolder,
    Wrappers,
    check_picture,
    folded,
    load_plugins,
    refuse_existing,
    terminal_width,
    wrappers_of,
)
from plastic_rl.errors import RunError

envs_app = typer.Typer(
    help="Environments: list them, show one, check one.", no_args_is_help=True, rich_markup_mode=None
)
EnvironmentId = Annotated[
    str, typer.Argument(metavar="ID", help="Registered Gymnasium id, e.g. plastic_rl/GridMaze-v0.")
]


@envs_app.command("list")
def list_envs(
    plugin: Plugins = None,
    everything: Annotated[bool, typer.Option("--all", help="Also all other registered Gymnasium ids.")] = False,
) -> None:
    """List the environments that have a task distribution.

    \b
    Examples:
      plastic-rl envs list
      plastic-rl envs list --plugin envs/my_environment.py
    """  # noqa: D301 - click's \b keeps the lines of a paragraph
    from plastic_rl.cli.environments import listing

    load_plugins(plugin)
    typer.echo(folded(listing(everything=everything)))


@envs_app.command("show")
def show_env(env_id: EnvironmentId, plugin: Plugins = None) -> None:
    """Show an environment's documentation, arguments, spaces and splits.

    Then its reference agents, and which of them is the limit. Or a wrapper's documentation and arguments.

    \b
    Examples:
      plastic-rl envs show plastic_rl/GridMaze-v0
      plastic-rl envs show lesion
    """  # noqa: D301 - click's \b keeps the lines of a paragraph
    from plastic_rl.cli.environments import description

    load_plugins(plugin)
    typer.echo(folded(description(env_id)))


@envs_app.command("check")
def check_env(env_id: EnvironmentId, wrapper: Wrappers = None, plugin: Plugins = None) -> None:
    """Check what training and evaluation ask of an environment.

    Exit code 0 if it has all that is needed, 2 if not.

    \b
    Examples:
      plastic-rl envs check my_lab/MyBandit-v0 --plugin envs/my_bandit.py
      plastic-rl envs check CartPole-v1 --wrapper '{name: lesion, share: 0.5}'
    """  # noqa: D301 - click's \b keeps the lines of a paragraph
    from plastic_rl.cli.environments import checks

    load_plugins(plugin)
    failed = False
    for name, required, problem, seen in checks(env_id, wrappers_of(wrapper or [])):
        verdict = "ok" if problem is None else "FAILED" if required else "note"
        typer.echo(folded(": ".join(filter(None, (f"{verdict:<6}  {name}", problem, seen)))))
        failed = failed or verdict == "FAILED"
    if failed:
        raise typer.Exit(2)


def config(
    section: Annotated[
        str | None,
        typer.Argument(metavar="SECTION", help="A key, e.g. algorithm or network, or else compare or study."),
    ] = None,
    plugin: Plugins = None,
) -> None:
    """List every key of a config with its type, default and meaning.

    \b
    Examples:
      plastic-rl config
      plastic-rl config algorithm
      plastic-rl config network --plugin my_networks.py
      plastic-rl config compare
      plastic-rl config study
    """  # noqa: D301 - click's \b keeps the lines of a paragraph
    from plastic_rl.cli.reference import reference

    load_plugins(plugin)
    typer.echo(reference(section, terminal_width()))


def inspect(
    agent: RunOrAgent,
    tasks: Annotated[
        int, typer.Option(min=1, metavar="N", help="Lifetimes in which the use of each entry is counted.")
    ] = 20,
    split: Annotated[str, typer.Option(metavar="SPLIT", help="Split of their tasks: train or valid.")] = "valid",
    output: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="The picture: .png, .svg or .pdf; beside it a .csv of all entries. Default: tables.png in the run.",
        ),
    ] = None,
    plugin: Plugins = None,
    runs_folder: RunsFolder = RUNS,
    agents_folder: AgentsFolder = AGENTS,
) -> None:
    """Show which weights an agent's rule tables strengthen.

    Rows are firing histories, one digit a round from the first to the last, columns conditions. Of a table too wide for
    80 columns the entries of most effect are listed; the file tables.csv beside the picture has all. How often an
    entry is used is counted in lifetimes on tasks of the split `valid`. A run's picture goes into its folder; an
    exported agent's folder is left as it is, and there is a picture where --output asks for one.

    \b
    Example:
      plastic-rl inspect runs/rule_table_bandit
    """  # noqa: D301 - click's \b keeps the lines of a paragraph
    from plastic_rl.evaluation.rule_table_view import plot_tables, tables_text, view_tables, write_tables
    from plastic_rl.experiment import find_agent

    if output is not None:
        check_picture(output)
    if split not in {"train", "valid"}:
        raise RunError(f"inspect looks at train or valid, got {split}: held-out splits open in `evaluate` alone")
    if output is not None:
        refuse_existing(output, output.with_suffix(".csv"))
    plugins = load_plugins(plugin)
    trained = find_agent(agent, runs_folder=runs_folder, agents_folder=agents_folder, plugins=plugins)
    environment = trained.config.environment
    chosen = environment.distribution().tasks(split, 0, tasks)
    views = view_tables(
        trained.load(),
        environment.id,
        chosen,
        **environment.options,
        seed=trained.config.evaluation.seed,
    )
    typer.echo(tables_text(views))
    if output is None and not trained.is_run:
        typer.echo("\nfor the picture and a file of all entries, give --output FILE")
        return
    picture = plot_tables(views, output or trained.folder / "tables.png")
    typer.echo(f"\nwritten: {picture}, {write_tables(views, picture.with_suffix('.csv'))}")


def doctor(plugin: Plugins = None) -> None:
    """Report core, versions and devices, and train one update.

    Exit code 0 if all is well, 2 if not.

    \b
    Example:
      plastic-rl doctor
    """  # noqa: D301 - click's \b keeps the lines of a paragraph
    from plastic_rl.cli.health import report

    load_plugins(plugin)
    lines, healthy = report()
    typer.echo("\n".join(lines))
    if not healthy:
        raise typer.Exit(2)
