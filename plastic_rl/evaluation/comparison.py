"""Picture of several variants of training the same agent: learning against samples and seconds, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from plastic_rl.arrays import FloatArray
from plastic_rl.evaluation.plots import PALETTE, figure_title, new_figure, plain_axes, save_figure, si_formatter

if TYPE_CHECKING:
    from matplotlib.axes import Axes


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
    score: str = "score on valid",
) -> Path:
    """Draw three panels: scores while training against samples, against seconds, and the outcomes with their intervals.

    Args:
        curves: Of each seed, by the name of the variant; thin lines, with the mean of the ends marked.
        outcomes: By the same names; the same labels in the same order everywhere.
        path: `.png`, `.svg` or `.pdf`.
        title: Above the picture.
        score: What the curves show.

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
    by_samples.set_ylabel(score)
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
