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
    Wrappers,
    check_picture,
    key_values,
    load_plugins,
    note,
    refuse_existing,
    terminal_width,
    wrappers_of,
)
from plastic_rl.errors import RunError

if TYPE_CHECKING:
    from plastic_rl.evaluation import Evaluation
    from plastic_rl.experiment import TrainedAgent

agents_app = typer.Typer(help="Trained agents in agents/.", no_args_is_help=True, rich_markup_mode=None)


def evaluate(
    agent: RunOrAgent,
    split: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SPLIT", help="Split of the tasks: valid, test, shift, holdout. Can be given several times."
        ),
    ] = None,
    tasks: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Tasks of each split; by default `evaluation.tasks` of its config."),
    ] = None,
    env: Annotated[str | None, typer.Option(metavar="ID", help="Another environment than that of training.")] = None,
    env_kwargs: Annotated[
        list[str] | None,
        typer.Option(
            "--env-kwargs",
            metavar="KEY=VALUE",
            help="An argument of the environment, e.g. side=11, instead of training's. Can be given several times.",
        ),
    ] = None,
    trials: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="N", help="Inner episodes in a lifetime; default as in training, or 1 with another --env."
        ),
    ] = None,
    same_task_each_trial: Annotated[
        bool | None,
        typer.Option(
            help="Whether the trials of a lifetime share its seed, and with it task, starts and noise; default as in "
            "training, or with another --env where tasks are reset seeds."
        ),
    ] = None,
    wrapper: Wrappers = None,
    no_wrappers: Annotated[bool, typer.Option("--no-wrappers", help="Without the wrappers of training.")] = False,
    network: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE",
            help="Carry the agent's rules over to another network, e.g. hidden_size=500. Can be given several times.",
        ),
    ] = None,
    carry: Annotated[
        bool,
        typer.Option(
            "--carry-over", help="Carry the agent's rules over to a network of the sizes that the environment needs."
        ),
    ] = False,
    stages: Annotated[
        bool,
        typer.Option(
            "--stages",
            help="Score what the agent could do on every stage of its training after each of them, in place of all "
            "else; with --split and --tasks.",
        ),
    ] = False,
    plugin: Plugins = None,
    output: Annotated[
        Path | None, typer.Option(metavar="FILE.json", help="Also write the numbers here, and beside them the picture.")
    ] = None,
    device: Annotated[str | None, typer.Option(metavar="DEVICE", help="Where the network runs.")] = None,
    runs_folder: RunsFolder = RUNS,
    agents_folder: AgentsFolder = AGENTS,
) -> None:
    """Score an agent on tasks it never met, beside reference agents.

    These are random, heuristics, the limit, and an oracle that is told the task. Shows how fast the agent learns within
    a lifetime, and what is left of that with its plasticity frozen. Without options a run's evaluation.json and its
    pictures are made anew; of an exported agent nothing is written. A folder of several seeds is scored run by run, and
    all together (in seeds.txt, where evaluation.json is made anew).

    \b
    Examples:
      plastic-rl evaluate runs/default
      plastic-rl evaluate agents/default --split test --split shift --tasks 2000
      plastic-rl evaluate agents/grid_maze_backpropamine --env-kwargs side=13
      plastic-rl evaluate runs/mine --env-kwargs data=digits --carry-over
      plastic-rl evaluate agents/default --wrapper '{name: lesion, share: 0.25}'
      plastic-rl evaluate runs/stages_reversal_bandit --stages
    """  # noqa: D301 - click's \b keeps the lines of a paragraph
    from plastic_rl.experiment import RunFolder, find_agents, score_agent, score_run, seeds_table, write_seeds_table

    kwargs = key_values(env_kwargs or [], "--env-kwargs")
    changes = key_values(network or [], "--network") if network or carry else None
    plugins = load_plugins(plugin)
    wrappers = wrappers_of(wrapper or []) if wrapper or no_wrappers else None
    agents = find_agents(agent, runs_folder=runs_folder, agents_folder=agents_folder, plugins=plugins)
    outputs = _outputs(output, [trained.folder.name for trained in agents])
    if stages:
        others = (env, env_kwargs, trials, device, same_task_each_trial, wrappers, changes)
        if any(other is not None for other in others) or len(split or []) > 1:
            raise RunError("--stages goes with one --split, --tasks and --output alone: the stages are the config's.")
        _evaluate_stages(agents, split[0] if split else None, tasks, outputs)
        return
    given = [each is not None for each in (same_task_each_trial, wrappers, changes)]
    as_trained = not any((split, tasks, env, kwargs, trials, device, *given))
    evaluations = {}
    for place, trained in enumerate(agents):
        _check_agent(trained, outputs)
        if trained.is_run and as_trained:
            evaluation = score_run(RunFolder(trained.folder), plugins=plugins, progress=note)
        else:
            evaluation = score_agent(
                trained,
                splits=split,
                tasks=tasks,
                env_id=env,
                env_kwargs=kwargs,
                trials=trials,
                same_task_each_trial=same_task_each_trial,
                wrappers=wrappers,
                network=changes,
                device=device,
                progress=note,
            )
        _show(evaluation, trained, outputs[place : place + 1], own=trained.is_run and as_trained)
        evaluations[trained.folder.name] = evaluation
    if len(agents) > 1:
        runs = [RunFolder(trained.folder) for trained in agents]
        typer.echo(write_seeds_table(runs) if as_trained else seeds_table(evaluations))


def _evaluate_stages(
    agents: Sequence[TrainedAgent], split: str | None, tasks: int | None, outputs: Sequence[Path]
) -> None:
    """Score runs on their stages, and write what came of it: to `outputs`, or as the config says into the runs."""
    from plastic_rl.evaluation.stage_scores import pooled
    from plastic_rl.experiment import RunFolder
    from plastic_rl.experiment.stages import pool_stages, score_stages, write_stages

    exported = [trained for trained in agents if not trained.is_run]
    if exported:
        raise RunError(
            f"{exported[0].folder} is an exported agent, without the checkpoints at which its stages ended. What they "
            "could do stands in its stages.json and README.md; --stages takes a run."
        )
    runs = [RunFolder(trained.folder) for trained in agents]
    as_trained = split is None and tasks is None
    found = []
    for place, run in enumerate(runs):
        scores = score_stages(run, split=split, tasks=tasks, progress=note)
        found.append(scores)
        typer.echo(f"{run.path}:\n{scores.table()}" if len(runs) > 1 else scores.table())
        for file in [*([run.stages] if as_trained else []), *outputs[place : place + 1]]:
            file.parent.mkdir(parents=True, exist_ok=True)
            write_stages(scores, file)
            typer.echo(f"written: {file}, {file.with_suffix('.png').name}", err=True)
    if len(runs) > 1:
        together = pool_stages(runs) if as_trained else pooled(found)
        assert together is not None, "each run was scored"
        typer.echo(together.table())


def _outputs(output: Path | None, agents: Sequence[str]) -> list[Path]:
    """The files to write, one for each of several agents, after none of them was found to exist."""
    if output is None:
        return []
    files = [output.with_stem(f"{output.stem}-{name}") for name in agents] if len(agents) > 1 else [output]
    for file in files:
        refuse_existing(file, file.with_suffix(".png"))
    return files


def _check_agent(trained: TrainedAgent, outputs: Sequence[Path]) -> None:
    """Refuse to write a run's own file; warn of a damaged checkpoint."""
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
    """Turn a run into an agent folder: weights, scores, a card.

    Also the config and the pictures. The folder is complete in itself: it can be evaluated, filmed and copied.

    \b
    Example:
      plastic-rl export runs/default agents/mine
    """  # noqa: D301 - click's \b keeps the lines of a paragraph
    from plastic_rl.experiment import export_agent, find_run
    from plastic_rl.experiment.agents import plugin_options

    plugins = load_plugins(plugin)
    made = export_agent(find_run(run, runs_folder), target, plugins=plugins)
    options = plugin_options(made.config.plugins)
    typer.echo(f"{made.folder}: try it with  plastic-rl evaluate {made.folder}{options}")


def plot(
    runs: Annotated[list[str], typer.Argument(metavar="RUN", help="Runs, or folders of several seeds.")],
    output: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="The picture: .png, .svg or .pdf. Default: curves.png in the run, or here for several runs.",
        ),
    ] = None,
    column: Annotated[str, typer.Option(metavar="COLUMN", help="Column of metrics.csv.")] = "rollout/score",
    plugin: Plugins = None,
    runs_folder: RunsFolder = RUNS,
) -> None:
    """Draw the learning curves of runs in one picture.

    Several seeds of one experiment are a mean with its interval.

    \b
    Example:
      plastic-rl plot runs/backpropamine runs/lstm --output comparison.png
    """  # noqa: D301 - click's \b keeps the lines of a paragraph
    from plastic_rl.experiment import draw_curves, find_runs, needs_plugins

    if output is not None:
        check_picture(output)
        refuse_existing(output)
    plugins = load_plugins(plugin)
    found = [run for spec in runs for run in find_runs(spec, runs_folder)]
    for run in found:
        needs_plugins(run.plugins(), plugins, str(run.path))
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
        typer.Option(metavar="FILE.gif", help="Default: lifetime.gif in the run; of an exported agent, here."),
    ] = None,
    lifetimes: Annotated[int, typer.Option(min=1, metavar="N", help="How many lifetimes, one after the other.")] = 1,
    split: Annotated[str, typer.Option(metavar="SPLIT", help="Split of the tasks.")] = "test",
    fps: Annotated[float, typer.Option(min=0.1, max=50, metavar="N", help="Frames a second.")] = 10.0,
    max_steps: Annotated[int, typer.Option(min=1, metavar="N", help="Most steps to show of each lifetime.")] = 500,
    network: Annotated[
        bool, typer.Option("--network", help="Also show what the units put out (spikes), and the weights.")
    ] = False,
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
    if output is None and trained.is_run:
        output = trained.folder / "lifetime.gif"
    elif output is None:
        output = Path("lifetime.gif")
        refuse_existing(output)
    frames = film(trained, output, lifetimes=lifetimes, split=split, fps=fps, max_steps=max_steps, network=network)
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
    rows = []
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
        rows.append((name, environment, scores))
    longest = max(map(len, names))
    lines = [f"{name:<{longest}}  {environment:<32}  {scores}" for name, environment, scores in rows]
    width = terminal_width()
    if width is not None and max(map(len, lines)) > width:
        lines = [f"{name:<{longest}}  {environment}\n    {scores}" for name, environment, scores in rows]
    typer.echo("\n".join(lines))
