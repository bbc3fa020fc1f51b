"""The evaluation protocol: one agent, every reference agent and the frozen twin on the same tasks of each split."""

from __future__ import annotations

import inspect
import time
import warnings
import zlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from typing import Any, NamedTuple

import numpy as np

from plastic_rl.arrays import FloatArray
from plastic_rl.checkpoint import library_versions
from plastic_rl.envs import DISTRIBUTIONS, distribution_for, make_vector
from plastic_rl.envs.catalog import spec_of
from plastic_rl.envs.task import Agent, RandomAgent, Task
from plastic_rl.envs.wrappers import checked_wrappers
from plastic_rl.errors import UnknownNameError
from plastic_rl.evaluation.classification import AccuracyAfter, AccuracyQuestions
from plastic_rl.evaluation.lifetimes import Lifetimes, freezer, run_lifetimes
from plastic_rl.evaluation.report import AccuracyPoint, Curve, Evaluation, Measure, Score, SplitEvaluation
from plastic_rl.evaluation.statistics import (
    CONFIDENCE,
    Pair,
    bootstrap_means,
    mean_of_present,
    normalise,
    normalised_interval,
    pair,
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
Keep = Callable[[str, Lifetimes, AccuracyAfter | None], None]


def evaluate(
    agent: Agent,
    env_id: str,
    *,
    splits: Sequence[str] = ("test",),
    tasks: int | None = None,
    env_kwargs: Mapping[str, Any] | None = None,
    trials: int = 1,
    same_task_each_trial: bool | None = None,
    wrappers: Sequence[Mapping[str, Any]] = (),
    seed: int = 0,
    batch_size: int = 1000,
    name: str = "agent",
    greedy: bool = True,
    frozen: bool = True,
    references: bool = True,
    extra_agents: Mapping[str, Agent] | None = None,
    resamples: int = 2000,
    progress: Progress | None = None,
    keep: Keep | None = None,
) -> Evaluation:
    """Score an agent on fixed tasks, beside the reference agents of the tasks' family.

    For each split: the agent with sampled actions (the score), with greedy actions, with its plasticity frozen (if it
    has `freeze_plasticity()`, a context manager, and does not say `is_plastic = False`), and every reference agent of
    the distribution. All live tasks `0 .. tasks - 1` under the same environment seeds, and one bootstrap over tasks
    serves all of them. Where the environment has held-out samples (classification), all are also asked about those:
    `Score.accuracy_after`.

    Args:
        agent: Anything with stable-baselines3's `predict`, trained on normalised observations or not, with or without
            the feedback columns.
        env_id: Environment.
        splits: Any of the distribution's: `train`, `valid`, `test`, `shift`, `holdout`.
        tasks: Tasks of each split; by default as many as `TASKS_BY_DEFAULT` says.
        env_kwargs: Arguments of the environment.
        trials: Trials in a lifetime of an environment that has no lifetimes of its own.
        same_task_each_trial: Whether these share the lifetime's seed; None: where tasks are reset seeds (`Lifetime`).
        wrappers: Changes of the task, see `plastic_rl.envs.wrappers`. Reference agents live without them, but for the
            random one: what is known of them, and that one is the limit, holds for the environment as it is.
        seed: 0 or more; environment and agent seeds of each split follow from it.
        batch_size: Lifetimes to run at a time.
        name: The agent's name in tables and plots.
        greedy: Also with greedy actions.
        frozen: Also with plasticity frozen.
        references: Also the reference agents; without them there is no normalised score and no regret.
        extra_agents: More agents to lay beside them, by name, on the same tasks: any that tasks alone cannot name, such
            as a network with hand-written rules. A name of a reference agent replaces that one.
        resamples: Bootstrap resamples.
        progress: Called with a line of text before each agent starts.
        keep: Called with what each agent lived: its key (`sampled`, `greedy`, `frozen` or `reference:NAME`), its
            lifetimes, and its accuracies where the tasks have held-out samples.

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
    with closing(make_vector(env_id, 1, env_kwargs=kwargs, trials=trials, wrappers=wrappers)) as env:
        metadata = env.metadata
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
        others = {**(distribution.reference_agents(split) if references else {}), **(extra_agents or {})}
        evaluated = _evaluated(agent, greedy, frozen, others)
        lived: dict[str, Lifetimes] = {}
        accuracies: dict[str, AccuracyAfter] = {}
        seconds[split] = {}
        for key, one in evaluated.items():
            if progress is not None:
                progress(f"{env_id}, {split}: {key.removeprefix(REFERENCE)} on {count:,} tasks")
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
                    # Their numbers, and the limit, are known for the family as it is; the random agent reads nothing.
                    wrappers=() if key.startswith(REFERENCE) and not isinstance(one.agent, RandomAgent) else wrappers,
                    deterministic=one.deterministic,
                    seed=environment_seed,
                    agent_seed=environment_seed + zlib.crc32(key.encode()),
                    batch_size=batch_size,
                    on_step=questions,
                )
            if questions is not None:
                accuracies[key] = questions.result(lived[key])
            if keep is not None:
                keep(key, lived[key], accuracies.get(key))
            seconds[split][key] = round(time.perf_counter() - before, 3)
        result = score_lifetimes(
            lived,
            accuracies=accuracies,
            privileged={key: _privileged(one.agent) for key, one in evaluated.items()},
            limit_kind=distribution.limit_of(split) if references else "none",
            environment_seed=environment_seed,
            generator=np.random.default_rng([seed, zlib.crc32(split.encode())]),
            resamples=resamples,
        )
        results[split] = result.model_copy(update={"environment_overrides": _overrides(env_id, kwargs, split_tasks)})
    return Evaluation(
        agent=name,
        env_id=env_id,
        env_kwargs=kwargs,
        trials=trials,
        same_task_each_trial=same_task_each_trial,
        wrappers=tuple(checked_wrappers(wrappers)),
        family=distribution.family,
        single_task=distribution.single_task,
        seed=seed,
        batch_size=batch_size,
        confidence=CONFIDENCE,
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
REFERENCE = "reference:"


class _Evaluated(NamedTuple):
    agent: Agent
    deterministic: bool = False
    context: Callable[[], AbstractContextManager[Any]] = nullcontext


def _evaluated(agent: Agent, greedy: bool, frozen: bool, others: Mapping[str, Agent]) -> dict[str, _Evaluated]:
    chosen = {SAMPLED: _Evaluated(agent)}
    if greedy:
        chosen[GREEDY] = _Evaluated(agent, deterministic=True)
    freeze = freezer(agent)
    if frozen and freeze is not None:
        chosen[FROZEN] = _Evaluated(agent, context=freeze)
    return chosen | {f"{REFERENCE}{key}": _Evaluated(each) for key, each in others.items()}


def _privileged(agent: object) -> str:
    if getattr(agent, "needs_task", False):
        return "task"
    return "environment" if getattr(agent, "needs_env", False) else "none"


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
        resamples: Number of resamples.
    """
    averages = _Averages(lived, accuracies or {}, resamples, generator)
    random, oracle, limit = (f"{REFERENCE}{name}" for name in ("random", "oracle", limit_kind))

    def score(key: str) -> dict[str, Any]:
        fields: dict[str, Any] = {
            "privileged": (privileged or {}).get(key, "none"),
            "reward": float(lived[key].reward_totals.mean()),
            "steps": float(lived[key].lengths.mean()),
            "curve": averages.curve(key, "curve"),
            "measures": averages.measures(key),
            "accuracy_after": averages.accuracy_after(key),
        }
        fields["raw_score"], fields["raw_score_interval"] = averages.estimate(key, "total")
        shortfall, (low, high) = averages.difference(SAMPLED, key, "total")
        fields["difference"], fields["difference_interval"] = 0.0 - shortfall, (0.0 - high, 0.0 - low)
        if not averages.missing(key, "adaptation"):
            fields["adaptation"], fields["adaptation_interval"] = averages.estimate(key, "adaptation")
        if limit in lived:
            fields["regret"], fields["regret_interval"] = averages.difference(limit, key, "total")
        if oracle in lived:
            fields["oracle_regret"], fields["oracle_regret_interval"] = averages.difference(oracle, key, "total")
        if limit in lived and random in lived:
            agents = (key, random, limit)
            share = normalise(*(averages.means[each]["total"][0] for each in agents)).item()
            fields["normalised_score"] = None if np.isnan(share) else share
            resampled = (averages.samples[each]["total"][:, 0] for each in agents)
            fields["normalised_score_interval"] = normalised_interval(*resampled)
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
            key.removeprefix(REFERENCE): value for key, value in others.items() if key.startswith(REFERENCE)
        },
    )


class _Averages:
    """Means over `N` tasks of all that agents did, with intervals from one bootstrap over those tasks.

    Attributes:
        tables: What is averaged, by agent and by name, `(N, ..)`.
        means: Its means over tasks, `(..)`.
        samples: Those of `R` resamples, `(R, ..)`.
    """

    def __init__(
        self,
        lived: Mapping[str, Lifetimes],
        accuracies: Mapping[str, AccuracyAfter],
        resamples: int,
        generator: np.random.Generator,
    ) -> None:
        self.lived = lived
        self.accuracies = accuracies
        self.tables = {key: _tables(lifetimes, accuracies.get(key)) for key, lifetimes in lived.items()}
        flat = [table for parts in self.tables.values() for table in parts.values()]
        resampled = bootstrap_means(np.concatenate(flat, 1), resamples, generator)
        pieces = iter(np.split(resampled, np.cumsum([table.shape[1] for table in flat])[:-1], axis=1))
        self.samples = {key: {name: next(pieces) for name in parts} for key, parts in self.tables.items()}
        self.means = {
            key: {name: mean_of_present(table) for name, table in parts.items()} for key, parts in self.tables.items()
        }

    def missing(self, key: str, name: str) -> bool:
        """Whether no lifetime of the agent has it."""
        return bool(np.isnan(self.means[key][name][0]))

    def estimate(self, key: str, name: str, column: int = 0) -> tuple[float, Pair]:
        """What an agent has of something, with the interval."""
        return float(self.means[key][name][column]), pair(self.samples[key][name][:, column])

    def difference(self, first: str, second: str, name: str, column: int = 0) -> tuple[float, Pair]:
        """What the first agent has more of than the second, with the interval, paired on tasks."""
        mean = float(self.means[first][name][column] - self.means[second][name][column])
        return mean, pair(self.samples[first][name][:, column] - self.samples[second][name][:, column])

    def curve(self, key: str, name: str) -> Curve:
        """How something develops along the agent's lifetime."""
        lifetimes = self.lived[key]
        tasks = (~np.isnan(self.tables[key][name])).sum(0)
        points = np.flatnonzero(tasks)
        low, high = percentile_interval(self.samples[key][name][:, points])
        width = _bin_width(lifetimes)
        middle = (points * width + 1 + np.minimum((points + 1) * width, lifetimes.scores.shape[1])) / 2
        return Curve(
            unit=lifetimes.unit,
            width=1 if lifetimes.unit == "trial" else width,
            position=tuple((points + 1.0 if lifetimes.unit == "trial" else middle).tolist()),
            mean=tuple(self.means[key][name][points].tolist()),
            low=tuple(low.tolist()),
            high=tuple(high.tolist()),
            tasks=tuple(tasks[points].tolist()),
        )

    def measures(self, key: str) -> dict[str, Measure]:
        """What the environment measures beside the reward, where the agent has any."""
        found = {}
        for name in self.lived[key].measures:
            column = f"measure {name}"
            if self.missing(key, column):
                continue
            mean, interval = self.estimate(key, column)
            none = self.missing(SAMPLED, column)
            difference, difference_interval = (None, None) if none else self.difference(key, SAMPLED, column)
            found[name] = Measure(
                mean=mean,
                interval=interval,
                difference=difference,
                difference_interval=difference_interval,
                curve=self.curve(key, f"curve of {name}"),
            )
        return found

    def accuracy_after(self, key: str) -> tuple[AccuracyPoint, ...]:
        """What the agent's `AccuracyAfter` says, if there is one, beside that of the evaluated agent."""
        if key not in self.accuracies:
            return ()
        counts = self.accuracies[key].samples
        points = []
        for place, count in enumerate(counts):
            accuracy, accuracy_interval = self.estimate(key, "accuracy", place)
            difference, difference_interval = self.difference(key, SAMPLED, "accuracy", place)
            online, online_interval = self.estimate(key, "accuracy", len(counts) + place)
            point = AccuracyPoint(
                samples=count,
                accuracy=accuracy,
                accuracy_interval=accuracy_interval,
                difference=difference,
                difference_interval=difference_interval,
                online=online,
                online_interval=online_interval,
                commonest=float(self.means[key]["accuracy"][2 * len(counts) + place]),
                by_task=tuple(self.accuracies[key].accuracy[:, place].tolist()),
            )
            points.append(point)
        return tuple(points)


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
