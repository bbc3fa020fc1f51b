"""What a study asks, and what has to be trained for it: from `study.yaml` to experiments, all problems told at once."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, field_validator

from plastic_rl.config import ConfigModel, apply_overrides, check, describe, merge, read_mapping
from plastic_rl.envs import make_vector
from plastic_rl.errors import ConfigError, PlasticRLError, UnknownNameError
from plastic_rl.evaluation.measures import (
    LifetimeMeasure,
    Measure,
    RunMeasure,
    StageScore,
    checked_measure,
    make_measure,
)
from plastic_rl.experiment.config import EnvironmentConfig, ExperimentConfig, Seeds, parse_experiment
from plastic_rl.experiment.folder import is_name
from plastic_rl.experiment.pipeline import check_experiment
from plastic_rl.experiment.training import own_config

STUDY = "study.yaml"
SIDES = ("with", "without")
CHOSEN_ON = ("train", "valid")
"""Splits that training and its choices look at, so that no question is asked of them."""


def _side(stated: Any) -> Any:
    if isinstance(stated, str) or (isinstance(stated, Mapping) and all(isinstance(key, str) for key in stated)):
        return stated
    raise ValueError(f"must be a config file, or a mapping of an experiment's keys, got {stated!r:.80}")


class TuningConfig(ConfigModel):
    """Settings that are tried for both sides alike; each side keeps those with the best mean score on `valid`."""

    grid: dict[str, Annotated[tuple[Any, ...], Field(min_length=1)]] = Field(min_length=1)
    """Values to try by dotted key of the experiment, e.g. `{algorithm.learning_rate: [2e-3, 5e-3, 1e-2]}`: all
    combinations."""
    seeds: Seeds = (1000,)
    """Seeds of these trainings: none of those that the answer is made of."""


class QuestionConfig(ConfigModel):
    """Does a mechanism help? Two sides, trained and measured alike, and what is claimed of them before any run."""

    claim: str
    """What is claimed, in a sentence."""
    kind: str = ""
    """Kind of mechanism (of plasticity), e.g. `neuromodulation`."""
    with_: Annotated[Any, AfterValidator(_side)] = Field(alias="with")
    """The experiment with the mechanism: a config file (beside the study, or from the working directory), or a mapping
    of an experiment's keys, in which `base: FILE` names a config that the others are changes of."""
    without: Annotated[Any, AfterValidator(_side)]
    """The one without: a config file, or a mapping as above; without `base` it holds changes of `with`."""
    measure: dict[str, Any] = Field(default_factory=lambda: checked_measure("normalised_score"))
    """What the sides are compared by: a name (see `plastic-rl config study`), or a name with options, e.g.
    `{name: trials, first: 11}`."""
    direction: Literal["greater", "less"] = "greater"
    """Whether `with` is claimed to have the greater or the lesser measure."""
    split: str | None = None
    """Split whose tasks are lived: test, holdout or shift; null: test."""
    tasks: int | None = Field(default=None, ge=1)
    """Number of tasks; null: as the configs have it."""
    environment: dict[str, Any] = Field(default_factory=dict)
    """Changes of the environment in which both sides are measured, e.g. `{wrappers: [{name: lesion, share: 0.25}]}`."""
    seeds: Seeds | None = None
    """Training seeds of each side, instead of the study's."""
    tune: TuningConfig | None = None
    """Settings to try for both sides on `valid` first."""

    @field_validator("measure", mode="before")
    @classmethod
    def _known_measure(cls, stated: Any) -> dict[str, Any]:
        return checked_measure(stated)


class StudyConfig(ConfigModel):
    """Questions about mechanisms, answered together: several seeds each, tests corrected for their number."""

    description: str = ""
    """What is studied, in a sentence."""
    seeds: Seeds = (0, 1, 2, 3, 4)
    """Training seeds of each side of each question: two or more, 5 where a run takes minutes or less."""
    questions: dict[str, QuestionConfig] = Field(min_length=1)
    """The questions by name."""


@dataclass(frozen=True)
class Question:
    """A question with all that it takes to answer it.

    Attributes:
        name: Its name, and that of its folder.
        config: As it was stated.
        seeds: Training seeds of each side.
        settings: What tuning tries, as overrides of the experiment; one empty set where nothing is tuned.
        sides: The experiment of each side with each of these settings.
        measure: What the sides are compared by.
        environment: Where they are measured; None where the runs themselves are.
        split: Whose tasks are lived then.
        limit: The reference agent that is the limit there, or `none`.
    """

    name: str
    config: QuestionConfig
    seeds: tuple[int, ...]
    settings: tuple[tuple[str, ...], ...]
    sides: Mapping[str, tuple[ExperimentConfig, ...]]
    measure: Measure
    environment: EnvironmentConfig | None
    split: str
    limit: str

    def experiment(self, side: str, chosen: int, seed: int) -> ExperimentConfig:
        """The experiment of a side with the settings of that number."""
        return self.sides[side][chosen].model_copy(update={"seed": seed})

    def fixed(self) -> dict[str, Any]:
        """All that must not change once the first run has begun, as plain data."""
        sides = {side: self.sides[side][0].model_copy(update={"seed": 0}).to_mapping() for side in SIDES}
        stated = self.config.model_dump(mode="json", by_alias=True)
        return {**stated, "split": self.split, "seeds": list(self.seeds), **sides}


@dataclass(frozen=True)
class Study:
    """A study, its questions resolved."""

    config: StudyConfig
    questions: Mapping[str, Question]


def identity(experiment: ExperimentConfig) -> str:
    """SHA-256 of all that a run's bytes depend on: runs of one identity are one run."""
    return hashlib.sha256(json.dumps(own_config(experiment), sort_keys=True).encode()).hexdigest()


def load_study(path: str | Path, overrides: Sequence[str] = (), *, plugins: Sequence[str] = ()) -> Study:
    """Read a study from a folder with a `study.yaml`, or from such a file.

    Args:
        path: The folder or file.
        overrides: Changes such as `seeds=[0,1,2]` or `questions.NAME.tasks=100`.
        plugins: Those that have been loaded; they are recorded in every run.

    Raises:
        ConfigError: With every problem of all files at once; nothing has been trained then.
    """
    file = Path(path) / STUDY if Path(path).is_dir() else Path(path)
    given = apply_overrides(read_mapping(file), overrides)
    if "questions" not in given and {"environment", "variants"} & set(given):
        verb = "compare" if "variants" in given else "train"
        raise ConfigError(f"{file} is no study; run it with: plastic-rl {verb} {file}")
    config, problems = check(StudyConfig, given)
    if config is None:
        raise ConfigError(describe(problems, str(file)))
    questions = {}
    for name, stated in config.questions.items():
        asked = _Asking(name, stated, stated.seeds or config.seeds, file.parent, plugins)
        question = asked.resolved()
        problems += asked.problems
        if question is not None:
            questions[name] = question
    if problems:
        raise ConfigError(describe(list(dict.fromkeys(problems)), str(file)))
    return Study(config, questions)


class _Asking:
    """One question on its way from what was stated to what can be run, and the problems met."""

    def __init__(
        self, name: str, stated: QuestionConfig, seeds: tuple[int, ...], beside: Path, plugins: Sequence[str]
    ) -> None:
        self.name, self.stated, self.seeds, self.beside, self.plugins = name, stated, seeds, beside, plugins
        self.problems: list[str] = []

    def problem(self, key: str, *texts: str) -> None:
        """Note problems of one of the question's keys."""
        self.problems += [f"questions.{self.name}{f'.{key}' if key else ''}: {text}" for text in texts]

    def resolved(self) -> Question | None:
        """The question; None where there are problems."""
        self._check_names()
        tune = self.stated.tune
        grid = {} if tune is None else tune.grid
        settings = tuple(
            tuple(f"{key}={json.dumps(value)}" for key, value in zip(grid, values, strict=True))
            for values in itertools.product(*grid.values())
        )
        whole = self._mappings()
        sides = {side: self._experiments(side, mapping, settings) for side, mapping in whole.items()}
        if self.problems or set(sides) != set(SIDES):
            return None
        firsts = [sides[side][0] for side in SIDES]
        if identity(firsts[0]) == identity(firsts[1]):
            self.problem("without", "is the same experiment as `with`, so that there is nothing to ask.")
        if tune is not None and any(first.evaluation.valid_tasks < 1 for first in firsts):
            self.problem("tune", "settings are chosen on valid: set evaluation.valid_tasks to 1 or more.")
        measure = make_measure(self.stated.measure)
        environment, split, limit = self._measured_in(measure, firsts)
        if self.problems:
            return None
        return Question(self.name, self.stated, self.seeds, settings, sides, measure, environment, split, limit)

    def _check_names(self) -> None:
        if not is_name(self.name):
            self.problem("", "a question's name is that of a folder: use letters, digits, '.', '_', '+' and '-'.")
        if len(self.seeds) < 2:
            self.problem("seeds", f"one training says nothing about another: give two or more, got {self.seeds[0]}.")
        tune = self.stated.tune
        both = sorted(set(self.seeds) & set(tune.seeds)) if tune is not None else []
        if both:
            seeds = ", ".join(map(str, both))
            self.problem("tune.seeds", f"the answer is made of other seeds than those that chose; both have {seeds}.")

    def _mappings(self) -> dict[str, dict[str, Any]]:
        """What the experiment of each side is, before tuning."""
        found: dict[str, dict[str, Any]] = {}
        for side, stated in zip(SIDES, (self.stated.with_, self.stated.without), strict=True):
            try:
                found[side] = self._mapping(stated, found.get("with"))
            except ConfigError as error:
                self.problem(side, str(error))
                break
        return found

    def _mapping(self, stated: Any, start: Mapping[str, Any] | None) -> dict[str, Any]:
        if isinstance(stated, str):
            return self._read(stated)
        changes = {key: value for key, value in stated.items() if key != "base"}
        return merge(self._read(stated["base"]) if "base" in stated else start or {}, changes)

    def _read(self, file: Any) -> dict[str, Any]:
        if not isinstance(file, str):
            raise ConfigError(f"base must be the name of a config file, got {file!r:.80}.")
        beside = self.beside / file
        return read_mapping(beside if beside.exists() or not Path(file).exists() else file)

    def _experiments(
        self, side: str, mapping: Mapping[str, Any], settings: Iterable[Sequence[str]]
    ) -> tuple[ExperimentConfig, ...]:
        made: list[ExperimentConfig] = []
        for each in settings:
            try:
                experiment = parse_experiment(_as_run(apply_overrides(mapping, each), self.plugins))
                if experiment not in made:
                    check_experiment(experiment)
                made.append(experiment)
            except PlasticRLError as error:
                _, *several = str(error).splitlines()
                told = [line.strip() for line in several] or [str(error)]
                self.problem(side, *(f"{line} (with {' '.join(each)})" if each else line for line in told))
        return tuple(made)

    def _measured_in(
        self, measure: Measure, firsts: Sequence[ExperimentConfig]
    ) -> tuple[EnvironmentConfig | None, str, str]:
        """Where both sides are measured, on which split, and what is the limit there."""
        for key in ("seed", "batch_size", "tasks", "valid_tasks"):
            one, other = (getattr(first.evaluation, key) for first in firsts)
            if one != other:
                self.problem("without", f"evaluation.{key} must be that of `with`, {one!r}, got {other!r}.")
        split = self.stated.split or "test"
        if not isinstance(measure, LifetimeMeasure):
            for key in ("split", "tasks", "environment"):
                if getattr(self.stated, key):
                    self.problem(key, f"{self.stated.measure['name']} is read from the training runs: leave it out.")
            assert isinstance(measure, RunMeasure)
            found = [problem for first in firsts if (problem := measure.problem(first.to_mapping())) is not None]
            self.problem("measure", *found)
            if isinstance(measure, StageScore) and not found:
                self._check_stage(measure, firsts)
            return None, split, "none"
        environment = self._environment(firsts)
        return environment, split, "none" if environment is None else self._limit(measure, environment, split)

    def _check_stage(self, measure: StageScore, firsts: Sequence[ExperimentConfig]) -> None:
        """Refuse sides that are tested apart, or on tasks that training and its choices look at."""
        names = [[stage.name for stage in first.stages] for first in firsts]
        if measure.tested is None and names[0] != names[1]:
            self.problem(
                "measure", f"the stages of `without` are {', '.join(names[1])}, of `with` {', '.join(names[0])}."
            )
            return
        for tested in names[0] if measure.tested is None else (measure.tested,):
            places = [first.in_stage(own.index(tested)).environment for first, own in zip(firsts, names, strict=True)]
            if places[0] != places[1]:
                self.problem("measure", f"stage {tested} is in another environment in `without` than in `with`.")
                return
        split, other = (first.evaluation.splits[0] for first in firsts)
        if split != other:
            self.problem("without", f"stages are scored on the split {split} of `with`, got {other}.")
        elif split in CHOSEN_ON:
            self.problem("measure", f"training and its choices look at {split}: let evaluation.splits begin with test.")

    def _environment(self, firsts: Sequence[ExperimentConfig]) -> EnvironmentConfig | None:
        places = []
        for first in firsts:
            mapping = merge(first.environment.model_dump(mode="json"), self.stated.environment)
            place, problems = check(EnvironmentConfig, mapping)
            self.problem("environment", *problems)
            places.append(place)
        if places[0] != places[1]:
            self.problem(
                "environment", "the sides live in different environments, and are measured in one: name its keys here."
            )
        return places[0]

    def _limit(self, measure: LifetimeMeasure, environment: EnvironmentConfig, split: str) -> str:
        """The limit on a split of an environment that has what is measured."""
        try:
            distribution = environment.distribution()
            made = make_vector(environment.id, 1, **environment.options)
        except (PlasticRLError, TypeError, ValueError) as error:
            self.problem("environment", str(error))
            return "none"
        with closing(made) as env:
            problem = measure.problem(env.metadata)
        if problem is not None:
            self.problem("measure", problem)
        if split in CHOSEN_ON:
            self.problem("split", f"training and its choices look at {split}: ask of test, holdout or shift.")
        elif split not in distribution.splits:
            self.problem("split", str(UnknownNameError(f"split of {distribution.family}", split, distribution.splits)))
            return "none"
        limit = distribution.limit_of(split)
        if measure.normalised and limit == "none":
            self.problem("measure", f"{distribution.family} has no known limit to normalise by: take `score`.")
        return limit


def _as_run(mapping: Mapping[str, Any], plugins: Sequence[str]) -> dict[str, Any]:
    """An experiment as a run of a study, which measures it, and has other trainings for other processes."""
    changes: dict[str, Any] = {
        "description": "",
        "seed": 0,
        "plugins": list(dict.fromkeys([*(mapping.get("plugins") or []), *plugins])),
        "evaluation": {"final": False, "baselines": []},
    }
    algorithm = mapping.get("algorithm")
    if isinstance(algorithm, Mapping) and "engine" in algorithm:
        changes["algorithm"] = {"engine": "serial"}
    return merge(mapping, changes)
