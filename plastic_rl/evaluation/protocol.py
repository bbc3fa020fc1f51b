"""The evaluation protocol: one agent, every reference agent and the frozen twin on the same tasks of each split."""

from __future__ import annotations

import inspect
import time
import warnings
import zlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import numpy as np

from plastic_rl.arrays import FloatArray
from plastic_rl.checkpoint import library_versions
from plastic_rl.envs import DISTRIBUTIONS, distribution_for
from plastic_rl.envs.catalog import spec_of
from plastic_rl.envs.task import Agent, ReferenceAgent, Task, TaskDistribution
from plastic_rl.errors import UnknownNameError
from plastic_rl.evaluation.classification import AccuracyAfter, AccuracyQuestions
from plastic_rl.evaluation.lifetimes import Lifetimes, run_lifetimes
from plastic_rl.evaluation.report import AccuracyPoint, Curve, Evaluation, Measure, Pair, Score, SplitEvaluation
from plastic_rl.evaluation.statistics import (
    bootstrap_means,
    column_means,
    normalise,
    normalised_interval,
    percentile_interval,
)

DEFAULT_TASKS = 1000
DEFAULT_BANDIT_TASKS = 10_000
"""Lifetimes whose trials have one step are cheap and noisy."""
DEFAULT_DATA_SETS = 100
"""Where a lifetime is a data set, 1,000 held-out samples tell an accuracy to .01, and lifetimes are long."""
TASKS_BY_DEFAULT = (
    f"{DEFAULT_DATA_SETS:,} where a lifetime is a data set (classification), {DEFAULT_BANDIT_TASKS:,} where every "
    f"trial has one step (bandits), {DEFAULT_TASKS:,} otherwise"
)
"""What `evaluate` takes where no number of tasks is given, in words."""
STEP_BINS = 100
"""Most points of a curve of trials with one step."""
TIME_BINS = 20
"""Points of a curve where trials differ in length, so that their returns say little (a maze: always the goal's)."""

Progress = Callable[[str], None]


def evaluate(
    agent: Agent,
    env_id: str,
    *,
    splits: Sequence[str] = ("test",),
    tasks: int | None = None,
    env_kwargs: Mapping[str, Any] | None = None,
    trials: int = 1,
    same_task_each_trial: bool | None = None,
    seed: int = 0,
    batch_size: int = 1000,
    name: str = "agent",
    greedy: bool = True,
    frozen: bool = True,
    references: bool = True,
    extra_agents: Mapping[str, Agent] | None = None,
    confidence: float = 0.95,
    resamples: int = 2000,
    progress: Progress | None = None,
) -> Evaluation:
    """Score an agent on fixed tasks, beside the reference agents of the tasks' family.

    For each split: the agent with sampled actions (the score), with greedy actions, with its plasticity frozen (if it
    has `freeze_plasticity()`, a context manager, and does not say `is_plastic = False`), and every reference agent of
    the distribution. All live tasks `0 .. tasks - 1` under the same environment seeds, and one bootstrap over tasks
    serves all of them. Where the environment has held-out samples (classification), all are also asked about those:
    `Score.accuracy_after`.

    Args:
        agent: Anything with stable-baselines3's `predict`; see `run_lifetimes` for agents that were trained on
            normalised observations or without the feedback columns.
        env_id: Environment.
        splits: Any of the distribution's: `train`, `valid`, `test`, `shift`, `holdout`.
        tasks: Tasks of each split; by default as many as `TASKS_BY_DEFAULT` says.
        env_kwargs: Arguments of the environment.
        trials: Trials in a lifetime of an environment that has no lifetimes of its own.
        same_task_each_trial: Whether these share the lifetime's seed; None: where tasks are reset seeds (`Lifetime`).
        seed: 0 or more; environment and agent seeds of each split follow from it.
        batch_size: Lifetimes to run at a time.
        name: The agent's name in tables and plots.
        greedy: Also with greedy actions.
        frozen: Also with plasticity frozen.
        references: Also the reference agents; without them there is no normalised score and no regret.
        extra_agents: More agents to lay beside them, by name, on the same tasks: any that tasks alone cannot name, such
            as a network with hand-written rules. A name of a reference agent replaces that one.
        confidence: Share of the intervals.
        resamples: Bootstrap resamples.
        progress: Called with a line of text before each agent starts.

    Returns:
        The evaluation; `save` writes `evaluation.json`, `table` shows it, `plot_adaptation` draws it.

    Raises:
        UnknownNameError: If the distribution has no such split.
        SpaceError: If the agent does not fit the environment.

    Warns:
        UserWarning: If the distribution's limit is none of its reference agents, so that nothing can be normalised.

    >>> agent = distribution_for("plastic_rl/ReversalBandit-v0").reference_agents("test")["oracle"]
    >>> evaluation = evaluate(agent, "plastic_rl/ReversalBandit-v0", tasks=10, resamples=100)
    >>> round(evaluation.splits["test"].raw_score, 6), evaluation.splits["test"].limit_kind
    (80.0, 'bayes')
    """
    kwargs = dict(env_kwargs or {})
    distribution = distribution_for(env_id, kwargs)
    splits = list(dict.fromkeys(splits))
    for split in splits:
        if split not in distribution.splits:
            raise UnknownNameError(f"split of {distribution.family}", split, distribution.splits)
        problem = distribution.limit_problem(split) if references else None
        if problem is not None:
            warnings.warn(problem, stacklevel=2)
    metadata = _metadata(env_id, kwargs, trials)
    steps_per_trial = metadata.get("steps_per_trial")
    asked_after: Sequence[int] = metadata.get("accuracy_after", ())
    bandit = DEFAULT_BANDIT_TASKS if steps_per_trial == 1 else DEFAULT_TASKS
    count = tasks or (DEFAULT_DATA_SETS if asked_after else bandit)
    results: dict[str, SplitEvaluation] = {}
    seconds: dict[str, dict[str, float]] = {}
    for split in splits:
        # Every agent acts with a stream of its own: two that act at random are two draws, not one.
        environment_seed = _split_seed(seed, split)
        split_tasks = distribution.tasks(split, 0, count)
        evaluated = _evaluated(agent, distribution, split, greedy, frozen, references)
        evaluated |= {f"reference:{key}": _as_it_is(each) for key, each in (extra_agents or {}).items()}
        lived: dict[str, Lifetimes] = {}
        accuracies: dict[str, AccuracyAfter] = {}
        seconds[split] = {}
        for key, one in evaluated.items():
            if progress is not None:
                progress(f"{env_id}, {split}: {key.replace('_', ' ')} on {count:,} tasks")
            before = time.perf_counter()
            questions = AccuracyQuestions(distribution, asked_after, count, metadata["pays"]) if asked_after else None
            with one.context():
                lived[key] = run_lifetimes(
                    one.agent,
                    env_id,
                    split_tasks,
                    env_kwargs=kwargs,
                    trials=trials,
                    same_task_each_trial=same_task_each_trial,
                    deterministic=one.deterministic,
                    seed=environment_seed,
                    agent_seed=environment_seed + zlib.crc32(key.encode()),
                    batch_size=batch_size,
                    on_step=questions,
                )
            if questions is not None:
                accuracies[key] = questions.result(lived[key])
            seconds[split][key] = round(time.perf_counter() - before, 3)
        result = score_lifetimes(
            lived,
            accuracies=accuracies,
            privileged={key: _privileged(one.agent) for key, one in evaluated.items()},
            limit_kind=distribution.limit_of(split) if references else "none",
            environment_seed=environment_seed,
            generator=np.random.default_rng([seed, zlib.crc32(split.encode())]),
            confidence=confidence,
            resamples=resamples,
        )
        results[split] = result.model_copy(update={"environment_overrides": _overrides(env_id, kwargs, split_tasks)})
    return Evaluation(
        agent=name,
        env_id=env_id,
        env_kwargs=kwargs,
        trials=trials,
        same_task_each_trial=same_task_each_trial,
        family=distribution.family,
        single_task=distribution.single_task,
        seed=seed,
        batch_size=batch_size,
        confidence=confidence,
        resamples=resamples,
        lifetime_steps=metadata.get("lifetime_steps"),
        steps_per_trial=steps_per_trial,
        measures=metadata.get("measures", {}),
        splits=results,
        seconds=seconds,
        versions=library_versions(),
    )


SAMPLED = "sampled"
GREEDY = "greedy"
FROZEN = "frozen"
OWN_ENTRIES = (SAMPLED, GREEDY, FROZEN)


class _Evaluated(NamedTuple):
    agent: Agent
    deterministic: bool
    context: Callable[[], AbstractContextManager[Any]]


def _evaluated(
    agent: Agent, distribution: TaskDistribution, split: str, greedy: bool, frozen: bool, references: bool
) -> dict[str, _Evaluated]:
    chosen = {SAMPLED: _Evaluated(agent, False, nullcontext)}
    if greedy:
        chosen[GREEDY] = _Evaluated(agent, True, nullcontext)
    freeze = getattr(agent, "freeze_plasticity", None)
    if frozen and freeze is not None and getattr(agent, "is_plastic", True):
        chosen[FROZEN] = _Evaluated(agent, False, freeze)
    agents: dict[str, ReferenceAgent] = distribution.reference_agents(split) if references else {}
    return chosen | {f"reference:{key}": _as_it_is(value) for key, value in agents.items()}


def _as_it_is(agent: Agent) -> _Evaluated:
    return _Evaluated(agent, False, nullcontext)


def _privileged(agent: object) -> str:
    if getattr(agent, "needs_task", False):
        return "task"
    return "environment" if getattr(agent, "needs_env", False) else "none"


def _metadata(env_id: str, env_kwargs: Mapping[str, Any], trials: int) -> Mapping[str, Any]:
    from plastic_rl.envs import make_vector

    env = make_vector(env_id, 1, env_kwargs=dict(env_kwargs), trials=trials)
    try:
        return env.metadata
    finally:
        env.close()


def _overrides(env_id: str, env_kwargs: Mapping[str, Any], tasks: Sequence[Task]) -> dict[str, Pair]:
    """Range of each number that is an argument of the environment, and that some task has another value of."""
    if env_id not in DISTRIBUTIONS:
        return {}
    defaults = {name: each.default for name, each in inspect.signature(DISTRIBUTIONS[env_id]).parameters.items()}
    made_with = {**defaults, **spec_of(env_id).kwargs, **env_kwargs}
    found: dict[str, Pair] = {}
    for name in [name for name in tasks[0].params if name in made_with]:
        values = [value for task in tasks if isinstance(value := task.params.get(name), int | float)]
        if any(value != made_with[name] for value in values):
            found[name] = (float(min(values)), float(max(values)))
    return found


def _split_seed(seed: int, split: str) -> int:
    """Environment seed of a split: splits of one task (a reversal bandit) differ in nothing but their noise."""
    sequence = np.random.SeedSequence(seed, spawn_key=(zlib.crc32(b"evaluation"), zlib.crc32(split.encode())))
    return int(sequence.generate_state(1, np.uint32)[0] >> 1)


def score_lifetimes(
    lived: Mapping[str, Lifetimes],
    *,
    limit_kind: str,
    environment_seed: int,
    generator: np.random.Generator,
    privileged: Mapping[str, str] | None = None,
    accuracies: Mapping[str, AccuracyAfter] | None = None,
    confidence: float = 0.95,
    resamples: int = 2000,
) -> SplitEvaluation:
    """Turn lifetimes on the same `N` tasks into scores with intervals from one bootstrap over those tasks.

    Args:
        lived: `sampled`, maybe `greedy` and `frozen`, and `reference:NAME` for each reference agent.
        limit_kind: Name of the limit's reference agent, or `none`.
        environment_seed: Recorded.
        generator: Draws the resamples.
        privileged: What each of them is told besides the observations (see `Score.privileged`); by default nothing.
        accuracies: Their accuracies on held-out samples, where the tasks have any.
        confidence: Share of the intervals.
        resamples: Number of resamples.
    """
    tables = {key: _tables(lifetimes, (accuracies or {}).get(key)) for key, lifetimes in lived.items()}
    flat = [table for parts in tables.values() for table in parts.values()]
    resampled = bootstrap_means(np.concatenate(flat, 1), resamples, generator)
    pieces = iter(np.split(resampled, np.cumsum([table.shape[1] for table in flat])[:-1], axis=1))
    samples = {key: {name: next(pieces) for name in parts} for key, parts in tables.items()}
    means = {key: {name: column_means(table) for name, table in parts.items()} for key, parts in tables.items()}

    random, oracle = "reference:random", "reference:oracle"
    limit = f"reference:{limit_kind}"

    def score(key: str) -> dict[str, Any]:
        own, lifetimes = samples[key], lived[key]
        raw, raw_samples = float(means[key]["total"][0]), own["total"][:, 0]

        def paired(other: str) -> tuple[float, Pair]:
            return float(means[other]["total"][0]) - raw, _pair(samples[other]["total"][:, 0] - raw_samples, confidence)

        def curve(name: str) -> Curve:
            return _curve(tables[key][name], means[key][name], own[name], lifetimes, confidence)

        shortfall, shortfall_interval = paired(SAMPLED)
        fields: dict[str, Any] = {
            "privileged": (privileged or {}).get(key, "none"),
            "raw_score": raw,
            "raw_score_interval": _pair(raw_samples, confidence),
            "difference": 0.0 - shortfall,
            "difference_interval": (0.0 - shortfall_interval[1], 0.0 - shortfall_interval[0]),
            "reward": float(lifetimes.reward_totals.mean()),
            "steps": float(lifetimes.lengths.mean()),
            "curve": curve("curve"),
            "measures": {
                name: Measure(
                    mean=float(means[key][column][0]),
                    interval=_pair(own[column][:, 0], confidence),
                    difference=float(means[key][column][0] - means[SAMPLED][column][0]) if both_have else None,
                    difference_interval=(
                        _pair(own[column][:, 0] - samples[SAMPLED][column][:, 0], confidence) if both_have else None
                    ),
                    curve=curve(f"curve of {name}"),
                )
                for name in lifetimes.measures
                if not np.isnan(means[key][column := f"measure {name}"][0])
                for both_have in [not np.isnan(means[SAMPLED][column][0])]
            },
        }
        if not np.isnan(adaptation := float(means[key]["adaptation"][0])):
            fields["adaptation"] = adaptation
            fields["adaptation_interval"] = _pair(own["adaptation"][:, 0], confidence)
        if accuracies and key in accuracies:
            both = (means[key]["accuracy"], means[SAMPLED]["accuracy"], own["accuracy"], samples[SAMPLED]["accuracy"])
            fields["accuracy_after"] = _points(accuracies[key], *both, confidence)
        if limit in lived:
            fields["regret"], fields["regret_interval"] = paired(limit)
        if oracle in lived:
            fields["oracle_regret"], fields["oracle_regret_interval"] = paired(oracle)
        if limit in lived and random in lived:
            low, high = (samples[end]["total"][:, 0] for end in (random, limit))
            ratio = normalise(raw, means[random]["total"][0], means[limit]["total"][0]).item()
            interval = normalised_interval(raw_samples, low, high, confidence)
            fields["normalised_score"] = None if np.isnan(ratio) else ratio
            fields["normalised_score_interval"] = interval
        return fields

    others = {key: Score(**score(key)) for key in lived if key != SAMPLED}
    return SplitEvaluation(
        **score(SAMPLED),
        tasks=len(lived[SAMPLED]),
        limit_kind=limit_kind if limit in lived else "none",
        score_of="expected_reward" if all(lifetimes.expected for lifetimes in lived.values()) else "reward",
        environment_seed=environment_seed,
        greedy=others.get(GREEDY),
        frozen=others.get(FROZEN),
        reference_agents={
            key.removeprefix("reference:"): value for key, value in others.items() if key not in OWN_ENTRIES
        },
    )


def _pair(samples: FloatArray, confidence: float) -> Pair:
    low, high = percentile_interval(samples, confidence)
    return float(low), float(high)


def _tables(lifetimes: Lifetimes, asked: AccuracyAfter | None) -> dict[str, FloatArray]:
    """All that is averaged over the `N` tasks, `(N, ..)` each."""
    tables = {"total": lifetimes.totals[:, None], "adaptation": lifetimes.adaptation()[:, None]}
    if asked is not None:
        tables["accuracy"] = asked.columns()
    width = _bin_width(lifetimes)
    steps = lifetimes.unit == "step"
    for name, values in lifetimes.measures.items():
        tables[f"measure {name}"] = lifetimes.binned(values, values.shape[1])
        tables[f"curve of {name}"] = lifetimes.binned(values, width) if steps else lifetimes.trial_means(values)
    tables["curve"] = lifetimes.binned(lifetimes.scores, width) if steps else lifetimes.trial_returns()
    return tables


def _bin_width(lifetimes: Lifetimes) -> int:
    """Steps in a bin of a curve of steps."""
    steps: int = lifetimes.scores.shape[1]
    return -(-steps // (STEP_BINS if lifetimes.steps_per_trial == 1 else TIME_BINS))


def _curve(table: FloatArray, mean: FloatArray, samples: FloatArray, lifetimes: Lifetimes, confidence: float) -> Curve:
    tasks = (~np.isnan(table)).sum(0)
    points = np.flatnonzero(tasks)
    low, high = percentile_interval(samples[:, points], confidence)
    width = _bin_width(lifetimes)
    middle = (points * width + 1 + np.minimum((points + 1) * width, lifetimes.scores.shape[1])) / 2
    return Curve(
        unit=lifetimes.unit,
        width=1 if lifetimes.unit == "trial" else width,
        position=tuple((points + 1.0 if lifetimes.unit == "trial" else middle).tolist()),
        mean=tuple(mean[points].tolist()),
        low=tuple(low.tolist()),
        high=tuple(high.tolist()),
        tasks=tuple(tasks[points].tolist()),
    )


def _points(
    asked: AccuracyAfter, mean: FloatArray, agent: FloatArray, samples: FloatArray, own: FloatArray, confidence: float
) -> tuple[AccuracyPoint, ...]:
    """What the columns of `AccuracyAfter` say, beside those of the evaluated agent."""
    counts = asked.samples
    accuracy, online, commonest = mean.reshape(3, -1)
    return tuple(
        AccuracyPoint(
            samples=count,
            accuracy=float(accuracy[place]),
            accuracy_interval=_pair(samples[:, place], confidence),
            difference=float(accuracy[place] - agent[place]),
            difference_interval=_pair(samples[:, place] - own[:, place], confidence),
            online=float(online[place]),
            online_interval=_pair(samples[:, len(counts) + place], confidence),
            commonest=float(commonest[place]),
            by_task=tuple(asked.accuracy[:, place].tolist()),
        )
        for place, count in enumerate(counts)
    )
