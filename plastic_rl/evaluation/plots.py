"""Learning curves of training runs, and the look that all pictures of the package share.

Figures are made without pyplot, so nothing global changes and any thread or worker may draw. Colours are those of
Okabe and Ito, which colour-blind readers can tell apart; line styles differ as well.
"""

from __future__ import annotations

import csv
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from plastic_rl.arrays import FloatArray
from plastic_rl.checkpoint.files import file_named
from plastic_rl.errors import RunError, UnknownNameError
from plastic_rl.evaluation.statistics import student_t_interval

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
        also: Another column on the same scale, drawn as points for those runs that have it.
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
        label = f"{name} ({_count(seeds)})" if also is None else f"{name} ({_count(seeds)}):\n{_said(column)}"
        axis.plot(x, mean, color=color, linestyle=style, linewidth=2.2, label=label, zorder=4)
        extremes += [float(table.min()), float(table.max())]
        if 1 < seeds <= 5:
            axis.plot(x, table.T, color=color, linewidth=0.7, alpha=0.55, zorder=3)
        if seeds > 2:
            axis.fill_between(x, low, high, color=color, alpha=0.18, linewidth=0, zorder=1)
        if also is not None:
            extremes += _draw_also(axis, files, also, PALETTE[(index + 1) % len(PALETTE)], smooth)
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
    axis.xaxis.set_major_formatter(si_formatter())
    plain_axes(axis)
    figure.legend(loc="outside right center", frameon=False, fontsize=10.5)
    return save_figure(figure, path)


def _draw_also(axis: Axes, files: Sequence[str | Path], column: str, color: str, smooth: int) -> list[float]:
    """Draw the mean over runs of a column taken now and then, and return its extremes; nothing if no run has it."""
    curves = []
    for file in files:
        try:
            curves.append(read_metric(file, column, smooth))
        except RunError:
            continue
    if not curves:
        return []
    x, table = _common_grid(curves)
    axis.plot(
        x, table.mean(0), color=color, linestyle="--", linewidth=1.4, marker="o", markersize=4.5,
        label=_said(column), zorder=5,
    )  # fmt: skip
    return [float(table.min()), float(table.max())]


def _said(column: str) -> str:
    return SAID.get(column, column)


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


def si_formatter() -> Any:
    """Ticks as 500, 20k, 1.5M."""
    from matplotlib.ticker import EngFormatter

    return EngFormatter(sep="")


def new_figure(width: float, height: float) -> Figure:
    """Make a figure of so many inches, without pyplot."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


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
