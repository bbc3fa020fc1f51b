"""What agents are compared by: one number for each task that they lived, or one for each training run.

A measure is named in a config, alone or with options (`score`, `{name: trials, first: 11}`), and made by
`make_measure`. Plug-ins register their own in `MEASURES`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, NamedTuple

import numpy as np
from pydantic import Field
from typing_extensions import override

from plastic_rl.arrays import FloatArray
from plastic_rl.config import ConfigModel, check
from plastic_rl.config.signatures import arguments_of, model_of
from plastic_rl.errors import ConfigError, UnknownNameError, unknown_name_message
from plastic_rl.evaluation.classification import AccuracyAfter
from plastic_rl.evaluation.lifetimes import Lifetimes
from plastic_rl.evaluation.plots import read_metric
from plastic_rl.evaluation.stage_scores import StageScores
from plastic_rl.evaluation.statistics import mean_of_present
from plastic_rl.registry import Registry


class Measure:
    """Base of all measures; what one takes beside its name are the keyword-only arguments of its constructor."""


class LifetimeMeasure(Measure, ABC):
    """A number for each task, from the lifetime that an agent lived on it.

    Attributes:
        normalised: Whether the numbers are then put on the scale from the random agent's mean, 0, to the limit's, 1.
    """

    normalised: ClassVar[bool] = False

    @abstractmethod
    def by_task(self, lived: Lifetimes, accuracy: AccuracyAfter | None) -> FloatArray:
        """Return the numbers `(N,)`, NaN where a lifetime has none.

        Args:
            lived: `N` lifetimes.
            accuracy: Accuracies on held-out samples, where the tasks have any.
        """

    def problem(self, metadata: Mapping[str, Any]) -> str | None:
        """Tell why an environment of this `metadata` has no such numbers; None where it has."""
        return None


class Reading(NamedTuple):
    """What a training run says of itself.

    Attributes:
        value: The number.
        censored: Whether the true one is at least this: the run ended before it was known.
    """

    value: float
    censored: bool = False


class RunMeasure(Measure, ABC):
    """A number for each training run, from what it recorded in its folder."""

    @abstractmethod
    def of_run(self, folder: Path) -> Reading:
        """Read it.

        Raises:
            RunError: If the run recorded nothing of the kind.
        """

    def problem(self, config: Mapping[str, Any]) -> str | None:
        """Tell why a run of this `config` of an experiment records nothing of the kind; None where it does."""
        return None


MEASURES: Registry[type[Measure]] = Registry("measure")


class Total(LifetimeMeasure):
    """Sum of the lifetime's expected rewards (of its rewards where those are not known): the score of `evaluate`."""

    @override
    def by_task(self, lived: Lifetimes, accuracy: AccuracyAfter | None) -> FloatArray:
        return lived.totals


class NormalisedTotal(Total):
    """The score as share of the way from the random agent's mean, 0, to the limit's, 1, on the same tasks."""

    normalised = True


class LateScore(LifetimeMeasure):
    """Mean score of a trial in the last part of the lifetime (of a step where a trial has one).

    Args:
        share: Of its trials, or steps, from the last one back; at least one of them.
    """

    def __init__(self, *, share: Annotated[float, Field(gt=0, le=1)] = 0.1) -> None:
        self.share = share

    @override
    def by_task(self, lived: Lifetimes, accuracy: AccuracyAfter | None) -> FloatArray:
        table = _units(lived)
        counts = (~np.isnan(table)).sum(1, keepdims=True)
        late = np.arange(table.shape[1]) >= counts - np.maximum(np.round(counts * self.share), 1)
        return mean_of_present(np.where(late, table, np.nan), axis=1)


class Trials(LifetimeMeasure):
    """Mean score of a trial from one trial on, e.g. after a change of the task (of a step where a trial has one).

    Args:
        first: Number of the first trial, or step, that counts; the lifetime's first is 1.
        last: Number of the last; null: that of the lifetime.
    """

    def __init__(self, *, first: Annotated[int, Field(ge=1)], last: Annotated[int, Field(ge=1)] | None = None) -> None:
        if last is not None and last < first:
            raise ConfigError(f"last must be {first} (first) or more, got {last}")
        self.first, self.last = first, last

    @override
    def by_task(self, lived: Lifetimes, accuracy: AccuracyAfter | None) -> FloatArray:
        return mean_of_present(_units(lived)[:, self.first - 1 : self.last], axis=1)


class Adaptation(LifetimeMeasure):
    """Mean score of the last tenth of a lifetime's trials minus that of the first tenth."""

    @override
    def by_task(self, lived: Lifetimes, accuracy: AccuracyAfter | None) -> FloatArray:
        return lived.adaptation()


class EnvironmentMeasure(LifetimeMeasure):
    """What the environment measures beside the reward (a latency, the length of a path): mean over the lifetime.

    Args:
        of: Its name, as `plastic-rl envs show ID` has it.
    """

    def __init__(self, *, of: str) -> None:
        self.of = of

    @override
    def by_task(self, lived: Lifetimes, accuracy: AccuracyAfter | None) -> FloatArray:
        return mean_of_present(lived.measures[self.of], axis=1)

    @override
    def problem(self, metadata: Mapping[str, Any]) -> str | None:
        known = metadata.get("measures", {})
        return None if self.of in known else unknown_name_message("measure of the environment", self.of, known)


class Accuracy(LifetimeMeasure):
    """Share of a data set's held-out samples that are answered rightly, greedily, after a number of samples.

    Args:
        after: Number of samples, one of those that the environment asks after.
    """

    def __init__(self, *, after: Annotated[int, Field(ge=1)]) -> None:
        self.after = after

    @override
    def by_task(self, lived: Lifetimes, accuracy: AccuracyAfter | None) -> FloatArray:
        assert accuracy is not None  # `problem` sees to that
        return accuracy.accuracy[:, accuracy.samples.index(self.after)]

    @override
    def problem(self, metadata: Mapping[str, Any]) -> str | None:
        asked: tuple[int, ...] = metadata.get("accuracy_after", ())
        if self.after in asked:
            return None
        valid = f"valid: {', '.join(map(str, asked))}" if asked else "its tasks are no data sets"
        return f"the environment does not ask after {self.after} samples; {valid}"


class StepsToReach(RunMeasure):
    """Environment steps of training until the score on `valid` is high enough, as it was taken at checkpoints.

    A run that never got there counts with all its steps, and is named.

    Args:
        score: The score to reach.
    """

    def __init__(self, *, score: float) -> None:
        self.score = score

    @override
    def of_run(self, folder: Path) -> Reading:
        steps, scores = read_metric(folder / "metrics.csv", "valid/score")
        reached = np.flatnonzero(scores >= self.score)
        return Reading(float(steps[reached[0]])) if len(reached) else Reading(float(steps[-1]), censored=True)

    @override
    def problem(self, config: Mapping[str, Any]) -> str | None:
        taken = config["evaluation"]["valid_tasks"] > 0
        return None if taken else "is taken on valid: set evaluation.valid_tasks to 1 or more."


class StageScore(RunMeasure):
    """Score in the environment of one stage after the training of another, e.g. on A after B: what is not forgotten.

    Args:
        tested: Name of the stage in whose environment the agent lives; null: the mean over those of all stages, an
            environment that comes again counted once. Scores are as they are: of rewards of one size.
        trained: Name of the stage at whose end it is taken; null: the last one.
    """

    def __init__(self, *, tested: str | None = None, trained: str | None = None) -> None:
        self.tested, self.trained = tested, trained

    @override
    def of_run(self, folder: Path) -> Reading:
        return Reading(StageScores.load(folder / "stages.json").score(self.tested, self.trained))

    @override
    def problem(self, config: Mapping[str, Any]) -> str | None:
        stages = [stage["name"] for stage in config["stages"]]
        if not stages:
            return "is of the stages of training, and there are none: give the experiment `stages`."
        wanted = [name for name in (self.tested, self.trained) if name is not None]
        return next((unknown_name_message("stage", name, stages) for name in wanted if name not in stages), None)


def _units(lived: Lifetimes) -> FloatArray:
    """Scores of the lifetime's trials, or of its steps where these are its unit, `(N, units)`; NaN after its end."""
    return lived.trial_returns() if lived.unit == "trial" else lived.scores


def checked_measure(stated: Any) -> dict[str, Any]:
    """Return a measure as a config states it, a name or a name with options, with every default written out.

    Raises:
        ConfigError: With every problem at once.

    >>> checked_measure("late_score")
    {'name': 'late_score', 'share': 0.1}
    >>> checked_measure({"name": "trials", "first": 0})
    Traceback (most recent call last):
        ...
    plastic_rl.errors.ConfigError: trials.first: must be greater than or equal to 1, got 0.
    """
    document = {"name": stated} if isinstance(stated, str) else stated
    if not isinstance(document, Mapping) or not isinstance(document.get("name"), str):
        raise ConfigError(
            f"a measure is a name, or a name with options, e.g. {{name: trials, first: 11}}; got {stated!r:.80}. "
            f"Valid names: {', '.join(sorted(MEASURES))}."
        )
    name = str(document["name"])
    if name not in MEASURES:
        raise ConfigError(str(UnknownNameError(MEASURES.kind, name, MEASURES)))
    given = {key: value for key, value in document.items() if key != "name"}
    options, problems = check(measure_model(MEASURES[name]), given, prefix=[name])
    if options is None:
        raise ConfigError(" ".join(problems))
    resolved = {"name": name, **options.model_dump()}
    make_measure(resolved)
    return resolved


def measure_model(cls: type[Measure]) -> type[ConfigModel]:
    """The config model of a measure's options."""
    declared: Any = cls
    return model_of(f"{cls.__name__}Config", ConfigModel, arguments_of(declared, Measure).values(), doc=cls.__doc__)


def make_measure(document: Mapping[str, Any]) -> Measure:
    """Make a measure out of what `checked_measure` returned."""
    made: Any = MEASURES[document["name"]]
    measure: Measure = made(**{key: value for key, value in document.items() if key != "name"})
    return measure


def measure_text(document: Mapping[str, Any]) -> str:
    """A measure as a reader sees it.

    >>> measure_text({"name": "trials", "first": 11, "last": None}), measure_text({"name": "score"})
    ('trials (first 11)', 'score')
    """
    given = ", ".join(f"{key} {value}" for key, value in document.items() if key != "name" and value is not None)
    return f"{document['name']} ({given})" if given else str(document["name"])


MEASURES.register("score", Total)
MEASURES.register("normalised_score", NormalisedTotal)
MEASURES.register("late_score", LateScore)
MEASURES.register("trials", Trials)
MEASURES.register("adaptation", Adaptation)
MEASURES.register("environment", EnvironmentMeasure)
MEASURES.register("accuracy", Accuracy)
MEASURES.register("steps_to_reach", StepsToReach)
MEASURES.register("stage_score", StageScore)
