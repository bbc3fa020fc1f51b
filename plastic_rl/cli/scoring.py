"""The verbs for trained agents: evaluate, export, plot, video, agents."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from plastic_rl.cli.options import (
    AGENTS,
    RUNS,
    AgentsFolder,
    Plugins,
    RunName,
    RunOrAgent,
    RunsFolder,
    key_values,
    load_plugins,
    note,
    refuse_existing,
)

if TYPE_CHECKING:
    from plastic_rl.evaluation import Evaluation
    from plastic_rl.experiment import TrainedAgent

agents_app = typer.Typer(help="Trained agents in agents/.", no_args_is_help=True, rich_markup_mode=None)


def add_to(app: typer.Typer) -> None:
    """Add the verbs of this module."""
    app.command()(evaluate)
    app.command()(export)
    app.command()(plot)
    app.command()(video)
    app.add_typer(agents_app, name="agents")


def evaluate(
    agent: RunOrAgent,
    split: Annotated[
        list[str] | None,
        typer.Option(
            help="Split of the tasks: valid, test, shift, holdout. Can be given several times.", show_default=False
        ),
    ] = None,
    tasks: Annotated[
        int | None, typer.Option(min=1, help="Tasks of each split; default 1,000 (bandits 10,000).", show_default=False)
    ] = None,
    env: Annotated[
        str | None, typer.Option(metavar="ID", help="Another environment than that of training.", show_default=False)
    ] = None,
    env_kwargs: Annotated[
        list[str] | None,
        typer.Option(
            "--env-kwargs",
            metavar="KEY=VALUE",
            help="An argument of the environment, e.g. side=11, instead of training's. Can be given several times.",
            show_default=False,
        ),
    ] = None,
    trials: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Inner episodes in a lifetime; default as in training, or 1 with another --env.",
            show_default=False,
        ),
    ] = None,
    same_task_each_trial: Annotated[
        bool | None,
        typer.Option(
            help="Whether the trials of a lifetime share its seed, and with it task, starts and noise; default as in "
            "training, or with another --env where tasks are reset seeds.",
            show_default=False,
        ),
    ] = None,
    network: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE",
            help="Carry the agent's rules over to another network, e.g. hidden_size=500. Can be given several times.",
            show_default=False,
        ),
    ] = None,
    carry: Annotated[
        bool,
        typer.Option(
            "--carry-over", help="Carry the agent's rules over to a network of the sizes that the environment needs."
        ),
    ] = False,
    plugin: Plugins = None,
    output: Annotated[
        Path | None, typer.Option(metavar="FILE.json", help="Also write the numbers here.", show_default=False)
    ] = None,
    device: Annotated[str | None, typer.Option(help="Where the network runs.", show_default=False)] = None,
    runs_folder: RunsFolder = RUNS,
    agents_folder: AgentsFolder = AGENTS,
) -> None:
    """Score an agent on tasks it never met, beside random, heuristic, oracle and the limit.

    Shows how fast the agent learns within a lifetime, and what is left of that with its plasticity frozen. Without
    options a run's evaluation.json and its pictures are made anew. A folder of several seeds is scored run by run,
    and all together (in seeds.txt, where evaluation.json is made anew).

    \b
    Examples:
      plastic-rl evaluate runs/default
      plastic-rl evaluate agents/default --split test --split shift --tasks 2000
      plastic-rl evaluate agents/grid_maze_backpropamine --env-kwargs side=13
      plastic-rl evaluate agents/rule_table_d8c --env-kwargs data=digits --carry-over
    """  # noqa: D301 - click's \b keeps the lines of a paragraph
    from plastic_rl.experiment import (
        find_agent,
        find_run,
        score_agent,
        score_run,
        seeds_table,
        sibling_runs,
        write_seeds_table,
    )

    kwargs = key_values(env_kwargs or [], "--env-kwargs")
    changes = key_values(network or [], "--network") if network or carry else None
    siblings = sibling_runs(agent, runs_folder)
    outputs = _outputs(output, [run.path.name for run in siblings])
    plugins = load_plugins(plugin)
    changed = (split, tasks, env, kwargs, trials, device, same_task_each_trial is not None, changes is not None)
    as_trained = not any(changed)
    evaluations = {}
    for place, name in enumerate([str(run.path) for run in siblings] or [agent]):
        trained = find_agent(name, runs_folder=runs_folder, agents_folder=agents_folder, plugins=plugins)
        _check_agent(trained, outputs)
        if trained.is_run and as_trained:
            evaluation = score_run(find_run(trained.folder), plugins=plugins, progress=note)
        else:
            evaluation = score_agent(
                trained,
                splits=split,
                tasks=tasks,
                env_id=env,
                env_kwargs=kwargs,
                trials=trials,
                same_task_each_trial=same_task_each_trial,
                network=changes,
                device=device,
                progress=note,
            )
        _show(evaluation, trained, outputs[place : place + 1], own=trained.is_run and as_trained)
        evaluations[trained.folder.name] = evaluation
    if siblings:
        typer.echo(write_seeds_table(siblings) if as_trained else seeds_table(evaluations))


def _outputs(output: Path | None, seeds: Sequence[str]) -> list[Path]:
    """The files to write, one for each sibling run, after none of them was found to exist."""
    if output is None:
        return []
    files = [output.with_stem(f"{output.stem}-{seed}") for seed in seeds] or [output]
    for file in files:
        refuse_existing(file, file.with_suffix(".png"))
    return files


def _check_agent(trained: TrainedAgent, outputs: Sequence[Path]) -> None:
    """Refuse to write a run's own file; warn of a damaged checkpoint."""
    from plastic_rl.errors import RunError
    from plastic_rl.experiment.agents import newest_damage

    own = (trained.folder / "evaluation.json").resolve()
    for output in outputs:
        if output.resolve() == own:
            raise RunError(f"{output} is the run's own. It is written without options; give --output another name.")
    damage = newest_damage(trained)
    if damage is not None:
        note(f"warning: the newest checkpoint is damaged: {damage}")


def _show(evaluation: Evaluation, trained: TrainedAgent, outputs: Sequence[Path], *, own: bool) -> None:
    """Print an evaluation and write it to `outputs`; say what was written."""
    from plastic_rl.evaluation import plot_adaptation
    from plastic_rl.experiment.agents import checkpoint_line

    typer.echo(checkpoint_line(trained))
    typer.echo(evaluation.table())
    if own:
        typer.echo(f"written: {trained.folder / 'evaluation.json'}, adaptation.png, curves.png", err=True)
    for output in outputs:
        output.parent.mkdir(parents=True, exist_ok=True)
        evaluation.save(output)
        plot_adaptation(evaluation, output.with_suffix(".png"))
        typer.echo(f"written: {output}, {output.with_suffix('.png')}", err=True)


def export(
    run: RunName,
    target: Annotated[Path, typer.Argument(metavar="FOLDER", help="The folder to make, e.g. agents/NAME.")],
    plugin: Plugins = None,
    runs_folder: RunsFolder = RUNS,
) -> None:
    """Turn a run into an agent folder: config, weights, scores, pictures and a card.

    \b
    Example:
      plastic-rl export runs/default agents/mine
    """  # noqa: D301 - click's \b keeps the lines of a paragraph
    from plastic_rl.experiment import export_agent, find_run

    plugins = load_plugins(plugin)
    made = export_agent(find_run(run, runs_folder), target, plugins=plugins)
    typer.echo(f"{made.folder}: try it with  plastic-rl evaluate {made.folder}")


def plot(
    runs: Annotated[list[str], typer.Argument(metavar="RUN...", help="Runs, or folders of several seeds.")],
    output: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="The picture: .png, .svg or .pdf. Default: curves.png in the run, or here for several runs.",
            show_default=False,
        ),
    ] = None,
    column: Annotated[str, typer.Option(help="Column of metrics.csv.")] = "rollout/score",
    runs_folder: RunsFolder = RUNS,
) -> None:
    """Draw the learning curves of runs in one picture; several seeds are a mean with its interval.

    \b
    Example:
      plastic-rl plot runs/backpropamine runs/lstm --output comparison.png
    """  # noqa: D301 - click's \b keeps the lines of a paragraph
    from plastic_rl.errors import RunError
    from plastic_rl.experiment import draw_curves, find_runs

    if output is not None and output.suffix not in {".png", ".svg", ".pdf"}:
        raise RunError(f"a picture ends in .png, .svg or .pdf; got {output}")
    if output is not None:
        refuse_existing(output)
    found = [run for spec in runs for run in find_runs(spec, runs_folder)]
    if output is None:
        # A run's curves.png is its score; other columns have a picture of their own.
        name = "curves.png" if column == "rollout/score" else f"curves-{column.replace('/', '-')}.png"
        folder = found[0].path if len(found) == 1 else found[0].path.parent
        output = (folder if len(runs) == 1 else Path()) / name
        if len(runs) > 1:
            refuse_existing(output)
    output.parent.mkdir(parents=True, exist_ok=True)
    typer.echo(f"written: {draw_curves(found, output, column=column)}")


def video(
    agent: RunOrAgent,
    output: Annotated[
        Path | None,
        typer.Option(metavar="FILE.gif", help="Default: lifetime.gif in the run, or here.", show_default=False),
    ] = None,
    lifetimes: Annotated[int, typer.Option(min=1, help="How many lifetimes, one after the other.")] = 1,
    split: Annotated[str, typer.Option(help="Split of the tasks.")] = "test",
    fps: Annotated[float, typer.Option(min=0.1, max=50, help="Frames a second.")] = 10.0,
    max_steps: Annotated[int, typer.Option(min=1, help="Most steps to show of each lifetime.")] = 500,
    plugin: Plugins = None,
    runs_folder: RunsFolder = RUNS,
    agents_folder: AgentsFolder = AGENTS,
) -> None:
    """Watch a trained agent live: an animated GIF of whole lifetimes.

    \b
    Example:
      plastic-rl video runs/default --lifetimes 3 --output lifetimes.gif
    """  # noqa: D301 - click's \b keeps the lines of a paragraph
    from plastic_rl.cli.filming import film
    from plastic_rl.experiment import find_agent

    if output is not None:
        refuse_existing(output)
    plugins = load_plugins(plugin)
    trained = find_agent(agent, runs_folder=runs_folder, agents_folder=agents_folder, plugins=plugins)
    if output is None:
        output = (trained.folder if trained.is_run else Path()) / "lifetime.gif"
    frames = film(trained, output, lifetimes=lifetimes, split=split, fps=fps, max_steps=max_steps)
    typer.echo(f"written: {output} ({frames} frames)")


@agents_app.command("list")
def list_agents(agents_folder: AgentsFolder = AGENTS, runs_folder: RunsFolder = RUNS) -> None:
    """List trained agents with their environment and score.

    \b
    Example:
      plastic-rl agents list
    """  # noqa: D301 - click's \b keeps the lines of a paragraph
    from plastic_rl.config import read_mapping
    from plastic_rl.evaluation import Evaluation
    from plastic_rl.experiment import agent_names

    names = agent_names(agents_folder)
    if not names:
        typer.echo(f"no agents in {agents_folder}. Make one with: plastic-rl export RUN {agents_folder}/NAME")
        return
    width = max(map(len, names))
    for name in names:
        folder = agents_folder / name
        # Not validated: an agent of a plugin is listed without its plugin.
        stored = read_mapping(folder / "config.yaml").get("environment")
        environment = str(stored.get("id", "?")) if isinstance(stored, dict) else "?"
        scores = ""
        if (folder / "evaluation.json").exists():
            splits = Evaluation.load(folder / "evaluation.json").splits
            scores = ", ".join(
                f"{split} {score.raw_score:.4g}"
                + ("" if score.normalised_score is None else f" (normalised {score.normalised_score:.3f})")
                for split, score in splits.items()
            )
        typer.echo(f"{name:<{width}}  {environment:<32}  {scores}")
