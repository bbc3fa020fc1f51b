"""Scoring trained agents on held-out tasks, and the files and pictures that come of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.vec_env import VecEnv

from plastic_rl.algorithms.vec_env import EnvironmentDescription, adapt
from plastic_rl.checkpoint import write_atomically
from plastic_rl.config import merge
from plastic_rl.envs.wrappers import checked_wrappers
from plastic_rl.errors import RunError
from plastic_rl.evaluation import (
    Evaluation,
    crossed_interval,
    evaluate,
    plot_adaptation,
    plot_learning_curves,
    student_t_interval,
)
from plastic_rl.evaluation.plots import read_metric
from plastic_rl.evaluation.report import SplitEvaluation
from plastic_rl.experiment.agents import TrainedAgent, baseline_of, find_agent
from plastic_rl.experiment.config import EnvironmentChanges, EnvironmentConfig
from plastic_rl.experiment.folder import RunFolder
from plastic_rl.policies import PlasticPolicy

SEEDS_TABLE = "seeds.txt"
"""The scores of sibling runs, beside them."""


def score_agent(
    trained: TrainedAgent,
    *,
    splits: Sequence[str] | None = None,
    tasks: int | None = None,
    env_id: str | None = None,
    env_kwargs: Mapping[str, Any] | None = None,
    trials: int | None = None,
    same_task_each_trial: bool | None = None,
    wrappers: Sequence[Mapping[str, Any]] | None = None,
    network: Mapping[str, Any] | None = None,
    device: str | None = None,
    progress: Callable[[str], None] | None = None,
) -> Evaluation:
    """Evaluate a trained agent, by default as its config says.

    Args:
        trained: The agent.
        splits: Splits to open.
        tasks: Tasks of each.
        env_id: Another environment than the one it was trained in.
        env_kwargs: Arguments of the environment, in place of those of training of the same names. Those of training
            hold where the id is the same; another environment has its own defaults.
        trials: Inner episodes in a lifetime; by default as in training where the id is the same, else 1.
        same_task_each_trial: Whether these share the lifetime's seed; None: as in training where the id is the same.
        wrappers: Changes of the task, see `plastic_rl.envs.wrappers`; None: as in training where the id is the same,
            else none.
        network: Changes to the network's config, e.g. `{"hidden_size": 500}`: the agent's rules then act in a network
            made for this environment, see `carry_over`. An empty mapping carries them over unchanged.
        device: Where to run the network.
        progress: Called with a line before each part.

    Raises:
        UnknownNameError: If there is no such environment or split.
        SpaceError: If the environment's spaces don't fit the agent.
        RunError: If its rules cannot be carried over.
    """
    config = trained.config
    # As in training: with another number of threads the last bits, and with them sampled actions, may differ.
    torch.set_num_threads(config.torch_threads)
    same = env_id in {None, config.environment.id}
    where = EnvironmentChanges(
        id=env_id,
        kwargs=dict(env_kwargs or {}),
        trials=trials,
        same_task_each_trial=same_task_each_trial,
        wrappers=None if wrappers is None else tuple(checked_wrappers(wrappers)),
    ).of(config.environment)

    def acting(agent: TrainedAgent) -> PlasticPolicy:
        return agent.load(device) if network is None else carry_over(agent, where, network, device)

    baselines: list[TrainedAgent] = []
    for spec in config.evaluation.baselines if same else ():
        try:
            baselines.append(baseline_of(spec, config))
        except RunError as error:
            if progress is not None:
                progress(f"warning: {spec} is left out: {error}")
    name = trained.name
    if network is not None:
        changes = "".join(f", {key}={value}" for key, value in network.items())
        name = f"{name} (carried over{changes})"
    return evaluate(
        acting(trained),
        where.id,
        splits=tuple(splits or config.evaluation.splits),
        tasks=tasks or config.evaluation.tasks,
        **where.options,
        seed=config.evaluation.seed,
        batch_size=config.evaluation.batch_size,
        name=name,
        extra_agents={each.name: acting(each) for each in baselines},
        progress=progress,
    )


def carry_over(
    trained: TrainedAgent, environment: EnvironmentConfig, network: Mapping[str, Any], device: str | None = None
) -> PlasticPolicy:
    """Make a policy for an environment that acts by the rules of a trained agent.

    Only what does not depend on sizes can be carried over: rule tables, shared coefficients, steps. Everything else is
    refused by name. Start weights of such networks are drawn in each lifetime, so nothing else has to fit.

    `network` holds changes to the network's config, e.g. `{"hidden_size": 500}`.

    Raises:
        RunError: If a parameter that actions depend on is missing there, or has another shape.
        ConfigError: If the changed network does not validate.
        SpaceError: If the environment's spaces are not supported.
    """
    source = trained.load(device)
    env = adapt(environment.id, n_envs=1, **environment.options)
    assert isinstance(env, VecEnv)
    with closing(env):
        description = EnvironmentDescription.of(env)
        policy = type(source)(
            env.observation_space,
            env.action_space,
            feedback=description.feedback,
            steps_per_trial=description.steps_per_trial,
            generator=torch.Generator().manual_seed(trained.config.seed),
            network=merge(source.network_config, network),
        ).to(source.device)
    given, own = source.parameters_by_name(), policy.parameters_by_name()
    problems = []
    # Those that are drawn but never trained belong to the rules too.
    acting = [name for name in dict.fromkeys([*given, *own]) if not name.startswith("value_head.")]
    for name in acting:
        old, new = given.get(name), own.get(name)
        if old is None or new is None:
            problems.append(f"{name} is only in the {'new' if old is None else 'trained'} network")
        elif old.shape != new.shape:
            problems.append(f"{name} has shape {tuple(old.shape)}, and would need {tuple(new.shape)}")
    if problems:
        raise RunError(
            f"the rules of {trained.folder} cannot be carried over to {environment.id}: {'; '.join(problems)}. Only "
            "parameters that do not depend on sizes can be: rule tables, coefficients shared by all synapses, steps."
        )
    with torch.no_grad():
        for name in acting:
            own[name].copy_(given[name])
    return policy


def score_run(run: RunFolder, *, plugins: Sequence[str], progress: Callable[[str], None] | None = None) -> Evaluation:
    """Evaluate a run as its config says, and write its `evaluation.json`, `adaptation.png` and `curves.png`.

    Raises:
        RunError: If a baseline is missing that an evaluation at hand may hold: that one is left as it is.
    """
    trained = find_agent(run.path, plugins=plugins)
    if run.evaluation.exists():
        for spec in trained.config.evaluation.baselines:
            baseline_of(spec, trained.config)
    evaluation = score_agent(trained, progress=progress)
    plot_adaptation(evaluation, run.adaptation)
    draw_own_curves([run], run.curves, evaluation=evaluation)
    evaluation.save(run.evaluation)
    return evaluation


def draw_own_curves(runs: Sequence[RunFolder], path: Path, *, evaluation: Evaluation | None = None) -> Path | None:
    """As `draw_curves`; None where training ended before the first lifetime did, so that there is no curve."""
    try:
        return draw_curves(runs, path, evaluation=evaluation)
    except RunError:
        return None


def draw_curves(
    runs: Sequence[RunFolder], path: Path, *, evaluation: Evaluation | None = None, column: str = "rollout/score"
) -> Path:
    """Draw the learning curves of runs; sibling seeds are one curve with its interval, a run given twice counts once.

    The scores on `valid` are drawn beside those of training where there is one experiment: in evolution the score while
    training is the population's, and the agent that comes out is another.

    The levels of random and of the limit are taken from `evaluation`; by default the first run's own.

    Raises:
        RunError: If a run has no such metric yet.
    """
    if not runs:
        raise RunError("there are no runs to draw.")
    seeds: dict[Path, list[str | Path]] = {}
    for run in {run.path.resolve(): run for run in runs}.values():
        resolved = run.path.resolve()
        seeds.setdefault(resolved.parent if resolved.name.startswith("seed-") else resolved, []).append(run.metrics)
    groups = dict(zip(_told_apart(list(seeds)), seeds.values(), strict=True))
    if evaluation is None and runs[0].evaluation.exists():
        evaluation = Evaluation.load(runs[0].evaluation)
    configs = [run.config() for run in runs]
    made_for = {str(config.environment) for config in configs}
    # Levels of one environment make no sense above the curves of another.
    one_environment = len(made_for | {str(each) for config in configs for each in config.environments}) == 1
    levels = _levels(evaluation) if evaluation is not None and one_environment and column == "rollout/score" else None
    title = configs[0].environment.id if len(made_for) == 1 else "Learning between lifetimes"
    ended = dict(zip([stage.name for stage in configs[0].stages], runs[0].stage_ends(), strict=False))
    # Of several experiments the curves alone are enough to tell apart.
    also = "valid/score" if column == "rollout/score" and len(groups) == 1 and _any_has(runs, "valid/score") else None
    stages = ended if len(groups) == 1 else {}
    return plot_learning_curves(groups, path, levels=levels, column=column, also=also, title=title, stages=stages)


def _told_apart(folders: Sequence[Path]) -> list[str]:
    """The names of different folders, each with as many of those around it as it takes."""

    def ending(folder: Path, parts: int) -> str:
        return str(Path(*folder.parts[-parts:]))

    names = []
    for folder in folders:
        parts = 1
        while [ending(each, parts) for each in folders].count(ending(folder, parts)) > 1:
            parts += 1
        names.append(ending(folder, parts))
    return names


def _any_has(runs: Sequence[RunFolder], column: str) -> bool:
    for run in runs:
        try:
            read_metric(run.metrics, column)
        except RunError:
            continue
        return True
    return False


def _levels(evaluation: Evaluation) -> dict[str, float]:
    split = next(iter(evaluation.splits.values()))
    names = {"random": "random", split.limit_kind: f"limit ({split.limit_kind})"}
    return {
        label: split.reference_agents[name].raw_score for name, label in names.items() if name in split.reference_agents
    }


def seeds_table(evaluations: Mapping[str, Evaluation]) -> str:
    """Return a table of the scores of sibling runs, by their names, with a Student t interval over seeds."""
    lines: list[str] = []
    for split in next(iter(evaluations.values())).splits if evaluations else []:
        scores = {name: evaluation.splits[split] for name, evaluation in evaluations.items()}
        lines.append(f"split {split}: score (normalised) by seed")
        for name, score in scores.items():
            normalised = "" if score.normalised_score is None else f"  ({score.normalised_score:.3f})"
            lines.append(f"  {name:<10} {score.raw_score:>10.4g}{normalised}")
        if len(scores) > 1:
            mean, low, high = student_t_interval(np.array([[score.raw_score] for score in scores.values()]))
            lines.append(
                f"  {'mean':<10} {mean.item():>10.4g}  95% interval over seeds [{low.item():.4g}, {high.item():.4g}]"
            )
        lines += pooled_accuracy_lines(list(scores.values()))
    return "\n".join(lines)


def write_seeds_table(runs: Sequence[RunFolder]) -> str:
    """Write `seeds_table` to `SEEDS_TABLE` beside the sibling runs, and return it."""
    table = seeds_table({run.path.name: Evaluation.load(run.evaluation) for run in runs if run.evaluation.exists()})
    write_atomically(runs[0].path.parent / SEEDS_TABLE, f"{table}\n".encode())
    return table


def pooled_accuracy_lines(scores: Sequence[SplitEvaluation]) -> list[str]:
    """Accuracy after n samples over sibling runs, and how far it is from each agent that stood beside.

    There are no lines where the tasks are no data sets.
    """
    lines: list[str] = []
    for place, point in enumerate(scores[0].accuracy_after):
        own = np.array([score.accuracy_after[place].by_task for score in scores])
        mean, low, high = crossed_interval(own)
        seeds, tasks = own.shape
        found = f"{mean:.3f} [{low:.3f}, {high:.3f}]"
        lines.append(f"accuracy after {point.samples:,} samples: {found}  ({seeds} seeds x {tasks} tasks)")
        for name in scores[0].reference_agents:
            other = np.array([score.reference_agents[name].accuracy_after[place].by_task for score in scores])
            mean, low, high = crossed_interval(own - other)
            lines.append(f"  minus {name:<28} {other.mean():.3f}: {mean:+.3f} [{low:+.3f}, {high:+.3f}]")
    return lines
