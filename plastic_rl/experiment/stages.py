"""Stages of training: that one network can go through them, and what it can do on each after each.

A run keeps the checkpoint at which each stage ended; the agent of each is scored on the tasks of every stage.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from gymnasium import spaces

from plastic_rl.algorithms import PlasticAlgorithm
from plastic_rl.algorithms.saved_policy import load_policy
from plastic_rl.checkpoint import read_checkpoint, write_atomically
from plastic_rl.config import describe
from plastic_rl.errors import ConfigError, RunError, UnknownNameError
from plastic_rl.evaluation import evaluate
from plastic_rl.evaluation.report import SplitEvaluation
from plastic_rl.evaluation.stage_scores import StageScores, Tested, plot_stages, pooled
from plastic_rl.evaluation.statistics import Pair
from plastic_rl.experiment.config import EnvironmentConfig, ExperimentConfig
from plastic_rl.experiment.folder import RunFolder
from plastic_rl.experiment.training import make_algorithm
from plastic_rl.policies import PlasticPolicy


@dataclass(frozen=True)
class Fit:
    """What a network must fit in an environment, by what messages call it; and steps of a rollout of one row."""

    interface: Mapping[str, Any]
    rollout: int | None

    @classmethod
    def of(cls, algorithm: PlasticAlgorithm) -> Fit:
        """Read it from an algorithm that was built in the environment."""
        seen = algorithm.observation_space
        assert isinstance(seen, spaces.Box)
        # What bounds features have is nothing to the network.
        interface = {
            "observations": f"{seen.shape} {seen.dtype}",
            "actions": algorithm.action_space,
            "feedback": algorithm.description.feedback.to_dict(),
        }
        return cls(interface, getattr(algorithm, "n_steps", None))


def check_stages(config: ExperimentConfig, fits: Mapping[str, Fit]) -> None:
    """Refuse stages that one network cannot go through, or that are over before they begin.

    Args:
        config: The experiment.
        fits: What the network must fit: of the experiment's own environment, then of each stage.

    Raises:
        ConfigError: Naming what differs, and where.
        UnknownNameError: If a stage's tasks lack the split that all of them are scored on.
    """
    first, *stages = fits
    own = fits[first].interface
    problems = [
        f"{name}: {what} are {fits[name].interface[what]}, and in {first} {own[what]}"
        for name in stages
        for what in own
        if fits[name].interface[what] != own[what]
    ]
    if problems:
        raise ConfigError(
            f"{describe(problems, 'stages')}\nOne network goes through all stages, so observations, actions and the "
            "columns of the feedback must be the same in all."
        )
    done = 0
    for number, (stage, name) in enumerate(zip(config.stages, stages, strict=True)):
        split, distribution = config.evaluation.splits[0], config.in_stage(number).environment.distribution()
        if split not in distribution.splits:
            raise UnknownNameError(f"split of stage {stage.name}", split, distribution.splits)
        rollout = fits[name].rollout
        if done >= config.ends[number]:
            raise ConfigError(
                f"stage {stage.name} would be over before it begins: rollouts are whole, so the stages before it end "
                f"at {done:,} {config.unit}, and it at {config.ends[number]:,}. Give it a budget of {rollout or 1:,} "
                "or more, or take smaller rollouts (n_envs, n_steps)"
            )
        size = 1 if rollout is None else rollout * int(config.algorithm.n_envs)
        done += -(-(config.ends[number] - done) // size) * size


def score_stages(
    run: RunFolder,
    *,
    split: str | None = None,
    tasks: int | None = None,
    progress: Callable[[str], None] | None = None,
) -> StageScores:
    """Score the agent that each stage of a run ended with, and the untrained one, on the tasks of every stage.

    Args:
        run: A run that is trained to its end.
        split: Split of the tasks; by default the first of `evaluation.splits`.
        tasks: Tasks of each environment; by default as the final evaluation.
        progress: Called with a line before each part.

    Raises:
        RunError: If the run has no stages, or has not gone through all of them.
        UnknownNameError: If a stage's tasks have no such split.
    """
    config = run.config()
    if not config.stages:
        raise RunError(f"{run.path} was trained in one environment, without stages: its config has no `stages`.")
    ends = run.stage_ends()
    if len(ends) < len(config.stages):
        raise RunError(
            f"{run.path} has gone through {len(ends)} of its {len(config.stages)} stages. Go on with: plastic-rl "
            f"resume {run.path}"
        )
    torch.set_num_threads(config.torch_threads)
    split = split or config.evaluation.splits[0]
    environments = config.environments
    tested = _distinct(config, environments)
    scores: list[list[float]] = []
    intervals: list[list[Pair]] = []
    results: list[SplitEvaluation] = []
    for name, load in _agents(run, config, ends).items():
        policy = load()
        if progress is not None:
            progress(f"{name}: scored on {', '.join(tested)}")
        # The levels are the same beside every agent.
        levels = [_levels(environment, split) if not scores else {} for environment in tested.values()]
        row = [
            evaluate(
                policy,
                environment.id,
                splits=(split,),
                tasks=tasks or config.evaluation.tasks,
                **environment.options,
                seed=config.evaluation.seed,
                batch_size=config.evaluation.batch_size,
                greedy=False,
                frozen=False,
                references=False,
                extra_agents=beside,
            ).splits[split]
            for environment, beside in zip(tested.values(), levels, strict=True)
        ]
        scores.append([one.raw_score for one in row])
        intervals.append([one.raw_score_interval for one in row])
        results = results or row
    return StageScores(
        agent=run.path.resolve().name,
        split=split,
        stages=tuple(stage.name for stage in config.stages),
        column=tuple(list(tested.values()).index(environment) for environment in environments),
        tested=tuple(
            _tested(name, environment, split, result)
            for (name, environment), result in zip(tested.items(), results, strict=True)
        ),
        scores=tuple(map(tuple, scores)),
        intervals=tuple(map(tuple, intervals)),
    )


def _levels(environment: EnvironmentConfig, split: str) -> dict[str, Any]:
    """The random agent and the one that is the limit, where there is one."""
    distribution = environment.distribution()
    agents = distribution.reference_agents(split)
    return {name: agents[name] for name in ("random", distribution.limit_of(split)) if name in agents}


def _tested(name: str, environment: EnvironmentConfig, split: str, result: SplitEvaluation) -> Tested:
    beside = {key: score.raw_score for key, score in result.reference_agents.items()}
    limit = environment.distribution().limit_of(split)
    return Tested(
        name=name,
        tasks=result.tasks,
        random=beside.get("random"),
        limit_kind=limit if limit in beside else "none",
        limit=beside.get(limit),
        **environment.model_dump(),
    )


def _distinct(config: ExperimentConfig, environments: Sequence[EnvironmentConfig]) -> dict[str, EnvironmentConfig]:
    """The environments of the stages, each once, by the name of the first stage that has it."""
    found: dict[str, EnvironmentConfig] = {}
    for stage, environment in zip(config.stages, environments, strict=True):
        if environment not in found.values():
            found[stage.name] = environment
    return found


def _agents(run: RunFolder, config: ExperimentConfig, ends: Sequence[int]) -> dict[str, Callable[[], PlasticPolicy]]:
    """What loads the untrained agent and that of each stage's end, by what messages call them."""

    def untrained() -> PlasticPolicy:
        with closing(make_algorithm(config, n_envs=1)) as algorithm:
            return algorithm.policy

    def at(step: int) -> Callable[[], PlasticPolicy]:
        return lambda: load_policy(read_checkpoint(run.checkpoints / str(step)), config.device)

    return {"untrained": untrained} | {
        f"after {stage.name}": at(step) for stage, step in zip(config.stages, ends, strict=True)
    }


def write_stages(scores: StageScores, file: Path) -> None:
    """Write scores as JSON, and beside it their picture."""
    plot_stages(scores, file.with_suffix(".png"))
    write_atomically(file, scores.to_json())


def pool_stages(runs: Sequence[RunFolder]) -> StageScores | None:
    """Write the `stages.json` and `stages.png` of sibling runs beside them, and return it; None without any of theirs.

    Those are left out whose scores are not there yet.
    """
    found = [StageScores.load(run.stages) for run in runs if run.stages.exists()]
    if len(found) < 2:
        return None
    together = pooled(found)
    write_stages(together, runs[0].path.parent / runs[0].stages.name)
    return together
