"""Pictures: the adaptation curve of an evaluation, and learning curves of training runs.

Figures are made without pyplot, so nothing global changes and any thread or worker may draw. Colours are those of
Okabe and Ito, which colour-blind readers can tell apart; line styles differ as well.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from plastic_rl.errors import RunError, UnknownNameError
from plastic_rl.evaluation.report import Evaluation, Score, SplitEvaluation
from plastic_rl.evaluation.statistics import FloatArray, student_t_interval
from plastic_rl.tasks.classification import REWARDS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7F6A00", "#000000")
STEP_COLUMNS = ("time/total_timesteps", "total_timesteps", "timesteps", "step")
"""Names that the column of environment steps may have in `metrics.csv`, first choice first."""


class _Style(NamedTuple):
    color: str
    line: Any
    width: float
    order: int


_AGENT = _Style(PALETTE[0], "-", 2.4, 6)
_FROZEN = _Style(PALETTE[1], "--", 1.8, 5)
_LIMIT = _Style("#000000", (0, (5, 2.5)), 1.4, 7)  # above the agent, which may cover it
_ORACLE = _Style("#777777", ":", 1.8, 3)
_RANDOM = _Style("#999999", "-", 1.2, 2)
_OTHERS = (
    _Style(PALETTE[2], "-.", 1.6, 3),
    _Style(PALETTE[3], (0, (3, 1, 1, 1, 1, 1)), 1.6, 3),
    _Style(PALETTE[4], (0, (1, 1)), 1.6, 3),
    _Style(PALETTE[5], "-.", 1.6, 3),
)


def plot_adaptation(evaluation: Evaluation, path: str | Path, *, splits: Sequence[str] | None = None) -> Path:
    """Draw how the score develops along the lifetime, one panel per split, and save it.

    The agent (sampled actions), its twin with frozen plasticity and every reference agent, with interval bands. Where
    a lifetime is a single trial (an episode of CartPole) nothing develops: their scores are drawn as bars. Diamonds are
    accuracies on held-out samples, where a lifetime is a data set.

    Args:
        evaluation: What to draw.
        path: `.png`, `.svg` or `.pdf`.
        splits: Which splits; all by default.

    Returns:
        `path`.

    Raises:
        UnknownNameError: If the evaluation has no such split.
    """
    chosen = list(evaluation.splits) if splits is None else list(splits)
    for split in chosen:
        if split not in evaluation.splits:
            raise UnknownNameError("split of the evaluation", split, evaluation.splits)
    panels = len(chosen)
    arguments = ", ".join(f"{key}={value}" for key, value in evaluation.env_kwargs.items())
    where = f"{evaluation.env_id}{f' ({arguments})' if arguments else ''}"
    if all(_is_single(evaluation.splits[split]) for split in chosen):
        figure = new_figure(
            7.2 * panels, 1.7 + 0.5 * max(len(_ranked(evaluation, evaluation.splits[s])) for s in chosen)
        )
        for axis, split in zip(figure.subplots(1, panels, squeeze=False)[0], chosen, strict=True):
            _score_panel(axis, evaluation, split)
        figure.suptitle(f"Scores of lifetimes of a single trial: {where}", fontsize=13)
        return save_figure(figure, path)
    figure = new_figure(5.6 * panels + 2.6, 4.2)
    axes = figure.subplots(1, panels, squeeze=False, sharey=True)[0]
    handles: dict[str, Any] = {}
    for axis, split in zip(axes, chosen, strict=True):
        handles |= _adaptation_panel(axis, evaluation, split)
    figure.suptitle(f"Learning within a lifetime: {where}", fontsize=13)
    figure.legend(handles.values(), handles.keys(), loc="outside right center", frameon=False, fontsize=10.5)
    return save_figure(figure, path)


def _is_single(result: SplitEvaluation) -> bool:
    return all(len(score.curve.mean) <= 1 for score in result.entries().values())


def _score_panel(axis: Axes, evaluation: Evaluation, split: str) -> None:
    """Horizontal bars of the scores with their intervals, best on top."""
    result = evaluation.splits[split]
    ranked = _ranked(evaluation, result)
    for place, (score, style) in enumerate(ranked.values()):
        low, high = score.raw_score_interval
        errors = np.abs(np.array([[low], [high]]) - score.raw_score)
        axis.barh(place, score.raw_score, height=0.62, color=style.color, zorder=2)
        axis.errorbar(score.raw_score, place, xerr=errors, color="#444444", capsize=4, elinewidth=1.4, zorder=3)
    axis.set_yticks(range(len(ranked)), list(ranked))
    axis.invert_yaxis()
    axis.set_xlabel(f"{result.score_of.replace('_', ' ')} per lifetime", fontsize=11)
    axis.set_title(_panel_title(split, result), fontsize=11)
    plain_axes(axis)
    axis.grid(axis="y", visible=False)
    axis.grid(axis="x", color="#DDDDDD", linewidth=0.8)


def _panel_title(split: str, result: SplitEvaluation) -> str:
    normalised = "" if result.normalised_score is None else f", normalised score {result.normalised_score:.3f}"
    return f"{split} split, {result.tasks:,} tasks{normalised}"


def _adaptation_panel(axis: Axes, evaluation: Evaluation, split: str) -> dict[str, Any]:
    from matplotlib.ticker import MaxNLocator

    result = evaluation.splits[split]
    handles: dict[str, Any] = {}
    for name, (score, style) in _ranked(evaluation, result).items():
        curve = score.curve
        x = np.asarray(curve.position)
        marker = "o" if len(x) <= 30 else None
        (handles[name],) = axis.plot(
            x,
            curve.mean,
            color=style.color,
            linestyle=style.line,
            linewidth=style.width,
            zorder=style.order,
            marker=marker,
            markersize=3.5,
        )
        if len(x) == 1:
            errors = np.abs(np.array([curve.low, curve.high]) - np.asarray(curve.mean))
            axis.errorbar(x, curve.mean, errors, color=style.color, capsize=4, zorder=style.order)
        axis.fill_between(x, curve.low, curve.high, color=style.color, alpha=0.18, linewidth=0, zorder=1)
        if score.accuracy_after:
            _accuracy_marks(axis, score, style, pays=REWARDS[evaluation.env_kwargs.get("reward", "01")])
    reward = result.score_of.replace("_", " ")
    unit = result.curve.unit
    if unit == "trial":
        axis.set_ylabel(f"{reward} per trial", fontsize=11)
        axis.set_xlabel("trial of the lifetime", fontsize=11)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    else:
        axis.set_ylabel(f"{reward} per step", fontsize=11)
        binned = f" (bins of {result.curve.width})" if result.curve.width > 1 else ""
        axis.set_xlabel(f"step of the lifetime{binned}", fontsize=11)
    axis.set_title(_panel_title(split, result), fontsize=11)
    plain_axes(axis)
    return handles


def _accuracy_marks(axis: Axes, score: Score, style: _Style, pays: tuple[float, float]) -> None:
    """Diamonds with intervals: the accuracy on held-out samples, as what it would earn per step."""
    wrong, right = pays
    x = [point.samples for point in score.accuracy_after]
    mean, low, high = (
        wrong + (right - wrong) * np.array(values)
        for values in (
            [point.accuracy for point in score.accuracy_after],
            [point.accuracy_interval[0] for point in score.accuracy_after],
            [point.accuracy_interval[1] for point in score.accuracy_after],
        )
    )
    errors = np.abs(np.stack([low, high]) - mean)
    axis.errorbar(
        x, mean, errors, fmt="D", markersize=5, color=style.color, capsize=4, zorder=style.order, clip_on=False
    )


def _ranked(evaluation: Evaluation, result: SplitEvaluation) -> dict[str, tuple[Score, _Style]]:
    """Scores by label in the order of their size, so that the legend reads like the plot."""
    drawn: list[tuple[str, Score, _Style]] = [(evaluation.agent, result, _AGENT)]
    if result.frozen is not None:
        label = f"{evaluation.agent},\nplasticity frozen"
        drawn.append((label, result.frozen, _FROZEN))
    spare = iter(_OTHERS * (1 + len(result.reference_agents)))
    for name, score in result.reference_agents.items():
        if name == result.limit_kind:
            told = ", told the task" if score.knows == "task" else ""
            style, label = _LIMIT, f"{name} (limit{told})"
        elif name == "oracle":
            style, label = _ORACLE, "oracle (told the task)"
        elif name == "random":
            style, label = _RANDOM, "random"
        else:
            style, label = next(spare), name
        drawn.append((label, score, style))
    drawn.sort(key=lambda entry: -entry[1].raw_score)
    return {label: (score, style) for label, score, style in drawn}


def plot_learning_curves(
    runs: Mapping[str, Sequence[str | Path]],
    path: str | Path,
    *,
    column: str = "rollout/score",
    title: str = "Learning between lifetimes",
    levels: Mapping[str, float] | None = None,
    smooth: int = 1,
    confidence: float = 0.95,
) -> Path:
    """Draw a column of `metrics.csv` against environment steps, mean and interval over the runs of each name.

    Bands are Student t intervals over runs (seeds), drawn from three runs on; single runs are thin lines. Where runs
    logged at different steps, all are interpolated at those of the first, as far as the shortest reaches.

    Args:
        runs: Files `metrics.csv` of one or more seeds, by the name of the experiment.
        path: `.png`, `.svg` or `.pdf`.
        column: What to draw.
        title: Above the plot.
        levels: Horizontal lines by name, e.g. random and limit.
        smooth: Average over this many rows, each with those before it.
        confidence: Share of the bands.

    Returns:
        `path`.

    Raises:
        RunError: If a file is missing, has no rows, or has no such column.
        ValueError: If there is nothing to draw.
    """
    if not runs or not all(runs.values()):
        raise ValueError("plot_learning_curves needs at least one metrics.csv for each name")
    figure = new_figure(9.2, 4.4)
    axis = figure.subplots()
    extremes: list[float] = []
    for index, (name, files) in enumerate(runs.items()):
        color = PALETTE[index % len(PALETTE)]
        style = ("-", "--", "-.", ":")[(index // len(PALETTE)) % 4]
        x, table = _common_grid([read_metric(file, column, smooth) for file in files])
        mean, low, high = student_t_interval(table, confidence)
        seeds = len(table)
        axis.plot(x, mean, color=color, linestyle=style, linewidth=2.2, label=f"{name} ({_count(seeds)})", zorder=4)
        extremes += [float(table.min()), float(table.max())]
        if 1 < seeds <= 5:
            axis.plot(x, table.T, color=color, linewidth=0.7, alpha=0.55, zorder=3)
        if seeds > 2:
            axis.fill_between(x, low, high, color=color, alpha=0.18, linewidth=0, zorder=1)
    for name, level in (levels or {}).items():
        axis.axhline(level, color="#555555", linestyle=(0, (5, 2)), linewidth=1.2, zorder=2)
        axis.annotate(
            f"{name} {level:.4g}", (0.995, level), xycoords=("axes fraction", "data"), xytext=(0, 3),
            textcoords="offset points", ha="right", fontsize=9.5, color="#333333",
        )  # fmt: skip
        extremes.append(level)
    margin = 0.06 * (max(extremes) - min(extremes)) or 1.0
    axis.set_ylim(min(extremes) - margin, max(extremes) + margin)  # wide intervals of few seeds do not set the scale
    axis.set_xlabel("environment steps", fontsize=11)
    axis.set_ylabel(column.rsplit("/", 1)[-1].replace("_", " ") + f"{f', mean of {smooth} rows' if smooth > 1 else ''}")
    axis.set_title(title, fontsize=13)
    axis.xaxis.set_major_formatter(_si_formatter())
    plain_axes(axis)
    figure.legend(loc="outside right center", frameon=False, fontsize=10.5)
    return save_figure(figure, path)


def read_metric(path: str | Path, column: str, smooth: int = 1) -> tuple[FloatArray, FloatArray]:
    """Read the environment steps and one column of a `metrics.csv`, leaving out rows where the column is empty.

    Raises:
        RunError: If the file is missing, has no rows, or has no such column.
    """
    path = Path(path)
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            names = list(reader.fieldnames or [])
            rows = list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise RunError(f"cannot read the metrics {path}: {error}") from None
    steps = next((name for name in STEP_COLUMNS if name in names), None)
    if steps is None or column not in names:
        missing = column if steps is not None else STEP_COLUMNS[0]
        raise RunError(str(UnknownNameError(f"column of {path}", missing, names)))
    points = [(row[steps], row[column]) for row in rows if row[steps] and row[column]]
    if not points:
        raise RunError(f"{path} has no rows with {column} yet")
    x, y = np.array(points, np.float64).T
    if smooth > 1:
        sums = np.cumsum(np.concatenate([[0.0], y]))
        stop = np.arange(1, len(y) + 1)
        start = np.maximum(stop - smooth, 0)
        y = (sums[stop] - sums[start]) / (stop - start)
    return x, y


def _common_grid(curves: Sequence[tuple[FloatArray, FloatArray]]) -> tuple[FloatArray, FloatArray]:
    last = min(x[-1] for x, _ in curves)
    first = max(x[0] for x, _ in curves)
    grid = curves[0][0]
    grid = grid[(grid >= first) & (grid <= last)]
    if len(grid) == 0:
        grid = np.array([last])
    return grid, np.stack([np.interp(grid, x, y) for x, y in curves])


def _count(seeds: int) -> str:
    return "1 seed" if seeds == 1 else f"{seeds} seeds"


def _si_formatter() -> Any:
    from matplotlib.ticker import EngFormatter

    return EngFormatter(sep="")


def new_figure(width: float, height: float) -> Figure:
    """Make a figure of so many inches, without pyplot."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def plain_axes(axis: Axes) -> None:
    """Give `axis` the look that all pictures share."""
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(axis="y", color="#DDDDDD", linewidth=0.8)
    axis.set_axisbelow(True)
    axis.tick_params(labelsize=10)
    axis.yaxis.label.set_fontsize(11)
    axis.margins(x=0.015)


def save_figure(figure: Figure, path: str | Path) -> Path:
    """Write `figure` to `path`, and return that."""
    path = Path(path)
    figure.savefig(path, dpi=150, facecolor="white")
    return path
