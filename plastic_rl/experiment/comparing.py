"""Several variants of training one agent, side by side: `plastic-rl compare`.

A comparison is one file: what the variants have in common, and what each has of its own. Every variant, with every
seed, is an ordinary run in `runs/NAME/VARIANT/seed-S`, trained and evaluated as any run is; what they cost and what
came of it stands in `runs/NAME/comparison.txt`, `comparison.json` and `comparison.png`.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from plastic_rl.arrays import FloatArray
from plastic_rl.checkpoint import write_atomically
from plastic_rl.config import ConfigModel, apply_overrides, describe, differences, merge, read_mapping, validate
from plastic_rl.errors import ConfigError, RunError
from plastic_rl.evaluation import Evaluation, crossed_interval
from plastic_rl.evaluation.plots import Estimate, LearningCurve, plot_comparison, read_metric
from plastic_rl.evaluation.table import Column, fit, folded
from plastic_rl.experiment.agents import needs_plugins
from plastic_rl.experiment.config import ExperimentConfig, Seeds, parse_experiment
from plastic_rl.experiment.folder import RunFolder, create_runs, reopen_run
from plastic_rl.experiment.metrics import clock
from plastic_rl.experiment.pipeline import Say, check_experiment, finish
from plastic_rl.experiment.training import is_trained


class ComparisonConfig(ConfigModel):
    """Variants of training to lay side by side."""

    description: str = ""
    """What is compared, in a sentence."""
    seeds: Seeds = (0,)
    """Training seeds: each variant is trained with each of them."""
    common: dict[str, Any]
    """The part of the experiment that all variants share: environment, network, evaluation ..."""
    variants: dict[str, dict[str, Any]] = Field(min_length=2)
    """The rest of the experiment, by the name of the variant: its algorithm, and whatever else is its own."""


@dataclass(frozen=True)
class Comparison:
    """A comparison, and its experiments by their folder within its own, `VARIANT/seed-S`."""

    config: ComparisonConfig
    experiments: dict[str, ExperimentConfig]

    def firsts(self) -> dict[str, ExperimentConfig]:
        """The experiments with the first seed, by variant."""
        return {name: self.experiments[f"{name}/seed-{self.config.seeds[0]}"] for name in self.config.variants}


@dataclass(frozen=True)
class Variant:
    """What one variant cost, and what came of it; means over seeds.

    Attributes:
        samples: Environment steps of training.
        seconds: Clock time of training, with the scores on `valid` that chose the checkpoint.
        outcomes: Scores and accuracies on the first split that was opened.
        behind: The first variant's outcomes minus these, paired on tasks.
    """

    samples: float
    seconds: float
    outcomes: list[Estimate]
    behind: list[Estimate]


def load_comparison(path: str | Path, overrides: Sequence[str] = (), *, plugins: Sequence[str] = ()) -> Comparison:
    """Read a comparison from a YAML file, with overrides such as `common.network.hidden_size=100` or `seeds=[0,1]`.

    Raises:
        ConfigError: With every problem of the file, or of one variant's experiment, at once; or where the variants
            differ in environment, data, held-out tasks, or kind and sizes of the network.
    """
    given = apply_overrides(read_mapping(path), overrides)
    if "algorithm" in given and "variants" not in given:
        raise ConfigError(f"{path} is a single experiment; run it with: plastic-rl train {path}")
    config = validate(ComparisonConfig, given, str(path))
    experiments: dict[str, ExperimentConfig] = {}
    for variant, own in config.variants.items():
        mapping = merge(config.common, own)
        if "seed" in mapping:
            raise ConfigError(f"{path}: {variant}.seed: the seeds of a comparison stand in its own key `seeds`.")
        recorded = list(dict.fromkeys([*mapping.get("plugins", []), *plugins]))
        for seed in config.seeds:
            experiments[f"{variant}/seed-{seed}"] = parse_experiment(
                {**mapping, "seed": seed, "plugins": recorded}, f"{path}, variant {variant}"
            )
    comparison = Comparison(config, experiments)
    _check_comparable(comparison.firsts(), str(path))
    return comparison


def _check_comparable(variants: Mapping[str, ExperimentConfig], source: str) -> None:
    """Refuse variants whose scores say nothing about each other.

    Raises:
        ConfigError: With every key in which they must not differ, and do.
    """
    first, *others = variants
    problems = [
        f"{key}: {one!r} in {first}, {other!r} in {variant}"
        for variant in others
        for key, one, other in differences(_in_common(variants[first]), _in_common(variants[variant]))
    ]
    if problems:
        raise ConfigError(
            f"{describe(problems, source)}\nVariants are compared in one environment, on the same data and "
            "held-out tasks, with networks of the same kind and sizes. Put these keys into `common`, and take them out "
            "of the variants."
        )
    if not variants[first].evaluation.final:
        raise ConfigError(f"{source}: evaluation.final is false, so nothing would be there to compare.")


def _in_common(experiment: ExperimentConfig) -> dict[str, Any]:
    """What all variants must share. Of the network, that is its size; where its parameters start may differ."""
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
) -> None:
    """Train and evaluate every variant with every seed, and lay them side by side; goes on where it was stopped.

    The arguments are those of `start`, and `width`, that of `comparison_table`.

    Raises:
        RunError: If the folder holds another comparison.
        TrainingInterrupted: If a signal asked to stop; the same call goes on.
    """
    comparison = load_comparison(path, overrides, plugins=plugins)
    for experiment in comparison.firsts().values():
        needs_plugins(experiment.plugins, plugins, str(path))
        check_experiment(experiment)
    name = name or Path(path).stem
    folder = Path(runs_folder) / name
    if folder.exists():
        begun = [reopen_run(folder, place, each) for place, each in comparison.experiments.items()]
    else:
        begun = create_runs(Path(runs_folder), name, comparison.experiments)
    for run in begun:
        config = run.config()
        if not is_trained(run, config) or not run.evaluation.exists():
            say(f"{run.path}:")
            finish([run], plugins=plugins, say=say, note=note)
    runs = {
        variant: [RunFolder(folder / variant / f"seed-{seed}") for seed in comparison.config.seeds]
        for variant in comparison.config.variants
    }
    best = next(iter(runs.values()))
    variants = {variant: _variant(own, None if own is best else best) for variant, own in runs.items()}
    say(comparison_table(comparison, variants, width=width))
    write_atomically(folder / "comparison.txt", f"{comparison_table(comparison, variants)}\n".encode())
    written = {variant: asdict(result) for variant, result in variants.items()}
    write_atomically(folder / "comparison.json", (json.dumps(written, indent=2) + "\n").encode())
    curves = {variant: [_curve(run) for run in own] for variant, own in runs.items()}
    outcomes = {variant: result.outcomes[1:] or result.outcomes for variant, result in variants.items()}
    title = f"{' and '.join(variants)}: {best[0].config().environment.id}"
    plot_comparison(curves, outcomes, folder / "comparison.png", title=title)
    say(f"in {folder}: comparison.txt, comparison.json, comparison.png")


def _curve(run: RunFolder) -> LearningCurve:
    """Scores on `valid` by samples and seconds; where none were taken, scores of training lifetimes."""
    try:
        samples, scores = read_metric(run.metrics, "valid/score")
    except RunError:
        samples, scores = read_metric(run.metrics, "rollout/score")
    steps, seconds = clock(run.path / "timing.csv")
    return LearningCurve(samples, np.interp(samples, steps, seconds), scores)


def _variant(runs: Sequence[RunFolder], first: Sequence[RunFolder] | None) -> Variant:
    """What came of the runs of a variant; `first`: those of the first variant, if this is another."""
    clocks = [clock(run.path / "timing.csv") for run in runs]
    own = _tables(runs)
    return Variant(
        samples=float(np.mean([steps[-1] for steps, _ in clocks])),
        seconds=float(np.mean([seconds[-1] for _, seconds in clocks])),
        outcomes=_estimates(own),
        behind=[] if first is None else _estimates({name: best - own[name] for name, best in _tables(first).items()}),
    )


def _tables(runs: Sequence[RunFolder]) -> dict[str, FloatArray]:
    """Scores (by seed) and accuracies (by seed and task)."""
    scores = [next(iter(Evaluation.load(run.evaluation).splits.values())) for run in runs]
    tables = {"score": np.array([[score.raw_score] for score in scores])}
    for place, point in enumerate(scores[0].accuracy_after):
        by_task = [score.accuracy_after[place].by_task for score in scores]
        tables[f"accuracy after {point.samples:,}"] = np.array(by_task)
    return tables


def _estimates(tables: Mapping[str, FloatArray]) -> list[Estimate]:
    outcomes = []
    for label, table in tables.items():
        if label == "score" and len(table) == 1:  # of one seed there is no interval over seeds
            outcomes.append(Estimate(label, table.item(), math.nan, math.nan))
        else:
            outcomes.append(Estimate(label, *crossed_interval(table)))
    return outcomes


def comparison_table(comparison: Comparison, variants: Mapping[str, Variant], *, width: int | None = None) -> str:
    """The variants as a table: what each cost, what came of it, and how far each is behind the first.

    `width`: columns that no line goes beyond; None: as wide as it takes.
    """
    experiment = next(iter(comparison.experiments.values()))
    seeds = len(comparison.config.seeds)
    first = next(iter(variants))
    behind = {f"{first} - {name}": variant.behind for name, variant in variants.items() if variant.behind}
    blank = [""] * len(behind)
    columns = [
        Column("samples", [f"{variant.samples:,.0f}" for variant in variants.values()] + blank),
        Column("seconds", [f"{variant.seconds:,.0f}" for variant in variants.values()] + blank),
    ]
    for place, outcome in enumerate(variants[first].outcomes):
        cells = [_cell(variant.outcomes[place]) for variant in variants.values()]
        cells += [_cell(outcomes[place], signed=True) for outcomes in behind.values()]
        columns.append(Column(outcome.label, cells))
    blocks, _ = fit(Column("", [*variants, *behind]), columns, width)
    title = (
        f"{experiment.environment.id}, split {experiment.evaluation.splits[0]}, {seeds} seed{'s' if seeds > 1 else ''}"
    )
    note = (
        "samples, seconds: of training, mean over seeds, choice of checkpoints included. [95% bootstrap over seeds and "
        "tasks; scores: over seeds alone]"
    )
    tables = ["\n".join([*block.header, *itertools.chain(*block.rows)]) for block in blocks]
    return "\n".join([*folded(title, width), "\n\n".join(tables), *folded(note, width)])


def _cell(outcome: Estimate, *, signed: bool = False) -> str:
    digits = 3 if outcome.label.startswith("accuracy") else 1
    sign = "+" if signed else ""
    if math.isnan(outcome.low):
        return f"{outcome.mean:{sign}.{digits}f}"
    return f"{outcome.mean:{sign}.{digits}f} [{outcome.low:{sign}.{digits}f}, {outcome.high:{sign}.{digits}f}]"
