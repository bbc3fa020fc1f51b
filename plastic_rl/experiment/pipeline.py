"""Whole experiments: from a config to trained, scored and drawn runs, one for each seed."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

from plastic_rl.algorithms import PlasticAlgorithm
from plastic_rl.algorithms.vec_env import VectorEnvAdapter
from plastic_rl.envs.task_vector_env import TaskVectorEnv, check_size
from plastic_rl.errors import ConfigError, FinishedError, RunError, TrainingInterrupted, UnknownNameError
from plastic_rl.experiment.agents import baseline_of, checkpoint_line, find_agent, needs_plugins
from plastic_rl.experiment.candidates import Candidates
from plastic_rl.experiment.config import ExperimentConfig, load_experiment
from plastic_rl.experiment.folder import RunFolder, create_runs, find_runs
from plastic_rl.experiment.progress import Progress
from plastic_rl.experiment.scoring import SEEDS_TABLE, draw_own_curves, score_run, write_seeds_table
from plastic_rl.experiment.stages import Fit, check_stages, pool_stages, score_stages, write_stages
from plastic_rl.experiment.training import built, check_unfinished, make_algorithm, train

Say = Callable[[str], None]
"""Is given what the user should read."""


def check_experiment(config: ExperimentConfig) -> None:
    """Build everything once, so that what does not fit is refused before a folder is made.

    Raises:
        ConfigError: If the environment's or network's arguments are no good.
        SpaceError: If the environment's spaces are not supported.
        UnknownNameError: If there is no such environment or split.
    """
    distribution = config.environment.distribution()
    for split in config.evaluation.splits:
        if split not in distribution.splits:
            raise UnknownNameError(f"split of {distribution.family}", split, distribution.splits)
    for spec in config.evaluation.baselines:
        try:
            baseline_of(spec, config)
        except RunError as error:
            raise ConfigError(
                f"evaluation.baselines names {spec}, which is not here: {error} Run where it is, make it with "
                f"plastic-rl train and export, or leave it out: 'evaluation.baselines=[]'."
            ) from None
    if config.candidates:
        with built(config):
            Candidates(config)
        return
    alone = config.model_copy(update={"stages": ()})
    fits = {"the experiment's own environment": _fit(make_algorithm(alone, n_envs=1), config)}
    fits |= {
        f"stage {stage.name}": _fit(make_algorithm(config, n_envs=1, stage=number), config)
        for number, stage in enumerate(config.stages)
    }
    check_stages(config, fits)


def _fit(algorithm: PlasticAlgorithm, config: ExperimentConfig) -> Fit:
    """What a network must fit, after a look at the size of the environment."""
    with closing(algorithm):
        env = algorithm.env
        if isinstance(env, VectorEnvAdapter) and isinstance(env.env, TaskVectorEnv):
            check_size(config.algorithm_class.largest_rows(config.algorithm), env.env.steps)
        return Fit.of(algorithm)


def start(
    path: str | Path,
    overrides: Sequence[str] = (),
    *,
    name: str | None = None,
    seeds: Sequence[int] = (),
    plugins: Sequence[str] = (),
    runs_folder: str | Path = "runs",
    say: Say = print,
    note: Say | None = None,
) -> None:
    """Train the experiment of a config file from the beginning, and score it.

    Args:
        path: The config file.
        overrides: `key.path=value` each.
        name: Of the run; by default that of the file.
        seeds: Several seeds make sibling runs `NAME/seed-S`; none: one run with the config's seed.
        plugins: Those that have been loaded; they are recorded.
        runs_folder: Where runs live.
        say: Is given the tables of scores.
        note: Is told what the evaluation is doing.

    Raises:
        RunError: If the name is taken.
        TrainingInterrupted: If a signal asked to stop.
    """
    config = load_experiment(path, overrides)
    needs_plugins(config.plugins, plugins, str(path))
    recorded = list(dict.fromkeys([*config.plugins, *plugins]))
    if len(set(seeds)) < len(seeds):
        raise RunError(f"each seed may be given once, got {', '.join(map(str, seeds))}.")
    changes: dict[str, dict[str, Any]] = {f"seed-{seed}": {"seed": seed} for seed in seeds} or {"": {}}
    configs = {folder: load_experiment(path, overrides, plugins=recorded, **own) for folder, own in changes.items()}
    check_experiment(config)
    runs = create_runs(Path(runs_folder), name or Path(path).stem, configs)
    try:
        finish(runs, plugins=plugins, say=say, note=note)
    except TrainingInterrupted:
        raise
    except Exception:
        folder = Path(runs_folder) / (name or Path(path).stem)
        if discard_unsaved(folder, runs) and note is not None:
            note(f"removed {folder}: nothing was saved in it")
        raise


def discard_unsaved(folder: Path, runs: Sequence[RunFolder]) -> bool:
    """Remove the folder of new `runs` that failed before any checkpoint, so that it does not block their name.

    Nothing is removed where a run has a checkpoint, or is being trained by another process.
    """
    with ExitStack() as stack:
        try:
            for run in runs:
                stack.enter_context(run.owned())
        except (RunError, OSError):
            return False
        if any(run.latest() is not None or run.saved.exists() for run in runs):
            return False
        shutil.rmtree(folder, ignore_errors=True)
    return not folder.exists()


def resume(
    spec: str | Path,
    *,
    plugins: Sequence[str] = (),
    runs_folder: str | Path = "runs",
    say: Say = print,
    note: Say | None = None,
) -> None:
    """Go on with a run that was stopped, or with all sibling runs that are not finished.

    Raises:
        RunError: If there is no such run; `FinishedError` if nothing is left to do.
        CheckpointError: If its newest checkpoint is damaged.
        TrainingInterrupted: If a signal asked to stop.
    """
    runs = find_runs(spec, runs_folder)
    unfinished: list[RunFolder] = []
    refusals: list[FinishedError] = []
    for run in runs:
        needs_plugins(run.plugins(), plugins, str(run.path))
        try:
            check_unfinished(run, run.config())
        except FinishedError as error:
            refusals.append(error)
        else:
            unfinished.append(run)
    if not unfinished:
        # Killed at the very end, it may lack a picture.
        lacking = [run for run in runs if not run.curves.exists() and draw_own_curves([run], run.curves)]
        table, picture = (runs[0].path.parent / name for name in (SEEDS_TABLE, runs[0].curves.name))
        if len(runs) > 1 and not (table.exists() and (picture.exists() or not draw_own_curves(runs, picture))):
            _show_together(runs, say)
        elif not lacking:
            raise refusals[0]
        return
    finish(runs, plugins=plugins, say=say, note=note, skip=[run for run in runs if run not in unfinished])


def finish(
    runs: Sequence[RunFolder],
    *,
    plugins: Sequence[str],
    say: Say = print,
    note: Say | None = None,
    skip: Sequence[RunFolder] = (),
    progress: Progress | None = None,
) -> None:
    """Train each run but those to `skip` to its end, score it, and draw all of them together; see `start`."""
    for run in runs:
        if run in skip:
            continue
        config = run.config()
        train(run, progress=progress)
        if config.evaluation.final:
            try:
                # Before the evaluation, which says that a run is finished.
                stages = score_stages(run, progress=note) if config.stages else None
                if stages is not None:
                    write_stages(stages, run.stages)
                evaluation = score_run(run, plugins=plugins, progress=note)
            except KeyboardInterrupt:
                raise TrainingInterrupted(run.path, run.latest()) from None
            say(checkpoint_line(find_agent(run.path, plugins=plugins)))
            say(evaluation.table())
            if stages is not None:
                say(stages.table())
        else:
            draw_own_curves([run], run.curves)
        made = (run.metrics, run.curves, run.evaluation, run.adaptation, run.stages, run.stages_picture)
        files = [file.name for file in made if file.exists()]
        say(f"in {run.path}: {', '.join(files)}, checkpoints/")
    if len(runs) > 1:
        _show_together(runs, say)


def _show_together(runs: Sequence[RunFolder], say: Say) -> None:
    say(write_seeds_table(runs))
    stages = pool_stages(runs)
    if stages is not None:
        say(stages.table())
    picture = draw_own_curves(runs, runs[0].path.parent / runs[0].curves.name)
    if picture is not None:
        say(f"learning curve of all seeds: {picture}")
