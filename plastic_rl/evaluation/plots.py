"""Learning curves of training runs, alone or of several variants beside each other, and the look of all pictures.

Figures are made without pyplot, so nothing global changes and any thread or worker may draw. Colours are those of
Okabe and Ito, which colour-blind readers can tell apart; line styles differ as well.
"""

from __future__ import annotations

import csv
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from plastic_rl.arrays import FloatArray
from plastic_rl.checkpoint.files import file_named
from plastic_rl.errors import RunError, UnknownNameError
from plastic_rl.evaluation.statistics import student_t_interval
from plastic_rl.plasticity import Curves

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7F6A00", "#000000")
STEP_COLUMNS = ("time/total_timesteps", "total_timesteps", "timesteps", "step")
"""Names that the column of environment steps may have in `metrics.csv`, first choice first."""
SAID = {"rollout/score": "score while training", "valid/score": "score on valid"}
"""What columns are called in a legend."""


def plot_learning_curves(
    runs: Mapping[str, Sequence[str | Path]],
    path: str | Path,
    *,
    column: str = "rollout/score",
    also: str | None = None,
    title: str = "Learning between lifetimes",
    levels: Mapping[str, float] | None = None,
    stages: Mapping[str, float] | None = None,
) -> Path:
    """Draw a column of `metrics.csv` against environment steps, mean and interval over the runs of each name.

    Bands are Student t intervals over runs (seeds), drawn from three runs on; single runs are thin lines. Where runs
    logged at different steps, all are interpolated at those of the first, as far as the shortest reaches.

    Args:
        runs: Files `metrics.csv` of one or more seeds, by the name of the experiment.
        path: `.png`, `.svg` or `.pdf`.
        column: What to draw.
        also: Another column on the same scale, drawn as points for those runs that have it.
        title: Above the plot.
        levels: Horizontal lines by name, e.g. random and limit.
        stages: Steps at which the stages of training end, by name, in their order.

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
        x, table = _common_grid([read_metric(file, column) for file in files])
        mean, low, high = student_t_interval(table)
        seeds = len(table)
        label = f"{name} (1 seed)" if seeds == 1 else f"{name} ({seeds} seeds)"
        if also is not None:
            label += f":\n{SAID.get(column, column)}"
        axis.plot(x, mean, color=color, linestyle=style, linewidth=2.2, label=label, zorder=4)
        extremes += [float(table.min()), float(table.max())]
        if 1 < seeds <= 5:
            axis.plot(x, table.T, color=color, linewidth=0.7, alpha=0.55, zorder=3)
        if seeds > 2:
            axis.fill_between(x, low, high, color=color, alpha=0.18, linewidth=0, zorder=1)
        if also is not None:
            extremes += _draw_also(axis, files, also, PALETTE[(index + 1) % len(PALETTE)])
    for name, level in (levels or {}).items():
        axis.axhline(level, color="#555555", linestyle=(0, (5, 2)), linewidth=1.2, zorder=2)
        axis.annotate(
            f"{name} {level:.4g}", (0.995, level), xycoords=("axes fraction", "data"), xytext=(0, 3),
            textcoords="offset points", ha="right", fontsize=9.5, color="#333333",
        )  # fmt: skip
        extremes.append(level)
    begin = 0.0
    for name, end in (stages or {}).items():
        if begin > 0:
            axis.axvline(begin, color="#555555", linestyle=(0, (1, 2)), linewidth=1.2, zorder=2)
        axis.annotate(
            name, ((begin + end) / 2, 1.0), xycoords=("data", "axes fraction"), xytext=(0, 2),
            textcoords="offset points", ha="center", fontsize=9.5, color="#333333",
        )  # fmt: skip
        begin = end
    margin = 0.06 * (max(extremes) - min(extremes)) or 1.0
    axis.set_ylim(min(extremes) - margin, max(extremes) + margin)  # wide intervals of few seeds do not set the scale
    axis.set_xlabel("environment steps", fontsize=11)
    axis.set_ylabel(column.rsplit("/", 1)[-1].replace("_", " "))
    axis.set_title(title, fontsize=13, pad=20 if stages else None)
    axis.xaxis.set_major_formatter(si_formatter())
    plain_axes(axis)
    figure.legend(loc="outside right center", frameon=False, fontsize=10.5)
    return save_figure(figure, path)


def _draw_also(axis: Axes, files: Sequence[str | Path], column: str, color: str) -> list[float]:
    """Draw the mean over runs of a column taken now and then, and return its extremes; nothing if no run has it."""
    curves = []
    for file in files:
        try:
            curves.append(read_metric(file, column))
        except RunError:
            continue
    if not curves:
        return []
    x, table = _common_grid(curves)
    axis.plot(
        x, table.mean(0), color=color, linestyle="--", linewidth=1.4, marker="o", markersize=4.5,
        label=SAID.get(column, column), zorder=5,
    )  # fmt: skip
    return [float(table.min()), float(table.max())]


@dataclass(frozen=True)
class LearningCurve:
    """How one training run got better.

    Attributes:
        samples: Environment steps done, `(n,)`, ascending.
        seconds: Clock time then, `(n,)`.
        scores: Score on the split `valid` then, `(n,)`.
    """

    samples: FloatArray
    seconds: FloatArray
    scores: FloatArray


@dataclass(frozen=True)
class Estimate:
    """What the tasks of a held-out split said of one variant.

    Attributes:
        label: What was measured, e.g. `accuracy after 1,000`.
        mean: Over tasks and training seeds.
        low: Lower end of its interval.
        high: Upper end.
    """

    label: str
    mean: float
    low: float
    high: float


def plot_comparison(
    curves: Mapping[str, Sequence[LearningCurve]],
    outcomes: Mapping[str, Sequence[Estimate]],
    path: str | Path,
    *,
    title: str,
) -> Path:
    """Draw three panels: scores while training against samples, against seconds, and the outcomes with their intervals.

    Args:
        curves: Of each seed, by the name of the variant; thin lines, with the mean of the ends marked.
        outcomes: By the same names; the same labels in the same order everywhere.
        path: `.png`, `.svg` or `.pdf`.
        title: Above the picture.

    Returns:
        `path`.
    """
    figure = new_figure(13.2, 4.4)
    by_samples, by_seconds, final = figure.subplots(1, 3)
    colors = {name: PALETTE[index % len(PALETTE)] for index, name in enumerate(curves)}
    unit, seconds = _unit(max(curve.seconds[-1] for seeds in curves.values() for curve in seeds))
    for name, seeds in curves.items():
        for index, curve in enumerate(seeds):
            label = name if index == 0 else None
            for axis, x in ((by_samples, curve.samples), (by_seconds, curve.seconds / seconds)):
                axis.plot(x, curve.scores, color=colors[name], linewidth=1.6, marker="o", markersize=3, label=label)
                label = None
    by_samples.set_xlabel("samples lived through", fontsize=11)
    by_samples.set_ylabel("score on valid")
    plain_axes(by_samples)
    _log_ticks(by_samples)
    by_seconds.set_xlabel(f"{unit} of training", fontsize=11)
    plain_axes(by_seconds)
    by_seconds.set_xlim(left=0)
    labels = [outcome.label for outcome in next(iter(outcomes.values()))]
    width = 0.8 / len(outcomes)
    for index, (name, measured) in enumerate(outcomes.items()):
        places = np.arange(len(measured)) + (index - (len(outcomes) - 1) / 2) * width
        means = np.array([outcome.mean for outcome in measured])
        ends = np.array([[outcome.low for outcome in measured], [outcome.high for outcome in measured]])
        errors = np.nan_to_num(np.abs(ends - means))  # one seed has no interval
        final.bar(places, means, width, color=colors[name], zorder=2)
        final.errorbar(places, means, yerr=errors, fmt="none", color="#333333", capsize=3, elinewidth=1.2, zorder=3)
    final.set_xticks(range(len(labels)), labels, fontsize=9.5)
    lowest = np.nanmin([0.0, *(outcome.low for measured in outcomes.values() for outcome in measured)])
    final.set_ylim(float(lowest), None)
    final.set_title("tasks never met", fontsize=11)
    plain_axes(final)
    figure_title(figure, title)
    figure.legend(loc="outside lower center", ncols=len(curves), frameon=False, fontsize=10.5)
    return save_figure(figure, path)


@dataclass(frozen=True)
class LabelledDifference:
    """The difference that a mechanism makes, as a row of a picture.

    Attributes:
        label: Name of the question, and the kind of mechanism.
        detail: What was measured, and where.
        mean: Difference towards what was claimed, on the scale that all rows share; NaN where there is none.
        low: Lower end of its interval.
        high: Upper end.
        verdict: In words; it is the colour of the row.
        note: The means of both sides.
    """

    label: str
    detail: str
    mean: float
    low: float
    high: float
    verdict: str
    note: str


VERDICT_COLORS = {"helps": "#009E73", "hurts": "#D55E00", "no difference shown": "#666666"}


def plot_differences(rows: Sequence[LabelledDifference], path: str | Path, *, title: str) -> Path:
    """Draw the difference of each question with its interval, one row each, coloured by the verdict.

    Args:
        rows: From the top down.
        path: `.png`, `.svg` or `.pdf`.
        title: Above the picture.

    Returns:
        `path`.
    """
    figure = new_figure(10.4, 1.9 + 0.62 * len(rows))
    axis = figure.subplots()
    seen = [end for row in rows for end in (row.mean, row.low, row.high) if not np.isnan(end)]
    # An interval of few seeds may be far wider than all differences: one that goes on beyond the picture has an arrow.
    most = max((abs(row.mean) for row in rows if not np.isnan(row.mean)), default=1.0) or 1.0
    limit = 1.15 * min(max(map(abs, seen), default=1.0) or 1.0, max(2.5 * most, 0.1))
    for place, row in enumerate(rows):
        color = VERDICT_COLORS.get(row.verdict, "#999999")
        axis.axhline(place, color="#EEEEEE", linewidth=0.8, zorder=0)
        if np.isnan(row.mean):
            continue
        if not np.isnan(row.low):
            axis.plot([row.low, row.high], [place, place], color=color, linewidth=2.4, solid_capstyle="butt", zorder=2)
        axis.plot(row.mean, place, "o", color=color, markersize=8, zorder=3)
        for end, marker in ((row.low, "<"), (row.high, ">")):
            if abs(end) > limit:
                axis.plot(0.985 * np.sign(end) * limit, place, marker, color=color, markersize=9, zorder=4)
    axis.axvline(0, color="#333333", linewidth=1, zorder=1)
    axis.set_xlim(-limit, limit)
    axis.set_ylim(len(rows) - 0.5, -0.5)
    names = [f"{row.label}\n{row.detail}" for row in rows]
    axis.set_yticks(range(len(rows)), names)
    right = axis.secondary_yaxis("right")
    right.set_yticks(range(len(rows)), [f"{row.note}\n{row.verdict}" for row in rows])
    right.tick_params(length=0, labelsize=9.5)
    axis.annotate(
        "with | without", (1, 1), xycoords="axes fraction", xytext=(6, 4), textcoords="offset points", fontsize=9.5,
        color="#333333",
    )  # fmt: skip
    right.spines["right"].set_visible(False)
    for tick, row in zip(right.get_yticklabels(), rows, strict=True):
        tick.set_color(VERDICT_COLORS.get(row.verdict, "#777777"))
    stars = "\n* no limit is known: 1 is the larger mean" if any("*" in row.detail for row in rows) else ""
    axis.set_xlabel(f"with minus without, towards the claim (1: from random to the limit){stars}", fontsize=11)
    plain_axes(axis)
    axis.grid(axis="y", visible=False)
    axis.grid(axis="x", color="#DDDDDD", linewidth=0.8)
    axis.tick_params(axis="y", length=0)
    figure_title(figure, title)
    return save_figure(figure, path)


def plot_curves(curves: Mapping[str, Curves], path: str | Path) -> Path:
    """Draw what parts of a synapse or a unit show of themselves, one panel each.

    Args:
        curves: By the title of their panel.
        path: `.png`, `.svg` or `.pdf`.

    Returns:
        `path`.
    """
    figure = new_figure(6.0 * len(curves), 4.2)
    for axis, (title, drawn) in zip(figure.subplots(1, len(curves), squeeze=False)[0], curves.items(), strict=True):
        x = drawn.x.numpy()
        for place, (name, line) in enumerate(drawn.lines.items()):
            style = ("-", "--", "-.", ":")[place % 4]
            axis.plot(x, line.numpy(), style, color=PALETTE[place % len(PALETTE)], linewidth=2, label=name)
        if any(drawn.lines):
            # Many lines leave no room among them.
            beside: dict[str, Any] = {"loc": "center left", "bbox_to_anchor": (1.0, 0.5)}
            axis.legend(frameon=False, fontsize=10, **(beside if len(drawn.lines) > 4 else {}))
        axis.axhline(0, color="#555555", linewidth=0.8)
        axis.set_xlabel(drawn.x_label, fontsize=11)
        axis.set_ylabel(drawn.y_label)
        axis.set_title(title, fontsize=13)
        plain_axes(axis)
    return save_figure(figure, path)


def _unit(longest: float) -> tuple[str, float]:
    """The unit in which up to `longest` seconds read well, and its seconds."""
    return ("seconds", 1.0) if longest < 180 else ("minutes", 60.0) if longest < 3 * 3600 else ("hours", 3600.0)


def _log_ticks(axis: Axes) -> None:
    """Make the x axis logarithmic, with ticks written as 200, 5k, 2M at about every factor of 2, 5 or 10."""
    from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

    axis.set_xscale("log")
    low, high = axis.get_xlim()
    factor = high / low
    if factor < 8:  # too few powers of ten for a logarithmic choice of ticks
        axis.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    else:
        steps = (1.0, 2.0, 5.0) if factor < 300 else (1.0, 3.0) if factor < 3000 else (1.0,)
        axis.xaxis.set_major_locator(LogLocator(subs=steps, numticks=12))
    axis.xaxis.set_major_formatter(si_formatter())
    axis.xaxis.set_minor_formatter(NullFormatter())


def read_metric(path: str | Path, column: str) -> tuple[FloatArray, FloatArray]:
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
    return x, y


def _common_grid(curves: Sequence[tuple[FloatArray, FloatArray]]) -> tuple[FloatArray, FloatArray]:
    last = min(x[-1] for x, _ in curves)
    first = max(x[0] for x, _ in curves)
    grid = curves[0][0]
    grid = grid[(grid >= first) & (grid <= last)]
    if len(grid) == 0:
        grid = np.array([last])
    return grid, np.stack([np.interp(grid, x, y) for x, y in curves])


def si_formatter() -> Any:
    """Ticks as 500, 20k, 1.5M."""
    from matplotlib.ticker import EngFormatter

    return EngFormatter(sep="")


def new_figure(width: float, height: float) -> Figure:
    """Make a figure of so many inches, without pyplot."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def figure_title(figure: Figure, text: str, detail: str = "") -> None:
    """Write a title above a figure, with `detail` on lines of its own where the figure is too narrow for one line."""
    room = int(9.5 * figure.get_figwidth())  # letters of this size
    whole = f"{text} {detail}".rstrip()
    lines = [whole] if len(whole) <= room else [text, detail]
    wrapped = [textwrap.fill(line, room, break_on_hyphens=False) for line in lines if line]
    figure.suptitle("\n".join(wrapped), fontsize=13)


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
    with file_named(path):
        figure.savefig(path, dpi=150, facecolor="white")
    return path
