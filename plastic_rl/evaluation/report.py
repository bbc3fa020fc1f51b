"""What an evaluation found, as it stands in `evaluation.json`.

Every score here is a mean over tasks of a lifetime's total, and every pair of numbers `*_interval` its confidence
interval, paired on tasks where agents are compared. Clock readings live in `seconds` alone: all else is the same each
time for the same agent and seed.
"""

from __future__ import annotations

import io
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from plastic_rl.checkpoint import write_atomically
from plastic_rl.config import ConfigModel
from plastic_rl.envs.wrappers import made_with
from plastic_rl.errors import RunError
from plastic_rl.evaluation.statistics import Pair
from plastic_rl.evaluation.table import GAP, Column, fit, folded


class Curve(ConfigModel):
    """How the score develops along the lifetime: the adaptation curve."""

    unit: Literal["step", "trial"]
    """`step`: mean score per step, in bins of `width` steps; `trial`: return of each trial."""
    width: int = Field(ge=1)
    """Steps in a bin (1 for `trial`)."""
    position: tuple[float, ...]
    """Middle of each bin in steps, or the number of the trial; the first step or trial is 1."""
    mean: tuple[float, ...]
    """Mean over the tasks that reached it."""
    low: tuple[float, ...]
    """Low end of its interval."""
    high: tuple[float, ...]
    """High end of its interval."""
    tasks: tuple[int, ...]
    """How many tasks reached it: where lifetimes differ in length, later points are means over fewer tasks."""

    @property
    def develops(self) -> bool:
        """Whether there is more than one point."""
        return len(self.mean) > 1


class Measure(ConfigModel):
    """What an environment measures beside the reward (`metadata["measures"]`), as one agent did."""

    mean: float
    """Mean over tasks of a lifetime's mean, over those that have any."""
    interval: Pair
    difference: float | None
    """This agent's mean minus that of the evaluated agent with sampled actions; None where that one has none."""
    difference_interval: Pair | None
    curve: Curve
    """How it develops along the lifetime; points that no task has are left out."""


class AccuracyPoint(ConfigModel):
    """How well an agent knows a data set after a number of samples."""

    samples: int = Field(ge=1)
    """Samples streamed so far."""
    accuracy: float
    """Mean over tasks of the share of held-out samples answered rightly, greedily, learning nothing from them."""
    accuracy_interval: Pair
    difference: float
    """This agent's accuracy minus that of the evaluated agent, streaming with sampled actions."""
    difference_interval: Pair
    online: float
    """Mean share of the samples streamed so far that were answered rightly, as the agent acted."""
    online_interval: Pair
    commonest: float
    """Mean share of the commonest answer to held-out samples: 1 where everything is called the same."""
    by_task: tuple[float, ...] = ()
    """The accuracy on each task, in the order of the tasks: what comparisons across training runs are paired on."""


class Score(ConfigModel):
    """How well one agent did on the tasks of a split."""

    privileged: Literal["none", "task", "environment"] = "none"
    """Privileged information. `task`: an oracle, told the hidden task; `environment`: shown what no observation holds
    (its own position); `none`: no more than the agent sees."""
    raw_score: float
    """Mean over tasks of the lifetime's sum of expected reward (of reward where that is not known)."""
    raw_score_interval: Pair
    normalised_score: float | None = None
    """`(raw - random) / (limit - random)`; None where the family has no limit."""
    normalised_score_interval: Pair | None = None
    """Interval of `normalised_score`, paired on tasks; None also where the limit is not clearly above random."""
    regret: float | None = None
    """`limit - raw`: what was lost against the best agent that has to find the task out."""
    regret_interval: Pair | None = None
    oracle_regret: float | None = None
    """`oracle - raw`: what was lost against an agent that is told the task."""
    oracle_regret_interval: Pair | None = None
    difference: float
    """This agent's raw score minus that of the evaluated agent with sampled actions."""
    difference_interval: Pair
    reward: float
    """Mean over tasks of the reward received, noise included."""
    steps: float
    """Mean length of a lifetime."""
    curve: Curve
    adaptation: float | None = None
    """Does it learn within its life? Mean score of the last tenth of a lifetime's trials minus that of the first; of
    its steps where the curve is one of steps or of a single trial."""
    adaptation_interval: Pair | None = None
    measures: dict[str, Measure] = Field(default_factory=dict)
    """What the environment measures beside the reward, by name; without those that no lifetime has."""
    accuracy_after: tuple[AccuracyPoint, ...] = ()
    """Accuracy on held-out samples, where a lifetime is a data set."""


class SplitEvaluation(Score):
    """One split: the agent with sampled actions, and all others on the same tasks."""

    tasks: int = Field(ge=1)
    """Number of tasks: tasks `0` to `tasks - 1` of the split."""
    limit_kind: str
    """Which reference agent is the limit, or `none`."""
    score_of: Literal["expected_reward", "reward"]
    """What the scores sum up."""
    environment_seed: int
    """The noise of task `n` was seeded with this plus `n`; the agents' own streams follow from it too."""
    environment_overrides: dict[str, Pair] = Field(default_factory=dict)
    """Environment arguments that the tasks replace by other values (a maze's side on `shift`): least and greatest."""
    greedy: Score | None = None
    """The agent with greedy actions."""
    frozen: Score | None = None
    """The agent with its synapses held at their start values, actions sampled; None where nothing can be frozen."""
    reference_agents: dict[str, Score] = Field(default_factory=dict)
    """The family's own agents."""

    def entries(self, agent: str = "agent") -> dict[str, Score]:
        """All scores of the split by the name that a reader sees, the agent's own first."""
        own: dict[str, Score] = {f"{agent}, sampled": self}
        if self.greedy is not None:
            own[f"{agent}, greedy"] = self.greedy
        if self.frozen is not None:
            own[f"{agent}, plasticity frozen"] = self.frozen
        return own | self.reference_agents


class Evaluation(ConfigModel):
    """An agent's evaluation on the splits of one environment: the contents of `evaluation.json`."""

    format: Literal[1] = 1
    """Version of this layout."""
    agent: str
    """The agent's name in tables and plots."""
    env_id: str
    env_kwargs: dict[str, Any]
    trials: int
    """Trials per lifetime of an environment without lifetimes of its own."""
    same_task_each_trial: bool | None = None
    """Whether these shared the lifetime's seed; None: where tasks are reset seeds."""
    wrappers: tuple[dict[str, Any], ...] = ()
    """Changes of the task, for all agents but the reference agents (the random one lived with them)."""
    family: str
    single_task: bool
    """True where all splits but `shift` are one and the same task: no test of generalisation."""
    seed: int
    """Seed that all others of this evaluation follow from."""
    batch_size: int
    """Lifetimes run at a time; sampled actions of agents that are not ours depend on it."""
    confidence: float
    resamples: int
    lifetime_steps: int | None
    """Length of every lifetime; None where it varies."""
    steps_per_trial: int | None
    """Length of every trial; None where it varies."""
    measures: dict[str, str] = Field(default_factory=dict)
    """What each measure of the environment is."""
    splits: dict[str, SplitEvaluation]
    seconds: dict[str, dict[str, float]]
    """Wall-clock seconds by split and agent."""
    versions: dict[str, str]
    """Versions of what the numbers were made with."""

    @property
    def made_with(self) -> str:
        """The arguments, trials and wrappers of the environment, as a reader sees them."""
        return made_with(self.env_kwargs, self.trials, self.same_task_each_trial, self.wrappers)

    def save(self, path: str | Path) -> Path:
        """Write it to `path`, whose folder must exist, as indented JSON, replacing what is there in one move."""
        path = Path(path)
        write_atomically(path, f"{self.model_dump_json(indent=2)}\n".encode())
        return path

    @classmethod
    def load(cls, path: str | Path) -> Evaluation:
        """Read what `save` wrote.

        Raises:
            RunError: If the file is missing or is no evaluation.
        """
        path = Path(path)
        try:
            return cls.model_validate_json(path.read_bytes())
        except OSError as error:
            raise RunError(f"cannot read the evaluation {path}: {error.strerror}") from None
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise RunError(
                f"{path} is no evaluation that plastic_rl wrote: {first['msg']}{f' (at {where})' if where else ''}. "
                "Make it anew with: plastic-rl evaluate RUN"
            ) from None

    def table(self, *, rich: bool | None = None, width: int | None = None) -> str:
        """Return a table of every split for a terminal.

        Args:
            rich: With colours and rules (True), as plain text (False), or whichever suits stdout (None).
            width: Columns that no line goes beyond; None: those of the terminal, or where stdout is none (a file, a
                pipe) and in plain text, as many as it takes.
        """
        if rich is None:
            rich = sys.stdout.isatty()
        if width is None and rich:
            width = shutil.get_terminal_size().columns
        lines: list[tuple[str, str]] = []
        narrow: dict[str, None] = {}
        for split, result in self.splits.items():
            lines += [(line, "bold") for line in folded(_title(self, split, result), width)]
            entries = _ranked(self, result)
            blocks, left_out = fit(*_columns(self, result, entries), None if width is None else width - len(GAP))
            narrow |= dict.fromkeys(left_out)
            for block in blocks:
                lines += [(GAP + line, "") for line in [*block.header, ("\u2500" if rich else "-") * block.breadth]]
                for name, (first, *more) in zip(entries, block.rows, strict=True):
                    mark, style = (GAP, "") if name in result.reference_agents else ("> ", "bold cyan")
                    lines += [(mark + first, style), *((GAP + each, style) for each in more)]
                lines.append(("", ""))
        lines += [(line, "") for note in _notes(self, narrow) for line in folded(note, width)]
        return _coloured(lines) if rich else "".join(f"{text}\n" for text, _ in lines)


def _coloured(lines: Sequence[tuple[str, str]]) -> str:
    from rich.console import Console

    console = Console(file=io.StringIO(), force_terminal=True)
    with console.capture() as captured:
        for text, style in lines:
            console.print(text, style=style, markup=False, highlight=False, soft_wrap=True)
    return captured.get()


def _title(evaluation: Evaluation, split: str, result: SplitEvaluation) -> str:
    arguments = f" ({evaluation.made_with})" if evaluation.made_with else ""
    steps = f"{evaluation.lifetime_steps} steps each" if evaluation.lifetime_steps else "of varying length"
    replaced = ", ".join(
        f"{name} {low:g}" if low == high else f"{name} {low:g} to {high:g}"
        for name, (low, high) in result.environment_overrides.items()
    )
    return (
        f"{evaluation.env_id}{arguments}, split {split}: {result.tasks:,} lifetimes, {steps}, one on each task"
        f"{f' with {replaced}' if replaced else ''}; {result.score_of.replace('_', ' ')} per lifetime"
    )


def _ranked(evaluation: Evaluation, result: SplitEvaluation) -> dict[str, Score]:
    entries = result.entries(evaluation.agent)
    return dict(sorted(entries.items(), key=lambda entry: -entry[1].raw_score))


def _columns(
    evaluation: Evaluation, result: SplitEvaluation, entries: Mapping[str, Score]
) -> tuple[Column, list[Column]]:
    """The names of the agents, and all that is said of them."""
    interval = f"{evaluation.confidence:.0%} interval"
    scores = list(entries.values())
    decimals = _decimals(max(abs(score.raw_score) for score in scores))
    names = Column("agent", [f"{name} (limit)" if name == result.limit_kind else name for name in entries])
    columns = [
        Column("score", [f"{score.raw_score:.{decimals}f}" for score in scores]),
        Column(interval, [_interval(score.raw_score_interval, decimals) for score in scores], joined=True),
    ]
    if result.limit_kind != "none":
        normalised = [score.normalised_score_interval for score in scores]
        columns += [
            Column("normalised", [_number(score.normalised_score, 3) for score in scores]),
            Column(interval, [_interval(pair, 3) for pair in normalised], True, f"{interval} of the normalised score"),
            Column("regret", [_number(score.regret, decimals) for score in scores], spare="regret"),
        ]
    if any(score.adaptation is not None for score in scores):
        places = _decimals(max(abs(score.adaptation or 0.0) for score in scores))
        adapted = [score.adaptation_interval for score in scores]
        columns += [
            Column("adaptation", [_signed(score.adaptation, places) for score in scores]),
            Column(interval, [_interval(pair, places) for pair in adapted], True, f"{interval} of the adaptation"),
        ]
    for name in evaluation.measures:
        found = [score.measures.get(name) for score in scores]
        places = _decimals(max((abs(each.mean) for each in found if each), default=0.0))
        cells = [f"{each.mean:.{places}f} {_interval(each.interval, places)}" if each else "-" for each in found]
        columns.append(Column(name, cells, spare=name))
    for place, point in enumerate(result.accuracy_after):
        points = [score.accuracy_after[place] for score in scores]
        cells = [f"{each.accuracy:.3f} {_interval(each.accuracy_interval, 3)}" for each in points]
        columns.append(Column(f"accuracy after {point.samples:,}", cells))
    return names, columns


def _signed(value: float | None, decimals: int) -> str:
    return "-" if value is None else f"{round(value, decimals) + 0.0:+.{decimals}f}"


def _decimals(size: float) -> int:
    return 1 if size >= 100 else 2 if size >= 10 else 3


def _number(value: float | None, decimals: int) -> str:
    return "-" if value is None else f"{value:.{decimals}f}"


def _interval(pair: Pair | None, decimals: int) -> str:
    return "-" if pair is None else "[" + ", ".join(f"{round(end, decimals) + 0.0:.{decimals}f}" for end in pair) + "]"


def _notes(evaluation: Evaluation, left_out: Iterable[str]) -> list[str]:
    coverage = "cover tasks, noise and action sampling, paired between agents; not the training run."
    notes = [f"Intervals ({evaluation.confidence:.0%}, bootstrap) {coverage}"]
    if any(split.limit_kind != "none" for split in evaluation.splits.values()):
        notes.append("normalised = (score - random) / (limit - random); regret = limit - score, on the same tasks.")
    else:
        notes.append("This environment has no known limit, so there is no normalised score.")
    adapted = [split.curve for split in evaluation.splits.values() if split.adaptation is not None]
    if adapted:
        unit = adapted[0].unit if adapted[0].develops else "step"
        notes.append(
            f"adaptation: mean score per {unit}, last tenth of a lifetime minus first. Time alone may change it: "
            "compare the other agents'."
        )
    notes += [f"{name}: {what}." for name, what in evaluation.measures.items()]
    if any(split.accuracy_after for split in evaluation.splits.values()):
        notes.append(
            "accuracy after n: share of held-out samples answered rightly, greedily, after n streamed samples."
        )
    told = {
        name: score.privileged
        for split in evaluation.splits.values()
        for name, score in split.reference_agents.items()
        if score.privileged != "none"
    }
    explained = {"task": "told the hidden task", "environment": "shown more than the agent sees (such as its position)"}
    if told:
        notes.append("; ".join(f"{name}: {explained[what]}" for name, what in told.items()) + ".")
    if evaluation.wrappers:
        notes.append(
            "Reference agents but random live without the wrappers: their numbers hold for the environment as it is."
        )
    if evaluation.single_task:
        notes.append(
            "All splits but shift are one and the same task: this measures learning within a lifetime, not "
            "generalisation to new tasks."
        )
    if left_out:
        notes.append(
            f"Too few columns for: {', '.join(left_out)} (a wider terminal shows them, the JSON file has them)."
        )
    return notes
