"""The verbs that train: train, resume, compare, study."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from plastic_rl.cli.options import (
    RUNS,
    Plugins,
    RunName,
    RunsFolder,
    comma_separated,
    load_plugins,
    note,
    terminal_width,
)


def train(
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="Config file of the experiment (YAML).")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="KEY.PATH=VALUE",
            help="Changes to the config, e.g. network.hidden_size=200 algorithm.learning_rate=5e-3.",
        ),
    ] = None,
    plugin: Plugins = None,
    name: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Name of the run; by default that of the config file."),
    ] = None,
    seeds: Annotated[
        str | None,
        typer.Option(
            metavar="SEEDS",
            help="Several seeds, e.g. 0,1,2: sibling runs NAME/seed-0, NAME/seed-1 and so on, and one curve.",
        ),
    ] = None,
    runs_folder: RunsFolder = RUNS,
) -> None:
    """Train an agent, then evaluate it on held-out tasks.

    Everything is kept in runs/NAME: the resolved config, metrics.csv, TensorBoard files, checkpoints, evaluation.json
    and curves.png. Ctrl-C saves a checkpoint; `plastic-rl resume runs/NAME` goes on from it to the same result, byte
    for byte. `plastic-rl config` lists every key.

    \b
    Examples:
      plastic-rl train configs/default.yaml
      plastic-rl train configs/default.yaml network.hidden_size=48 --seeds 0,1,2
      plastic-rl train my_config.yaml --plugin envs/my_environment.py
    """  # noqa: D301 - click's \b keeps the lines of a paragraph
    from plastic_rl.experiment import start

    start(
        config,
        overrides or [],
        name=name,
        seeds=comma_separated(seeds, "seeds") if seeds is not None else [],
        plugins=load_plugins(plugin),
        runs_folder=runs_folder,
        say=typer.echo,
        note=note,
    )


def resume(run: RunName, plugin: Plugins = None, runs_folder: RunsFolder = RUNS) -> None:
    """Go on with a run that was stopped or killed, then evaluate it.

    Parameters, optimizer, plastic state, environments, counters and random streams go on from the newest checkpoint, so
    the result is that of a run that was never stopped. A folder of several seeds goes on with those not finished.

    \b
    Example:
      plastic-rl resume runs/default
    """  # noqa: D301 - click's \b keeps the lines of a paragraph
    from plastic_rl.experiment import resume as resume_run

    resume_run(run, plugins=load_plugins(plugin), runs_folder=runs_folder, say=typer.echo, note=note)


def compare(
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="Config file of the comparison (YAML).")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="KEY.PATH=VALUE", help="Changes to the config, e.g. common.network.hidden_size=100 seeds=[0,1,2]."
        ),
    ] = None,
    plugin: Plugins = None,
    name: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Name of the comparison; by default that of the config file."),
    ] = None,
    runs_folder: RunsFolder = RUNS,
) -> None:
    """Train an agent in several variants, and lay them side by side.

    The file holds what the variants have in common (`common`: environment, network, evaluation), what each has of its
    own (`variants`: a name, and its algorithm) and the seeds. Each variant and seed is a run of its own in
    runs/NAME/VARIANT/seed-S. Learning curves, samples, seconds and scores on held-out tasks come together in
    runs/NAME/comparison.txt, .json and .png. After Ctrl-C the same command goes on where it was stopped.

    \b
    Example:
      plastic-rl compare configs/gradient_versus_evolution.yaml
    """  # noqa: D301 - click's \b keeps the lines of a paragraph
    from plastic_rl.experiment import compare as compare_variants

    compare_variants(
        config,
        overrides or [],
        name=name,
        plugins=load_plugins(plugin),
        runs_folder=runs_folder,
        say=typer.echo,
        note=note,
        width=terminal_width(),
    )


def study(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of the study, with its study.yaml.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="KEY.PATH=VALUE", help="Changes to the study, e.g. seeds=[0,1,2] questions.NAME.tasks=100."
        ),
    ] = None,
    plugin: Plugins = None,
    name: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Name of the study's runs; by default that of the folder."),
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(metavar="QUESTION", help="Run this question alone. Can be given several times."),
    ] = None,
    processes: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Trainings at a time; by default one for each processor."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List the runs, and train nothing.")] = False,
    runs_folder: RunsFolder = RUNS,
) -> None:
    """Answer questions about mechanisms: does one help, and where?

    Each question in study.yaml has two sides, an experiment with the mechanism and one without, and says beforehand
    what is measured, on which tasks, and which side is claimed to be better. Both are tuned alike on valid, trained
    with several seeds, and compared on the same tasks, the frozen twins beside them; p-values are corrected for the
    number of questions. Every training is a run of its own in runs/NAME/QUESTION/SIDE/seed-S, and what came of it
    stands in runs/NAME/study.txt, .json and .png. After Ctrl-C or a crash the same command goes on where it was
    stopped. `plastic-rl config study` lists the keys and the measures.

    \b
    Examples:
      plastic-rl study configs/studies/example
      plastic-rl study configs/studies/example --dry-run
    """  # noqa: D301 - click's \b keeps the lines of a paragraph
    from plastic_rl.experiment import study as run_study

    run_study(
        folder,
        overrides or [],
        name=name,
        only=only or [],
        processes=processes,
        dry_run=dry_run,
        plugins=load_plugins(plugin),
        runs_folder=runs_folder,
        say=typer.echo,
        note=note,
        width=terminal_width(),
    )
