"""Several ways of training the same agent, side by side: `plastic-rl compare`.

A comparison is one file: what the ways have in common, and what each has of its own. Every way, with every seed, is an
ordinary run in `runs/NAME/WAY/seed-S`, trained and evaluated as any run is; what they cost and what came of it stands
in `runs/NAME/comparison.txt`, `comparison.json` and `comparison.png`.
"""

from __future__ import annotations

import csv
import itertools
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field, field_validator

from plastic_rl.checkpoint import write_atomically
from plastic_rl.config import ConfigModel, apply_overrides, describe, differences, merge, read_mapping, validate
from plastic_rl.errors import ConfigError, RunError
from plastic_rl.evaluation import Evaluation, crossed_interval
from plastic_rl.evaluation.comparison import LearningCurve, Outcome, plot_comparison
from plastic_rl.evaluation.plots import read_metric
from plastic_rl.evaluation.report import SplitEvaluation
from plastic_rl.evaluation.table import Column, fit, folded
from plastic_rl.experiment.agents import needs_plugins
from plastic_rl.experiment.config import ExperimentConfig, parse_experiment
from plastic_rl.experiment.folder import CONFIG, RunFolder, create_runs
from plastic_rl.experiment.training import is_trained
from plastic_rl.experiment.whole import check_experiment, finish

Say = Callable[[str], None]


class ComparisonConfig(ConfigModel):
    """Ways of training to lay side by side."""

    description: str = ""
    """What is compared, in a sentence."""
    seeds: tuple[int, ...] = Field(default=(0,), min_length=1)
    """Training seeds: each way is trained with each of them."""
    common: dict[str, Any]
    """The part of the experiment that all ways share: environment, network, evaluation ..."""
    ways: dict[str, dict[str, Any]] = Field(min_length=2)
    """The rest of the experiment, by the name of the way: its algorithm, and whatever else is its own."""

    @field_validator("seeds", mode="after")
    @classmethod
    def _distinct(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(value)) < len(value):
            raise ValueError(f"each seed may stand once, got {', '.join(map(str, value))}")
        return value


@dataclass(frozen=True)
class Comparison:
    """A comparison and its experiments.

    Attributes:
        config: The file.
        experiments: By the name of the way, then by seed.
    """

    config: ComparisonConfig
    experiments: dict[str, dict[int, ExperimentConfig]]

    def folders(self) -> dict[str, ExperimentConfig]:
        """The experiments by their folder within the comparison's."""
        return {
            f"{way}/seed-{seed}": experiment
            for way, seeds in self.experiments.items()
            for seed, experiment in seeds.items()
        }


@dataclass(frozen=True)
class Way:
    """What one way of training cost, and what came of it; means over seeds.

    Attributes:
        samples: Environment steps of training.
        seconds: Clock time of training, with the scores on `valid` that chose the checkpoint.
        outcomes: Scores and accuracies on the first split that was opened.
        behind: The first way's outcomes minus these, paired on tasks.
    """

    samples: float
    seconds: float
    outcomes: list[Outcome]
    behind: list[Outcome]


def load_comparison(path: str | Path, overrides: Sequence[str] = (), *, plugins: Sequence[str] = ()) -> Comparison:
    """Read a comparison from a YAML file.

    Args:
        path: The file.
        overrides: `key.path=value` each, e.g. `common.network.hidden_size=100` or `seeds=[0,1]`.
        plugins: Those that have been loaded; the runs record them.

    Raises:
        ConfigError: With every problem of the file, or of one way's experiment, at once; or where the ways differ in
            environment, data, held-out tasks, or kind and sizes of the network.
    """
    given = apply_overrides(read_mapping(path), overrides)
    if "algorithm" in given and "ways" not in given:
        raise ConfigError(f"{path} is a single experiment; run it with: plastic-rl train {path}")
    config = validate(ComparisonConfig, given, str(path))
    experiments: dict[str, dict[int, ExperimentConfig]] = {}
    for way, own in config.ways.items():
        mapping = merge(config.common, own)
        if "seed" in mapping:
            raise ConfigError(f"{path}: {way}.seed: the seeds of a comparison stand in its own key `seeds`.")
        recorded = list(dict.fromkeys([*mapping.get("plugins", []), *plugins]))
        experiments[way] = {
            seed: parse_experiment({**mapping, "seed": seed, "plugins": recorded}, f"{path}, way {way}")
            for seed in config.seeds
        }
    _check_comparable({way: seeds[config.seeds[0]] for way, seeds in experiments.items()}, str(path))
    return Comparison(config, experiments)


def _check_comparable(ways: Mapping[str, ExperimentConfig], source: str) -> None:
    """Refuse ways whose scores say nothing about each other.

    Raises:
        ConfigError: With every key in which they must not differ, and do.
    """
    first, *others = ways
    problems = [
        f"{key}: {one!r} in {first}, {other!r} in {way}"
        for way in others
        for key, one, other in differences(_in_common(ways[first]), _in_common(ways[way]))
    ]
    if problems:
        raise ConfigError(
            f"{describe(problems, source)}\nWays are laid side by side in one environment, on the same data and "
            "held-out tasks, with networks of the same kind and sizes. Put these keys into `common`, and take them out "
            "of the ways."
        )
    if not ways[first].evaluation.final:
        raise ConfigError(f"{source}: evaluation.final is false, so nothing would be there to compare.")


def _in_common(experiment: ExperimentConfig) -> dict[str, Any]:
    """What all ways must share. Of the network, that is its size; where its parameters start may be a way's own."""
    whole = experiment.to_mapping()
    network = {"kind": whole["network"]["kind"], "inputs": whole["network"].get("inputs"), **_sizes(whole["network"])}
    return {name: whole[name] for name in ("environment", "policy", "evaluation")} | {"network": network}


def _sizes(network: Mapping[str, Any]) -> dict[str, Any]:
    """The whole numbers of a network's config, and lists of them: numbers of units, layers and rounds."""
    sizes: dict[str, Any] = {}
    for name, value in network.items():
        entries = value if isinstance(value, list | tuple) else [value]
        if isinstance(value, Mapping):
            sizes[name] = _sizes(value)
        elif all(type(entry) is int for entry in entries):
            sizes[name] = value
    return sizes


def compare(
    path: str | Path,
    overrides: Sequence[str] = (),
    *,
    name: str | None = None,
    plugins: Sequence[str] = (),
    runs_folder: str | Path = "runs",
    say: Say = print,
    note: Say | None = None,
    width: int | None = None,
) -> Path:
    """Train and evaluate every way with every seed, and lay them side by side; goes on where it was stopped.

    Args:
        path: The comparison's file.
        overrides: `key.path=value` each.
        name: Of the folder; by default that of the file.
        plugins: Those that have been loaded; they are recorded.
        runs_folder: Where runs live.
        say: Is given the tables.
        note: Is told what the evaluation is doing.
        width: Columns that no line of the table said goes beyond; None: as wide as it takes.

    Returns:
        The folder.

    Raises:
        RunError: If the folder holds another comparison.
        TrainingInterrupted: If a signal asked to stop; the same call goes on.
    """
    comparison = load_comparison(path, overrides, plugins=plugins)
    for way in comparison.experiments.values():
        for experiment in way.values():
            needs_plugins(experiment.plugins, plugins, str(path))
        check_experiment(next(iter(way.values())))
    name = name or Path(path).stem
    folder = Path(runs_folder) / name
    runs = (
        _reopened(folder, comparison) if folder.exists() else create_runs(Path(runs_folder), name, comparison.folders())
    )
    for run in runs:
        config = run.config()
        if not is_trained(run, config) or not run.evaluation.exists():
            say(f"{run.path}:")
            finish([run], plugins=plugins, say=say, note=note)
    ways = {way: _way(folder, comparison, way) for way in comparison.experiments}
    say(comparison_table(comparison, ways, width=width))
    write_atomically(folder / "comparison.txt", f"{comparison_table(comparison, ways)}\n".encode())
    written = {way: asdict(result) for way, result in ways.items()}
    write_atomically(folder / "comparison.json", (json.dumps(written, indent=2) + "\n").encode())
    curves = {
        way: [_curve(RunFolder(folder / way / f"seed-{seed}")) for seed in comparison.config.seeds] for way in ways
    }
    outcomes = {way: result.outcomes[1:] or result.outcomes for way, result in ways.items()}
    experiment = next(iter(comparison.folders().values()))
    title = f"{' and '.join(ways)}: {experiment.environment.id}"
    plot_comparison(curves, outcomes, folder / "comparison.png", title=title)
    say(f"in {folder}: comparison.txt, comparison.json, comparison.png")
    return folder


def _reopened(folder: Path, comparison: Comparison) -> list[RunFolder]:
    """The runs of a comparison that was begun before."""
    runs = []
    for place, experiment in comparison.folders().items():
        if not (folder / place / CONFIG).is_file() or RunFolder(folder / place).config() != experiment:
            raise RunError(
                f"{folder} exists already and holds something else than this comparison ({place} differs), and nothing "
                "is overwritten. Give the comparison another name with --name NAME."
            )
        runs.append(RunFolder(folder / place))
    return runs


def _curve(run: RunFolder) -> LearningCurve:
    """Scores on `valid` by samples and seconds; where none were taken, scores of training lifetimes."""
    try:
        samples, scores = read_metric(run.metrics, "valid/score")
    except RunError:
        samples, scores = read_metric(run.metrics, "rollout/score")
    steps, seconds = _clock(run.path / "timing.csv")
    return LearningCurve(samples, np.interp(samples, steps, seconds), scores)


def _clock(path: Path) -> tuple[np.ndarray[Any, np.dtype[np.float64]], np.ndarray[Any, np.dtype[np.float64]]]:
    """Steps and seconds of training up to each row of a run's clock readings, which begin anew where it was resumed."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = [(row["step"], row["time/time_elapsed"]) for row in csv.DictReader(file) if row["time/time_elapsed"]]
    if not rows:
        raise RunError(f"{path} has no clock readings; set logging.interval to at most the number of updates.")
    steps, elapsed = np.array(rows, np.float64).T
    passed = np.diff(elapsed, prepend=0.0)
    return steps, np.where(passed < 0, elapsed, passed).cumsum()


def _way(folder: Path, comparison: Comparison, way: str) -> Way:
    first = next(iter(comparison.experiments))
    runs = [RunFolder(folder / way / f"seed-{seed}") for seed in comparison.config.seeds]
    clocks = [_clock(run.path / "timing.csv") for run in runs]
    own, best = _split_of(runs), _split_of([RunFolder(folder / first / run.path.name) for run in runs])
    return Way(
        samples=float(np.mean([steps[-1] for steps, _ in clocks])),
        seconds=float(np.mean([seconds[-1] for _, seconds in clocks])),
        outcomes=_outcomes(own, None),
        behind=[] if way == first else _outcomes(best, own),
    )


def _split_of(runs: Sequence[RunFolder]) -> list[SplitEvaluation]:
    return [next(iter(Evaluation.load(run.evaluation).splits.values())) for run in runs]


def _outcomes(scores: Sequence[SplitEvaluation], minus: Sequence[SplitEvaluation] | None) -> list[Outcome]:
    """Scores (by seed) and accuracies (by seed and task), or how far they are above those of `minus`."""
    others = scores if minus is None else minus
    own = np.array([[score.raw_score] for score in scores])
    taken = 0.0 if minus is None else np.array([[score.raw_score] for score in minus])
    # Of one seed there is no interval over seeds.
    alone = len(scores) == 1
    outcomes = [Outcome("score", float((own - taken).mean()), math.nan, math.nan)] if alone else []
    outcomes = outcomes or [Outcome("score", *crossed_interval(own - taken))]
    for place, point in enumerate(scores[0].accuracy_after):
        table = np.array([score.accuracy_after[place].by_task for score in scores])
        below = 0.0 if minus is None else np.array([score.accuracy_after[place].by_task for score in others])
        outcomes.append(Outcome(f"accuracy after {point.samples:,}", *crossed_interval(table - below)))
    return outcomes


def comparison_table(comparison: Comparison, ways: Mapping[str, Way], *, width: int | None = None) -> str:
    """The ways as a table: what each cost, what came of it, and how far each is behind the first.

    Args:
        comparison: What was compared.
        ways: What came of each.
        width: Columns that no line goes beyond; None: as wide as it takes.
    """
    experiment = next(iter(comparison.folders().values()))
    seeds = len(comparison.config.seeds)
    first = next(iter(ways))
    behind = {f"{first} - {name}": way.behind for name, way in ways.items() if way.behind}
    blank = [""] * len(behind)
    columns = [
        Column("samples", [f"{way.samples:,.0f}" for way in ways.values()] + blank),
        Column("seconds", [f"{way.seconds:,.0f}" for way in ways.values()] + blank),
    ]
    for place, outcome in enumerate(ways[first].outcomes):
        cells = [_cell(way.outcomes[place]) for way in ways.values()]
        cells += [_cell(outcomes[place], signed=True) for outcomes in behind.values()]
        columns.append(Column(outcome.label, cells))
    blocks, _ = fit(Column("", [*ways, *behind]), columns, width)
    title = f"{experiment.environment.id}, split {experiment.evaluation.splits[0]}, {_counted(seeds, 'seed')}"
    note = (
        "samples, seconds: of training, mean over seeds, choice of checkpoints included. [95% bootstrap over seeds and "
        "tasks; scores: over seeds alone]"
    )
    tables = ["\n".join([*block.header, *itertools.chain(*block.rows)]) for block in blocks]
    return "\n".join([*folded(title, width), "\n\n".join(tables), *folded(note, width)])


def _cell(outcome: Outcome, *, signed: bool = False) -> str:
    digits = 3 if outcome.label.startswith("accuracy") else 1
    sign = "+" if signed else ""
    if math.isnan(outcome.low):
        return f"{outcome.mean:{sign}.{digits}f}"
    return f"{outcome.mean:{sign}.{digits}f} [{outcome.low:{sign}.{digits}f}, {outcome.high:{sign}.{digits}f}]"


def _counted(number: int, what: str) -> str:
    return f"1 {what}" if number == 1 else f"{number} {what}s"
