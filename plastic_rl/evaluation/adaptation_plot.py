"""Picture of an evaluation: how the agent and its references get better along the lifetime.

An evaluation goes in, a file comes out. Each agent has a line of its own, told apart by colour, dashes and marker
together, so that neither print without colours nor a tenth reference makes two of them look alike.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from plastic_rl.evaluation.plots import PALETTE, figure_title, new_figure, plain_axes, save_figure
from plastic_rl.evaluation.report import Curve, Evaluation, Score, SplitEvaluation
from plastic_rl.families.classification.environment import REWARDS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D


class _Style(NamedTuple):
    color: str
    line: Any
    width: float
    order: float
    marker: str
    band: float = 0.1
    """Opacity of the interval."""


_AGENT = _Style(PALETTE[0], "-", 2.8, 6, "o", 0.22)
# Thinner, dashed and above the agent, so that neither hides the other where they are equally good.
_FROZEN = _Style(PALETTE[1], "--", 1.6, 6.5, "s", 0.14)
_LIMIT = _Style("#000000", (0, (5, 2.5)), 1.4, 7, "")
_ORACLE = _Style("#777777", ":", 1.8, 3, "")
_RANDOM = _Style("#999999", "-", 1.2, 2, "")
# The numbers of colours, dashes and markers have no common divisor: 5 x 4 x 7 agents differ.
_OTHER_COLORS = (PALETTE[2], PALETTE[3], PALETTE[4], PALETTE[5], PALETTE[6])
_OTHER_LINES = ("-", (0, (6, 1.5)), (0, (3, 1, 1, 1)), (0, (1, 1)))
_OTHER_MARKERS = ("^", "D", "v", "X", "P", "<", ">")
_MARKERS = 7
"""Markers along a line of many points."""


def _other(number: int) -> _Style:
    """The style of the `number`th agent that is neither limit, oracle nor random."""
    return _Style(
        _OTHER_COLORS[number % len(_OTHER_COLORS)],
        _OTHER_LINES[number % len(_OTHER_LINES)],
        1.5,
        3 + 0.01 * number,
        _OTHER_MARKERS[number % len(_OTHER_MARKERS)],
    )


def plot_adaptation(evaluation: Evaluation, path: str | Path) -> Path:
    """Draw how the score develops along the lifetime, one panel per split, with the environment's measures below.

    The agent (sampled actions), its twin with frozen plasticity and every reference agent, with interval bands. Where
    a lifetime is a single trial (an episode of CartPole) nothing develops: their scores are drawn as bars. Markers with
    a dark edge are accuracies on held-out samples, where a lifetime is a data set.

    Args:
        evaluation: What to draw.
        path: `.png`, `.svg` or `.pdf`.

    Returns:
        `path`.
    """
    splits, panels = evaluation.splits, len(evaluation.splits)
    detail = f"({evaluation.made_with})" if evaluation.made_with else ""
    ranked = {split: _ranked(evaluation, result) for split, result in splits.items()}
    many = max(len(scores) for scores in ranked.values())
    if not any(score.curve.develops for result in splits.values() for score in result.entries().values()):
        figure = new_figure(7.2 * panels, 1.7 + 0.5 * many)
        for axis, split in zip(figure.subplots(1, panels, squeeze=False)[0], splits, strict=True):
            _score_panel(axis, splits[split], split, ranked[split])
        figure_title(figure, f"Scores of lifetimes of a single trial: {evaluation.env_id}", detail)
        return save_figure(figure, path)
    longest = max(len(line) for scores in ranked.values() for label in scores for line in label.splitlines())
    measures = evaluation.measures
    height = max(4.2, 0.34 * many + 1.2) + 2.6 * len(measures)
    figure = new_figure(5.6 * panels + max(2.6, 0.085 * longest + 0.5), height)
    axes = figure.subplots(1 + len(measures), panels, squeeze=False, sharey="row")
    handles: dict[str, Line2D] = {}
    for axis, split in zip(axes[0], splits, strict=True):
        handles |= _adaptation_panel(axis, evaluation, split, ranked[split])
    for name, row in zip(measures, axes[1:], strict=True):
        for axis, split in zip(row, splits, strict=True):
            for place, (score, style) in enumerate(ranked[split].values()):
                if name in score.measures:
                    _curve(axis, score.measures[name].curve, style, place / len(ranked[split]))
            axis.set_ylabel(name.replace("_", " "), fontsize=11)
            _lifetime_axis(axis, splits[split].curve)
    figure_title(figure, f"Learning within a lifetime: {evaluation.env_id}", detail)
    figure.legend(
        handles.values(), handles.keys(), loc="outside right center", frameon=False, fontsize=10.5, handlelength=3.6
    )
    return save_figure(figure, path)


def _score_panel(axis: Axes, result: SplitEvaluation, split: str, ranked: dict[str, tuple[Score, _Style]]) -> None:
    """Horizontal bars of the scores with their intervals, best on top."""
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


def _adaptation_panel(
    axis: Axes, evaluation: Evaluation, split: str, ranked: dict[str, tuple[Score, _Style]]
) -> dict[str, Line2D]:
    from matplotlib.lines import Line2D

    result = evaluation.splits[split]
    handles: dict[str, Line2D] = {}
    for place, (name, (score, style)) in enumerate(ranked.items()):
        handles[name] = _curve(axis, score.curve, style, place / len(ranked))
        if score.accuracy_after:
            _accuracy_marks(axis, score, style, pays=REWARDS[evaluation.env_kwargs.get("reward", "01")])
    if result.accuracy_after:
        handles["accuracy on\nheld-out samples"] = Line2D([], [], linestyle="", marker="o", **_edge("#FFFFFF"))
    axis.set_ylabel(f"{result.score_of.replace('_', ' ')} per {result.curve.unit}", fontsize=11)
    axis.set_title(_panel_title(split, result), fontsize=11)
    _lifetime_axis(axis, result.curve)
    return handles


def _lifetime_axis(axis: Axes, curve: Curve) -> None:
    from matplotlib.ticker import MaxNLocator

    binned = f" (bins of {curve.width})" if curve.width > 1 else ""
    axis.set_xlabel(f"{curve.unit} of the lifetime{binned}", fontsize=11)
    if curve.unit == "trial":
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    plain_axes(axis)


def _curve(axis: Axes, curve: Curve, style: _Style, shift: float) -> Line2D:
    """One agent's line with its band; `shift`, 0 to 1, keeps the markers of neighbouring lines apart."""
    x = np.asarray(curve.position)
    every = max(1, len(x) // _MARKERS)
    (line,) = axis.plot(
        x,
        curve.mean,
        color=style.color,
        linestyle=style.line,
        linewidth=style.width,
        zorder=style.order,
        marker=style.marker or ("o" if len(x) == 1 else ""),
        markersize=6 if len(x) > _MARKERS else 4,
        markeredgecolor="white",
        markeredgewidth=0.5,
        markevery=(int(shift * every), every),
    )
    if len(x) == 1:
        errors = np.abs(np.array([curve.low, curve.high]) - np.asarray(curve.mean))
        axis.errorbar(x, curve.mean, errors, color=style.color, capsize=4, zorder=style.order)
    axis.fill_between(x, curve.low, curve.high, color=style.color, alpha=style.band, linewidth=0, zorder=1)
    return line


def _edge(color: str) -> dict[str, Any]:
    return {"markersize": 7, "markerfacecolor": color, "markeredgecolor": "#222222", "markeredgewidth": 1.1}


def _accuracy_marks(axis: Axes, score: Score, style: _Style, pays: tuple[float, float]) -> None:
    """The agent's marker with intervals: the accuracy on held-out samples, as what it would earn per step."""
    wrong, right = pays
    x = [point.samples for point in score.accuracy_after]
    shares = np.array([[point.accuracy, *point.accuracy_interval] for point in score.accuracy_after])
    mean, low, high = wrong + (right - wrong) * shares.T
    axis.errorbar(
        x,
        mean,
        np.abs(np.stack([low, high]) - mean),
        fmt=style.marker or "o",
        ecolor=style.color,
        capsize=4,
        zorder=style.order + 2,
        clip_on=False,
        **_edge(style.color),
    )


def _ranked(evaluation: Evaluation, result: SplitEvaluation) -> dict[str, tuple[Score, _Style]]:
    """Scores by label in the order of their size, so that the legend reads like the plot."""
    drawn: list[tuple[str, Score, _Style]] = [(evaluation.agent, result, _AGENT)]
    if result.frozen is not None:
        label = f"{evaluation.agent},\nplasticity frozen"
        drawn.append((label, result.frozen, _FROZEN))
    others = 0
    for name, score in result.reference_agents.items():
        if name == result.limit_kind:
            told = ", told the task" if score.privileged == "task" else ""
            style, label = _LIMIT, f"{name} (limit{told})"
        elif name == "oracle":
            style, label = _ORACLE, "oracle (told the task)"
        elif name == "random":
            style, label = _RANDOM, "random"
        else:
            style, label = _other(others), name
            others += 1
        drawn.append((label, score, style))
    drawn.sort(key=lambda entry: -entry[1].raw_score)
    return {label: (score, style) for label, score, style in drawn}
