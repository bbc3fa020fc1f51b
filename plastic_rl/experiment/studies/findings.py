"""What came of a study: the difference of each question's sides with its test, a verdict in words, table and JSON."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from gymnasium.envs.registration import parse_env_id

from plastic_rl.arrays import FloatArray
from plastic_rl.checkpoint import library_versions
from plastic_rl.envs.wrappers import made_with
from plastic_rl.errors import RunError
from plastic_rl.evaluation.measures import LifetimeMeasure, measure_text
from plastic_rl.evaluation.plots import LabelledDifference
from plastic_rl.evaluation.statistics import CONFIDENCE, Difference, crossed_difference, holm
from plastic_rl.evaluation.table import Column, fit, folded
from plastic_rl.experiment.folder import RunFolder
from plastic_rl.experiment.metrics import CPU, ELAPSED, clock
from plastic_rl.experiment.studies.questions import SIDES, Question, Study, identity
from plastic_rl.experiment.studies.running import LEVELS, MEASURED, Choice, Levels, Measured, Places, choice, read

HELPS, HURTS, NOTHING, UNDECIDED, NOT_RUN = "helps", "hurts", "no difference shown", "undecided", "not run"
NO_DIFFERENCE = Difference(math.nan, math.nan, math.nan, math.nan, math.nan)
LEAST_WAY = 0.05
"""Of the larger mean: where the limit is closer to the random agent, the measure does not tell them apart."""
WIDTH = 80
"""Columns of `study.txt`."""


@dataclass(frozen=True)
class Run:
    """One training of a side: its seed, what it was worth, and what it cost.

    Attributes:
        seed: Training seed.
        measured: What it was worth.
        valid_score: Best score on `valid`, which chose the checkpoint; NaN without one.
        steps: Environment steps of training.
        seconds: Clock time of training, with the choice of checkpoints; NaN where it was not logged.
        cpu_seconds: Processor time of the same.
    """

    seed: int
    measured: Measured
    valid_score: float
    steps: float
    seconds: float
    cpu_seconds: float


@dataclass(frozen=True)
class Side:
    """One side of a question.

    Attributes:
        config_hash: Identity of its experiment with seed 0 and the settings chosen.
        settings: The settings that tuning chose, as overrides.
        choice: How all of them did.
        runs: Its trainings by seed; empty where all tuning failed.
        mean: Of the measure over runs and tasks; NaN where one failed.
        frozen: The same of the frozen twins; NaN without them.
    """

    config_hash: str
    settings: tuple[str, ...]
    choice: Choice
    runs: tuple[Run, ...]
    mean: float
    frozen: float

    @property
    def failures(self) -> list[str]:
        """What failed, by seed."""
        if not self.runs:
            return ["no settings could be trained"]
        return [f"seed {run.seed}: {run.measured.failed}" for run in self.runs if run.measured.failed]

    def cost(self, name: Literal["steps", "seconds", "cpu_seconds"]) -> float:
        """Mean cost of a run; NaN where it is not known of any."""
        known = [cost for run in self.runs if not math.isnan(cost := getattr(run, name))]
        return float(np.mean(known)) if known else math.nan


@dataclass(frozen=True)
class Finding:
    """The answer to a question.

    Attributes:
        question: What was asked.
        sides: Its sides; none while it has not been run to the end.
        difference: With minus without, and its test.
        corrected: The p-value, corrected for the number of questions; NaN without a test.
        verdict: In words.
        tasks: On how many tasks, each of which has a value in all runs.
        left_out: Tasks that some run has no value for.
        levels: The random agent and the limit by the same measure, where they are known.
    """

    question: Question
    sides: Mapping[str, Side]
    difference: Difference = NO_DIFFERENCE
    corrected: float = math.nan
    verdict: str = NOT_RUN
    tasks: int = 0
    left_out: int = 0
    levels: Levels | None = None

    @property
    def scale(self) -> tuple[float, str]:
        """What a difference of 1 is on the scale that all questions share, and what that is."""
        if getattr(self.question.measure, "normalised", False):
            return 1.0, "limit"
        largest = max((abs(side.mean) for side in self.sides.values()), default=math.nan)
        if self.levels is not None and self.levels.random is not None and self.levels.limit is not None:
            way = abs(self.levels.limit - self.levels.random)
            if way > LEAST_WAY * largest:
                return way, "limit"
        return largest or math.nan, "larger mean"


def verdict_of(difference: float, corrected: float, direction: str) -> str:
    """Say what a test says.

    `corrected`: the p-value after Holm; NaN where there is none. `direction`: the one claimed, greater or less.

    >>> verdict_of(-0.2, 0.01, "less"), verdict_of(-0.2, 0.01, "greater"), verdict_of(-0.2, 0.06, "less")
    ('helps', 'hurts', 'no difference shown')
    """
    if math.isnan(corrected):
        return UNDECIDED
    if corrected >= 1.0 - CONFIDENCE:
        return NOTHING
    return HELPS if (difference > 0) == (direction == "greater") else HURTS


def find(folder: Path, study: Study) -> list[Finding]:
    """Answer the questions of a study as far as they have been run, corrected for the number of all of them."""
    places = Places(folder)
    findings = [_uncorrected(folder, places, question) for question in study.questions.values()]
    corrected = holm([finding.difference.p for finding in findings])
    return [
        finding
        if finding.verdict == NOT_RUN
        else replace(
            finding,
            corrected=float(p),
            verdict=verdict_of(finding.difference.mean, float(p), finding.question.config.direction),
        )
        for finding, p in zip(findings, corrected, strict=True)
    ]


def _uncorrected(folder: Path, places: Places, question: Question) -> Finding:
    levels_file = folder / question.name / LEVELS
    levels = read(levels_file, Levels) if levels_file.exists() else None
    try:
        sides = {side: _side(folder, places, question, side, levels) for side in SIDES}
    except _NotRunError:
        return Finding(question, {})
    finding = Finding(question, sides, verdict=UNDECIDED, levels=levels)
    if any(side.failures for side in sides.values()):
        return finding
    one, other = (_table(sides[side].runs, question, levels) for side in SIDES)
    present = ~(np.isnan(one).any(0) | np.isnan(other).any(0))
    finding = replace(finding, tasks=int(present.sum()), left_out=int((~present).sum()))
    if not present.any():
        return finding
    means = {"with": float(one[:, present].mean()), "without": float(other[:, present].mean())}
    sides = {name: replace(side, mean=means[name]) for name, side in sides.items()}
    return replace(finding, sides=sides, difference=crossed_difference(one[:, present], other[:, present]))


class _NotRunError(Exception):
    """A run or measurement of a question is still to be done."""


def _side(folder: Path, places: Places, question: Question, side: str, levels: Levels | None) -> Side:
    try:
        chosen = choice(folder, places, question, side)
    except RunError:
        raise _NotRunError from None
    number = chosen.chosen or 0
    runs = []
    for seed in question.seeds if chosen.chosen is not None else ():
        measured = folder / question.name / side / f"seed-{seed}" / MEASURED
        if not measured.exists():
            raise _NotRunError
        runs.append(_run(folder, seed, read(measured, Measured)))
    frozen = np.array([run.measured.frozen_mean() for run in runs])
    return Side(
        config_hash=identity(question.experiment(side, number, 0)),
        settings=question.settings[number],
        choice=chosen,
        runs=tuple(runs),
        mean=math.nan,
        frozen=float(_scaled(frozen, question, levels).mean()) if runs else math.nan,
    )


def _run(folder: Path, seed: int, measured: Measured) -> Run:
    run = RunFolder(folder / measured.run)
    best = run.best_score()
    costs = {}
    for column in (ELAPSED, CPU):
        try:
            costs[column] = clock(run.path / "timing.csv", column)
        except RunError:
            costs[column] = (np.array([math.nan]), np.array([math.nan]))
    return Run(
        seed=seed,
        measured=measured,
        valid_score=math.nan if best is None else best.valid_score,
        steps=float(costs[ELAPSED][0][-1]),
        seconds=float(costs[ELAPSED][1][-1]),
        cpu_seconds=float(costs[CPU][1][-1]),
    )


def _table(runs: Sequence[Run], question: Question, levels: Levels | None) -> FloatArray:
    """The measure by seed and task, `(S, N)`."""
    return _scaled(np.stack([run.measured.table() for run in runs]), question, levels)


def _scaled(values: FloatArray, question: Question, levels: Levels | None) -> FloatArray:
    """Put values on the scale from the random agent to the limit, where the measure asks for that.

    Both means are taken as known: of the ratio's spread over tasks, theirs is left out.
    """
    if not isinstance(question.measure, LifetimeMeasure) or not question.measure.normalised:
        return values
    way = math.nan
    if levels is not None and levels.random is not None and levels.limit is not None and levels.limit > levels.random:
        way = levels.limit - levels.random
        values = values - levels.random
    return values / way


def labelled(findings: Sequence[Finding]) -> list[LabelledDifference]:
    """The answers as the picture shows them: towards the claim, on the scale that all share."""
    rows = []
    for finding in findings:
        question, (scale, of) = finding.question, finding.scale
        sign = 1 if question.config.direction == "greater" else -1
        low, high = sorted(sign * end / scale for end in (finding.difference.low, finding.difference.high))
        means = [_number(side.mean, _decimals(finding)) for side in finding.sides.values()]
        rows.append(
            LabelledDifference(
                label=_title(question),
                detail=f"{_task(question)}, {measure_text(question.config.measure)}{'' if of == 'limit' else ' *'}",
                mean=sign * finding.difference.mean / scale,
                low=low,
                high=high,
                verdict=finding.verdict,
                note=" | ".join(means),
            )
        )
    return rows


# --- the table -------------------------------------------------------------------------------------------------------


def study_table(study: Study, findings: Sequence[Finding], *, width: int | None = WIDTH) -> str:
    """The answers as plain text, no line longer than `width`; None: as wide as it takes."""
    lines = folded(study.config.description, width) if study.config.description else []
    cells = [_cells(finding) for finding in findings]
    columns = [Column(heading, [row[heading] for row in cells]) for heading in cells[0]]
    blocks, _ = fit(Column("question", [finding.question.name for finding in findings]), columns, width)
    tables = ["\n".join([*block.header, *itertools.chain(*block.rows)]) for block in blocks]
    lines += ["", "\n\n".join(tables), ""]
    for finding in findings:
        first, *more = _paragraph(finding)
        lines += folded(first, width)
        for line in more:
            lines += [f"  {part}" for part in folded(line, None if width is None else width - 2)]
    lines.append("")
    for note in _notes(findings):
        lines += folded(note, width)
    return "\n".join(lines).strip("\n")


def _cells(finding: Finding) -> dict[str, str]:
    places, sides, difference = _decimals(finding), list(finding.sides.values()), finding.difference
    interval = f"[{difference.low:+.{places}f}, {difference.high:+.{places}f}]"

    def both(numbers: Sequence[float], digits: int) -> str:
        return " | ".join(_number(number, digits) for number in numbers) or "-"

    return {
        "with | without": both([side.mean for side in sides], places),
        "frozen": both([side.frozen for side in sides], places),
        "difference": "-" if math.isnan(difference.mean) else f"{difference.mean:+.{places}f}",
        "95% interval": "-" if math.isnan(difference.low) else interval,
        "p": _p(difference.p),
        "Holm p": _p(finding.corrected),
        "verdict": finding.verdict,
        "s/run": both([side.cost("seconds") for side in sides], 0),
        "CPU s/run": both([side.cost("cpu_seconds") for side in sides], 0),
    }


def _paragraph(finding: Finding) -> list[str]:
    question = finding.question
    lines = [f"{_title(question)}: {question.config.claim}"]
    where = "training runs" if question.environment is None else _place(finding)
    lines.append(f"{measure_text(question.config.measure)}, claimed {question.config.direction}; {where}")
    lines.append(f"{finding.verdict}{_because(finding)}")
    for name, side in finding.sides.items():
        if any(side.settings):
            lines.append(f"{name}: {', '.join(side.settings)}, chosen of {len(side.choice.scores)} on valid")
        lines += [f"{name} failed, {failure}" for failure in side.failures]
        censored = [str(run.seed) for run in side.runs if run.measured.censored]
        if censored:
            lines.append(f"{name}: not reached by seed {', '.join(censored)}, which counts with all its steps")
    return lines


def _title(question: Question) -> str:
    """The name of a question, and the kind that it is about where that says more."""
    name, kind = question.name, question.config.kind
    return f"{name} ({kind})" if kind and kind.lower() != name.lower() else name


def _task(question: Question) -> str:
    """The task that it is asked on: its id without module, namespace and version."""
    environment = question.environment or question.sides["with"][0].environment
    return parse_env_id(environment.id.rpartition(":")[2])[1]


def _place(finding: Finding) -> str:
    question = finding.question
    assert question.environment is not None
    own = question.environment
    text = made_with(own.kwargs, own.trials, own.same_task_each_trial, own.wrappers)
    made = f" ({text})" if text else ""
    left_out = f" ({finding.left_out} left out, without a value in some run)" if finding.left_out else ""
    tasks = f", {finding.tasks:,} tasks{left_out}" if finding.tasks or finding.left_out else ""
    return f"{own.id}{made}, {question.split}{tasks}, {len(question.seeds)} seeds"


def _because(finding: Finding) -> str:
    if finding.verdict in {HELPS, HURTS}:
        more = "more" if finding.difference.mean > 0 else "less"
        return f": with has {more}, corrected p {_p(finding.corrected)}"
    if finding.verdict == UNDECIDED:
        failed = any(side.failures for side in finding.sides.values())
        spread = not math.isnan(finding.difference.mean)
        return (
            ": a side failed"
            if failed
            else f": {'no spread between runs, so no test' if spread else 'no task has a value in all runs'}"
        )
    return ""


def _notes(findings: Sequence[Finding]) -> list[str]:
    made = sum(not math.isnan(finding.difference.p) for finding in findings)
    so_far = "" if made == len(findings) else f", {made} of which could be tested so far"
    notes = [
        (
            "difference: with minus without; 95% interval and p: Student t with seeds and tasks as crossed random "
            "effects, paired on tasks, seeds of each side on their own. It takes the means of seeds as normal: where "
            "one training in ten does not learn, few seeds may show none of them."
        ),
        f"Holm p: corrected for {len(findings)} questions{so_far}; helps or hurts where it is below .05.",
        "frozen: the same agents, plasticity held still. s/run: seconds of a training with its scores on valid.",
    ]
    if any(finding.question.config.measure["name"] == "normalised_score" for finding in findings):
        notes.append("normalised_score: 0 is acting at random, 1 the limit.")
    return notes


def _decimals(finding: Finding) -> int:
    size = max((abs(side.mean) for side in finding.sides.values() if not math.isnan(side.mean)), default=0.0)
    return 0 if size >= 1000 else 1 if size >= 100 else 2 if size >= 10 else 3


def _number(value: float, places: int) -> str:
    return "-" if math.isnan(value) else f"{value:,.{places}f}"


def _p(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3f}" if value >= 0.001 else f"{value:.0e}"


# --- JSON ------------------------------------------------------------------------------------------------------------


def study_json(name: str, study: Study, findings: Sequence[Finding]) -> str:
    """All of it, machine-readable; null where there is no number."""
    document = {
        "format": 1,
        "name": name,
        "description": study.config.description,
        "confidence": CONFIDENCE,
        "test": "two-sided Student t, seeds and tasks crossed random effects, Satterthwaite's degrees of freedom; Holm",
        "versions": library_versions(),
        "questions": {finding.question.name: _document(finding) for finding in findings},
    }
    return json.dumps(_nulls(document), indent=2, allow_nan=False) + "\n"


def _document(finding: Finding) -> dict[str, Any]:
    scale, of = finding.scale
    return {
        "asked": finding.question.fixed(),
        "verdict": finding.verdict,
        "difference": finding.difference._asdict(),
        "p_corrected": finding.corrected,
        "scale": {"one_is": scale, "of": of},
        "tasks": finding.tasks,
        "tasks_left_out": finding.left_out,
        "levels": None if finding.levels is None else finding.levels.model_dump(),
        "sides": {name: _side_document(finding, name) for name in finding.sides},
    }


def _side_document(finding: Finding, name: str) -> dict[str, Any]:
    side = finding.sides[name]
    runs = []
    for run in side.runs:
        values, frozen = (_scaled(each, finding.question, finding.levels) for each in _means(run))
        runs.append(
            {
                "seed": run.seed,
                "run": run.measured.run,
                "failed": run.measured.failed,
                "censored": run.measured.censored,
                "mean": float(values),
                "frozen": float(frozen),
                "valid_score": run.valid_score,
                "steps": run.steps,
                "seconds": run.seconds,
                "cpu_seconds": run.cpu_seconds,
            }
        )
    tried = [" ".join(settings) for settings in finding.question.settings]
    return {
        "config_hash": side.config_hash,
        "settings": list(side.settings),
        "tuning": dict(zip(tried, side.choice.scores, strict=True)) if side.choice.scores else None,
        "mean": side.mean,
        "frozen": side.frozen,
        "runs": runs,
    }


def _means(run: Run) -> tuple[FloatArray, FloatArray]:
    table = run.measured.table()
    present = table[~np.isnan(table)]
    return np.asarray(present.mean() if len(present) else math.nan), np.asarray(run.measured.frozen_mean())


def _nulls(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _nulls(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_nulls(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
