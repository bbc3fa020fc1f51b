"""Running a study: every training and measurement is a piece of work that is done once, in some process, and kept.

    runs/NAME/study.yaml                           what was fixed before the first run
    runs/NAME/QUESTION/SIDE/seed-S/                an ordinary run, and measured.json: what it was worth, by task
    runs/NAME/QUESTION/SIDE/tune-K/seed-S/         runs that chose settings
    runs/NAME/QUESTION/levels.json                 the random agent and the limit, by the same measure
    runs/NAME/study.txt, study.json, study.png     what came of it

Two sides with the same config and seed are one run, in the folder of the first; `measured.json` says which.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import yaml

from plastic_rl.arrays import FloatArray
from plastic_rl.checkpoint import write_atomically
from plastic_rl.checkpoint.files import remove_unfinished
from plastic_rl.config import ConfigModel, differences, dump, parse, read_mapping
from plastic_rl.engine import ENGINES, Engine
from plastic_rl.envs.plugins import load_plugins
from plastic_rl.errors import CheckpointError, ConfigError, NonFiniteError, RunError, TrainingInterrupted
from plastic_rl.evaluation import evaluate
from plastic_rl.evaluation.classification import AccuracyAfter
from plastic_rl.evaluation.lifetimes import Lifetimes
from plastic_rl.evaluation.measures import LifetimeMeasure, RunMeasure, StageScore, make_measure
from plastic_rl.evaluation.protocol import FROZEN, REFERENCE, SAMPLED
from plastic_rl.experiment.agents import find_agent, needs_plugins
from plastic_rl.experiment.config import EnvironmentConfig, ExperimentConfig, parse_experiment
from plastic_rl.experiment.folder import CONFIG, RunFolder, create_runs, is_name
from plastic_rl.experiment.pipeline import Say, finish
from plastic_rl.experiment.progress import PlainProgress
from plastic_rl.experiment.stages import score_stages, write_stages
from plastic_rl.experiment.studies.questions import SIDES, STUDY, Question, Study, identity
from plastic_rl.experiment.training import is_trained

MEASURED = "measured.json"
LEVELS = "levels.json"
FAILED = "failed.txt"
"""In the folder of a run: how its training failed, which it would do again."""
INTERVAL = 60.0
"""Seconds between the lines that say how far a training is."""


class Measured(ConfigModel):
    """What one training of one side of a question was worth."""

    run: str
    """The run that was measured, from the study's folder."""
    failed: str | None = None
    """Why there are no values."""
    values: tuple[float | None, ...] = ()
    """The measure on each task, null where a lifetime has none; a single value where it is one of the run itself."""
    censored: bool = False
    """Whether the true value is at least the one here."""
    frozen: tuple[float | None, ...] | None = None
    """The same for the same agent with its plasticity frozen; null where nothing in it is plastic."""

    def table(self) -> FloatArray:
        """The values, `(N,)`, NaN where there is none."""
        return np.array([math.nan if value is None else value for value in self.values])

    def frozen_mean(self) -> float:
        """Mean of the frozen twin over the tasks that have a value; NaN without one."""
        present = [value for value in self.frozen or () if value is not None]
        return float(np.mean(present)) if present else math.nan


class Levels(ConfigModel):
    """Means of the random agent and of the limit on the tasks of a question; null where none has a value."""

    random: float | None
    limit: float | None


class Asked(NamedTuple):
    """A measurement to be made, of a run or of reference agents, and where to keep it.

    `evaluation`: arguments of `evaluate` that the configs state.
    """

    target: Path
    measure: Mapping[str, Any]
    environment: Mapping[str, Any] | None
    split: str
    limit: str
    evaluation: Mapping[str, Any]


class Job(NamedTuple):
    """A piece of work: a run to be trained and measured; without a run, reference agents to be measured."""

    folder: Path
    run: str | None
    asked: tuple[Asked, ...] = ()
    plugins: tuple[str, ...] = ()


@dataclass
class Choice:
    """What tuning chose for a side.

    Attributes:
        scores: Mean best score on `valid` of each setting over its seeds; NaN where one of them failed.
        chosen: Number of the best one; None where all failed.
    """

    scores: list[float]
    chosen: int | None


@dataclass
class Places:
    """Which run of a study's folder has which config; new ones are made where they are first asked for."""

    folder: Path
    known: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for file in sorted([*self.folder.glob(f"*/*/seed-*/{CONFIG}"), *self.folder.glob(f"*/*/*/seed-*/{CONFIG}")]):
            place = file.parent.relative_to(self.folder).as_posix()
            self.known.setdefault(identity(RunFolder(file.parent).config()), place)

    def of(self, experiment: ExperimentConfig, wanted: str) -> str:
        """Where the run of an experiment is or is to be: at `wanted`, unless another place has the same."""
        return self.known.setdefault(identity(experiment), wanted)

    def make(self, experiment: ExperimentConfig, wanted: str) -> str:
        """As `of`, and the run is there afterwards.

        Raises:
            RunError: If something else is there.
        """
        place = self.of(experiment, wanted)
        if not (self.folder / place / CONFIG).is_file():
            if (self.folder / place / MEASURED).exists():
                raise RunError(f"{self.folder / place} has lost its run; remove the folder to train it anew.")
            create_runs(self.folder, place, {"": experiment})
        return place


def claim_folder(folder: Path, study: Study) -> None:
    """Make a study's folder, or refuse one that holds another study.

    What was fixed of a question stays as it is; questions may be added, and one whose folder is removed begins anew.

    Raises:
        RunError: Naming what differs.
    """
    fixed = {name: question.fixed() for name, question in study.questions.items()}
    file = folder / STUDY
    if folder.exists() and not file.is_file() and any(folder.iterdir()):
        raise RunError(
            f"{folder} exists already and is no study, and nothing is overwritten. Give the study another name with "
            "--name NAME."
        )
    begun: dict[str, Any] = {}
    if file.is_file():
        begun = {name: was for name, was in _recorded(file).items() if (folder / name).exists()}
    changes = []
    for name, was in begun.items():
        if name not in fixed:
            changes.append(f"questions.{name} is gone")
            continue
        found = differences(_with_defaults(was), parse(dump(fixed[name])), f"questions.{name}")
        changes += [f"{key}: {old!r} became {new!r}" for key, old, new in found]
    if changes:
        raise RunError(
            "\n".join(
                [
                    f"{folder} holds another study, and what was fixed before its first run stays:",
                    *(f"  {change}" for change in changes),
                    "Give the study another name with --name NAME, or remove a question's folder to begin it anew.",
                ]
            )
        )
    folder.mkdir(parents=True, exist_ok=True)
    remove_unfinished(folder)
    write_atomically(file, dump({"description": study.config.description, "questions": fixed}).encode("utf-8"))


def _recorded(file: Path) -> dict[str, Any]:
    questions = read_mapping(file).get("questions")
    if not isinstance(questions, dict) or not all(isinstance(one, dict) for one in questions.values()):
        raise RunError(f"{file} is not what a study recorded; give the study another name with --name NAME.")
    return questions


def _with_defaults(recorded: Mapping[str, Any]) -> dict[str, Any]:
    """A recorded question, with the defaults of keys that came into being after it was written."""
    sides: dict[str, Any] = {}
    for side in SIDES:
        try:
            sides[side] = parse(dump(parse_experiment(recorded.get(side, {})).to_mapping()))
        except (ConfigError, yaml.YAMLError):
            continue
    return {**recorded, **sides}


class Runner:
    """Does the work of some questions of a study, in several processes if asked to."""

    def __init__(
        self, folder: Path, questions: Iterable[Question], processes: int | None, plugins: Sequence[str], note: Say
    ) -> None:
        self.folder, self.questions = folder, list(questions)
        self.processes, self.plugins, self.note = processes, tuple(plugins), note
        self.places = Places(folder)

    def run(self) -> None:
        """Do what is not done yet: tune, then train and measure.

        Raises:
            PlasticRLError: What a piece of work raised, other than a network that became NaN or infinite: that is an
                outcome.
        """
        prepare = functools.partial(load_plugins, self.plugins)
        # Workers start with the first piece of work.
        with ENGINES["serial" if self.processes == 1 else "process"](workers=self.processes, prepare=prepare) as engine:
            for jobs in (self._tuning_jobs, lambda: [*self._final_jobs(), *self._level_jobs()]):
                self._do(jobs(), engine)

    def _tuning_jobs(self) -> list[Job]:
        jobs: dict[str, Job] = {}
        for question in self.questions:
            for experiment, wanted in tuning_runs(question):
                place = self.places.make(experiment, wanted)
                jobs.setdefault(place, Job(self.folder, place, (), self.plugins))
        return list(jobs.values())

    def _level_jobs(self) -> list[Job]:
        asked = [
            asked_of(question, self.folder / question.name / LEVELS)
            for question in self.questions
            if question.limit != "none"
        ]
        return [Job(self.folder, None, (one,), self.plugins) for one in asked]

    def _final_jobs(self) -> list[Job]:
        jobs: dict[str, Job] = {}
        for question in self.questions:
            for side in SIDES:
                chosen = choice(self.folder, self.places, question, side).chosen
                for seed in question.seeds if chosen is not None else ():
                    wanted = f"{question.name}/{side}/seed-{seed}"
                    place = self.places.make(question.experiment(side, chosen or 0, seed), wanted)
                    job = jobs.get(place, Job(self.folder, place, (), self.plugins))
                    asked = asked_of(question, self.folder / wanted / MEASURED)
                    jobs[place] = job._replace(asked=(*job.asked, asked))
        return list(jobs.values())

    def _do(self, jobs: Sequence[Job], engine: Engine) -> None:
        left = [job for job in jobs if not is_done(job)]
        if not left:
            return
        names = [job.run or str(job.asked[0].target.relative_to(self.folder)) for job in left]
        self.note(f"{len(left)} of {len(jobs)} to do: {names[0]}{f' to {names[-1]}' if len(names) > 1 else ''}")
        if self.processes == 1 or len(left) == 1:
            for job in left:
                do(job)
        else:
            engine.map(do_in_pool, left)


def tuning_runs(question: Question) -> list[tuple[ExperimentConfig, str]]:
    """The runs that choose settings, and where they go; none where nothing is tuned."""
    tune = question.config.tune
    return [
        (question.experiment(side, number, seed), f"{question.name}/{side}/tune-{number}/seed-{seed}")
        for side in SIDES
        for number in range(len(question.settings))
        for seed in (tune.seeds if tune is not None else ())
    ]


def choice(folder: Path, places: Places, question: Question, side: str) -> Choice:
    """What tuning chose for a side; a tie goes to the setting that was stated first.

    Raises:
        RunError: If a training that chooses is still to be done.
    """
    if question.config.tune is None:
        return Choice([], 0)
    scores = []
    for number in range(len(question.settings)):
        found = []
        for seed in question.config.tune.seeds:
            wanted = f"{question.name}/{side}/tune-{number}/seed-{seed}"
            place = places.of(question.experiment(side, number, seed), wanted)
            if not trained(Job(folder, place)):
                raise RunError(f"{folder / place} is not trained to its end yet.")
            run = RunFolder(folder / place)
            best = None if (run.path / FAILED).exists() else run.best_score()
            found.append(math.nan if best is None else best.valid_score)
        scores.append(float(np.mean(found)))
    return Choice(scores, None if np.isnan(scores).all() else int(np.nanargmax(scores)))


def asked_of(question: Question, target: Path) -> Asked:
    """The measurement that a question asks for, to be kept in `target`."""
    environment = None if question.environment is None else question.environment.model_dump(mode="json")
    stated = question.sides["with"][0].evaluation
    evaluation = {"seed": stated.seed, "batch_size": stated.batch_size, "tasks": question.config.tasks or stated.tasks}
    return Asked(target, question.config.measure, environment, question.split, question.limit, evaluation)


def is_done(job: Job) -> bool:
    """Whether nothing is left to do."""
    return trained(job) and all(asked.target.exists() for asked in job.asked)


def trained(job: Job) -> bool:
    """Whether the run, if there is one, is trained to its end, or failed."""
    if job.run is None:
        return True
    path = job.folder / job.run
    return (path / FAILED).exists() or is_trained(RunFolder(path), RunFolder(path).config())


def do_in_pool(job: Job) -> None:
    """As `do`, in a worker process, where being asked to stop is an error of the study."""
    try:
        do(job)
    except TrainingInterrupted as stop:
        raise RunError(str(stop)) from None


def do(job: Job) -> None:
    """Train a run as far as that is to be done, and measure it."""
    if job.run is None:
        for asked in job.asked:
            measure_levels(asked)
        return
    path = job.folder / job.run
    progress = PlainProgress(interval=INTERVAL, name=job.run)
    if not trained(job):
        try:
            finish([RunFolder(path)], plugins=job.plugins, say=lambda _: None, progress=progress)
        except NonFiniteError as error:
            write_atomically(path / FAILED, f"{error}\n".encode())
            progress.say(f"failed: {error}")
    for asked in job.asked:
        if asked.target.exists():
            continue
        found = measure(RunFolder(path), job, asked)
        asked.target.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(asked.target, f"{found.model_dump_json()}\n".encode())
        progress.say(f"failed: {found.failed}" if found.failed else "measured")


def measure(run: RunFolder, job: Job, asked: Asked) -> Measured:
    """Measure a trained run, and its frozen twin if it has one."""
    place = run.path.relative_to(job.folder).as_posix()
    failed = run.path / FAILED
    if failed.exists():
        return Measured(run=place, failed=failed.read_text(encoding="utf-8").strip())
    measure = make_measure(asked.measure)
    try:
        if isinstance(measure, StageScore) and not run.stages.exists():
            write_stages(score_stages(run), run.stages)
        if isinstance(measure, RunMeasure):
            value, censored = measure.of_run(run.path)
            return Measured(run=place, values=(value,), censored=censored)
        assert isinstance(measure, LifetimeMeasure)
        agent = find_agent(run.path, plugins=job.plugins)
        # As in training: with another number of threads the last bits, and with them sampled actions, may differ.
        torch.set_num_threads(agent.config.torch_threads)
        found = lived_by(agent.load(), asked, measure)
    except NonFiniteError as error:
        return Measured(run=place, failed=str(error))
    frozen = found.get(FROZEN)
    return Measured(run=place, values=_plain(found[SAMPLED]), frozen=None if frozen is None else _plain(frozen))


def measure_levels(asked: Asked) -> None:
    """Measure the random agent and the limit on the tasks of a question, as `evaluate` has them beside an agent."""
    measure = make_measure(asked.measure)
    if asked.target.exists() or not isinstance(measure, LifetimeMeasure):
        return
    environment = EnvironmentConfig.model_validate(asked.environment)
    references = environment.distribution().reference_agents(asked.split)
    found = lived_by(references["random"], asked, measure, {name: references[name] for name in ("random", asked.limit)})
    levels = Levels(random=_mean(found[f"{REFERENCE}random"]), limit=_mean(found[f"{REFERENCE}{asked.limit}"]))
    asked.target.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(asked.target, f"{levels.model_dump_json()}\n".encode())


def lived_by(
    agent: Any, asked: Asked, measure: LifetimeMeasure, others: Mapping[str, Any] | None = None
) -> dict[str, FloatArray]:
    """The measure by task `(N,)` of an agent, of its frozen twin, and of others; as in `evaluate`, with its seeds."""
    found: dict[str, FloatArray] = {}

    def keep(key: str, lived: Lifetimes, accuracy: AccuracyAfter | None) -> None:
        found[key] = measure.by_task(lived, accuracy)

    environment = EnvironmentConfig.model_validate(asked.environment)
    evaluate(
        agent,
        environment.id,
        splits=[asked.split],
        **environment.options,
        **asked.evaluation,
        greedy=False,
        references=False,
        extra_agents=others,
        resamples=1,
        keep=keep,
    )
    return found


def _plain(values: FloatArray) -> tuple[float | None, ...]:
    return tuple(None if math.isnan(value) else value for value in values.tolist())


def _mean(values: FloatArray) -> float | None:
    present = values[~np.isnan(values)]
    return float(present.mean()) if len(present) else None


def read(path: Path, model: type[Any]) -> Any:
    """Read a file of the study's own.

    Raises:
        CheckpointError: If it is damaged.
    """
    try:
        return model.model_validate_json(path.read_bytes())
    except ValueError as error:
        raise CheckpointError(f"{path} is damaged ({error}); remove it, and it is made anew.") from None


def study_folder(path: str | Path, name: str | None, runs_folder: str | Path) -> Path:
    """Where the runs of a study go.

    Raises:
        RunError: If its name is no good as a folder's.
    """
    place = Path(path).resolve()
    chosen = name or (place.parent.name if place.name == STUDY else place.stem if place.is_file() else place.name)
    if not is_name(chosen):
        raise RunError(f"{chosen!r} is no good as the name of a study: use letters, digits, '.', '_', '+' and '-'.")
    return Path(runs_folder) / chosen


def check_plugins(study: Study, plugins: Sequence[str], source: str) -> None:
    """Refuse to go on without the plugins that configs name.

    Raises:
        PluginError: Naming them.
    """
    for question in study.questions.values():
        for side in SIDES:
            needs_plugins(question.sides[side][0].plugins, plugins, source)
