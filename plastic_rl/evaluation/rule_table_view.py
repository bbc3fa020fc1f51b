"""Rule tables as a user reads them: what they do to weights, and how often each entry is used.

Data flows from an agent whose network is a `rule_table` through lifetimes, in which every look-up is counted, to one
`TableView` a table, and from there to text, a CSV file or a picture.
"""

from __future__ import annotations

import csv
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from plastic_rl.arrays import FloatArray
from plastic_rl.checkpoint.files import file_named
from plastic_rl.envs.task import Agent, Task
from plastic_rl.errors import ConfigError
from plastic_rl.evaluation.lifetimes import StepContext, run_lifetimes
from plastic_rl.evaluation.plots import figure_title, new_figure, save_figure
from plastic_rl.networks.rule_table.network import RuleTableNetwork
from plastic_rl.policies import PlasticPolicy

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.image import AxesImage

WIDTH = 80
"""Columns of the terminal that texts fit into."""
LISTED = 12
"""Entries that are listed of a table too wide for that."""
RARE = 0.0005
"""Share of use below which an entry is drawn pale."""


@dataclass(frozen=True)
class TableView:
    """One table, or that part of one that holds under one condition of the reward.

    Attributes:
        title: Which weights it changes, and when.
        row_axis: What the rows are.
        column_axis: What the columns are.
        rows: Their names: firing histories (round 0 first), or a condition.
        columns: Their names.
        change: What an entry adds to a weight (times the presynaptic activity, where the rule has that factor), or
            by what share it changes it: `(rows, columns)`.
        use: Share of each entry among all look-ups in this layer's table, `(rows, columns)`; NaN if none was counted.
    """

    title: str
    row_axis: str
    column_axis: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    change: FloatArray
    use: FloatArray


def view_tables(
    agent: Agent,
    env_id: str,
    tasks: Sequence[Task],
    *,
    env_kwargs: Mapping[str, Any] | None = None,
    trials: int = 1,
    same_task_each_trial: bool | None = None,
    wrappers: Sequence[Mapping[str, Any]] = (),
    seed: int = 0,
) -> list[TableView]:
    """Let the agent live one lifetime on each task, count the use of each table entry, and lay the tables out.

    The arguments are those of `run_lifetimes`; the agent or policy is one whose network is a `rule_table`.

    Raises:
        ConfigError: If the agent has no rule tables.
    """
    policy: Any = getattr(agent, "policy", agent)
    network = policy.network if isinstance(policy, PlasticPolicy) else None
    if not isinstance(network, RuleTableNetwork):
        kind = policy.network_config["kind"] if isinstance(policy, PlasticPolicy) else type(policy).__name__
        raise ConfigError(f"this agent ({kind}) has no rule tables to show; networks of kind rule_table have them.")
    totals: dict[str, FloatArray] = {}

    def count(context: StepContext) -> None:
        shown = torch.as_tensor(context.view(context.observation), dtype=torch.float32)
        start = torch.zeros(len(shown), dtype=torch.bool)
        state = {name: entry.cpu() for name, entry in context.state.items()}
        for name, uses in network.update.uses(policy.feedback(shown, start), state, start).items():
            totals[name] = totals.get(name, 0) + uses.numpy()

    run_lifetimes(
        agent,
        env_id,
        tasks,
        env_kwargs=env_kwargs,
        trials=trials,
        same_task_each_trial=same_task_each_trial,
        wrappers=wrappers,
        seed=seed,
        on_step=count,
    )
    return _views(network, totals)


def _views(network: RuleTableNetwork, totals: Mapping[str, FloatArray]) -> list[TableView]:
    config = network.config
    rounds = config.rounds + 1
    histories = tuple(
        "".join(str(code >> number & 1) for number in range(rounds)) for code in range(network.update.codes)
    )
    params = dict(network.named_parameters())
    views: list[TableView] = []
    for place, layer in enumerate(network.update.layers):
        name = f"{layer}_table"
        step = getattr(config.step, layer) * params["log_step"].detach()[place].exp().item()
        change = step * params[name].detach().double().cpu().numpy()
        uses = totals.get(name)
        share = np.full(change.shape, np.nan) if uses is None or not uses.sum() else uses / uses.sum()
        if layer == "output":
            axes = "hidden -> output weights", "hidden unit's firing history", "output", histories, config.conditions
            views.append(TableView(*axes, change, share))
        elif layer == "input":
            axes = "input -> hidden weights", "hidden unit's firing history", "reward", histories, config.gates("input")
            views.append(TableView(*axes, change.T, share.T))
        else:
            for gate, own, used in zip(config.gates("hidden"), change, share, strict=True):
                title = "hidden -> hidden weights" + ("" if gate == "any" else f", {gate}")
                axes = title, "pre unit's history", "post unit's history", histories, histories
                views.append(TableView(*axes, own, used))
    return views


def tables_text(views: Sequence[TableView]) -> str:
    """The tables as text of at most `WIDTH` columns: each entry's change of a weight and its share of use.

    Of a table too wide for that, the `LISTED` entries of the greatest effect are listed; `write_tables` writes all.
    """
    return "\n\n".join("\n".join(_text(view)) for view in views)


def _text(view: TableView) -> list[str]:
    cells = [[_cell(*entry) for entry in zip(*rows, strict=True)] for rows in zip(view.change, view.use, strict=True)]
    grid = _aligned([["", *view.columns], *([name, *row] for name, row in zip(view.rows, cells, strict=True))])
    lines = [view.title, f"  {_summary(view)}"]
    if max(map(len, grid)) > WIDTH:
        return lines + _listing(view)
    if strongest := _strongest(view, 3):
        named = [
            f"{view.rows[row]} / {view.columns[column]} {view.change[row, column]:+.2g}" for row, column in strongest
        ]
        effect = f"most effect (change x use): {'; '.join(named)}"
        lines.append(textwrap.fill(effect, WIDTH, initial_indent="  ", subsequent_indent="    "))
    return [*lines, f"  rows: {view.row_axis}; columns: {view.column_axis}", *grid]


def _aligned(table: Sequence[Sequence[str]]) -> list[str]:
    """Lines in which the columns are as wide as they must be."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return ["  " + "  ".join(text.rjust(width) for text, width in zip(row, widths, strict=True)) for row in table]


def _cell(change: float, use: float) -> str:
    return f"{change:+.2g}" if np.isnan(use) else f"{change:+.2g} ({use:.1%})"


def _summary(view: TableView) -> str:
    """How often this table strengthens weights."""
    if np.isnan(view.use).any():
        return "no use was counted"
    total = view.use.sum()
    if total == 0:
        return "never used"
    up, down = view.use[view.change > 0].sum() / total, view.use[view.change < 0].sum() / total
    return f"strengthens {up:.1%} of the weights that it meets, weakens {down:.1%}"


def _strongest(view: TableView, number: int) -> list[tuple[int, int]]:
    """Row and column of the entries with the greatest effect, the change times the use; none that has no effect."""
    effect = np.abs(view.change) * np.nan_to_num(view.use, nan=1.0)
    order = [int(place) for place in np.argsort(-effect, axis=None, kind="stable")[:number] if effect.flat[place] > 0]
    return [divmod(place, len(view.columns)) for place in order]


def _listing(view: TableView) -> list[str]:
    """The entries of a large table that matter, one on a line."""
    places = _strongest(view, LISTED)
    rows = [
        [view.rows[row], view.columns[column], f"{view.change[row, column]:+.2g}", f"{view.use[row, column]:.1%}"]
        for row, column in places
    ]
    lines = _aligned([[view.row_axis, view.column_axis, "change", "use"], *rows]) if rows else []
    used = int((view.use > 0).sum())
    return [*lines, f"  {len(rows)} of {view.change.size} entries: the greatest change x use; {used} were used"]


def write_tables(views: Sequence[TableView], path: str | Path) -> Path:
    """Write every entry of every table as a row of a CSV file, and return `path`."""
    path = Path(path)
    with file_named(path), path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["table", "row", "column", "change", "use"])
        for view in views:
            for (row, column), change in np.ndenumerate(view.change):
                names = view.title, view.rows[row], view.columns[column]
                writer.writerow([*names, repr(float(change)), repr(float(view.use[row, column]))])
    return path


def plot_tables(views: Sequence[TableView], path: str | Path) -> Path:
    """Draw each table as a picture of changes (blue weakens, red strengthens) above one of the share of use.

    Entries used in less than `RARE` of all look-ups are paler, for they hardly matter.

    Args:
        views: From `view_tables`.
        path: `.png`, `.svg` or `.pdf`.

    Returns:
        `path`.

    Raises:
        ConfigError: If there is nothing to draw.
    """
    if not views:
        raise ConfigError("no layer of this network is plastic: there are no tables to draw.")
    sizes = [max(2.8, 0.42 * len(view.columns) + 0.8) for view in views]
    height = max(2.2, 0.24 * max(len(view.rows) for view in views))
    below = 0.09 * max(len(name) for view in views for name in view.columns)
    figure = new_figure(sum(sizes) + len(views) * 1.2, 2 * height + below + 1.4)
    axes = figure.subplots(2, len(views), squeeze=False, sharex="col", gridspec_kw={"width_ratios": sizes})
    for (upper, lower), view in zip(axes.T, views, strict=True):
        _draw_changes(upper, view)
        _draw_use(lower, view)
        lower.set_xticks(range(len(view.columns)), view.columns, rotation=60, ha="right", fontsize=9)
        lower.set_xlabel(view.column_axis, fontsize=10)
        for axis in (upper, lower):
            axis.set_yticks(range(len(view.rows)), view.rows, fontsize=9)
            axis.set_ylabel(view.row_axis, fontsize=10)
            axis.tick_params(axis="x", length=0)
    figure_title(figure, "Rule tables", f"(pale: less than {RARE:.2%} of look-ups)")
    return save_figure(figure, path)


def _draw_changes(axis: Axes, view: TableView) -> None:
    rare = view.use < RARE
    # What weights hardly ever met must not set the scale.
    largest = float(np.abs(view.change if rare.all() else view.change[~rare]).max()) or 1.0
    image = axis.imshow(
        view.change, aspect="auto", cmap="RdBu_r", vmin=-largest, vmax=largest, alpha=np.where(rare, 0.2, 1.0)
    )
    for (row, column), change in np.ndenumerate(view.change):
        color = "#777777" if rare[row, column] else _ink(abs(change) / largest)
        axis.text(column, row, _short(1000 * change), ha="center", va="center", fontsize=8, color=color)
    axis.set_title(f"{view.title}\nchange of a weight x 1000", fontsize=10.5)
    _scale(axis, image, 1000)


def _draw_use(axis: Axes, view: TableView) -> None:
    largest = np.nanmax(view.use, initial=0.0) or 1.0
    image = axis.imshow(view.use, aspect="auto", cmap="Greys", vmin=0.0, vmax=largest)
    for row, column in np.argwhere(view.use >= RARE):
        use = view.use[row, column]
        axis.text(column, row, _short(100 * use), ha="center", va="center", fontsize=8, color=_ink(use / largest))
    axis.set_title("share of use in per cent", fontsize=10.5)
    _scale(axis, image, 100)


def _scale(axis: Axes, image: AxesImage, factor: float) -> None:
    bar = axis.figure.colorbar(image, ax=axis, shrink=0.9)
    bar.ax.yaxis.set_major_formatter(lambda value, _: f"{factor * value:.3g}")
    bar.ax.tick_params(labelsize=9)


def _ink(depth: float) -> str:
    """What can be read on a cell whose colour has this depth, 0 to 1."""
    return "white" if depth > 0.6 else "#222222"


def _short(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 9.95 else f"{value:.1f}"
