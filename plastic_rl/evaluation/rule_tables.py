"""Rule tables as a user reads them: what they do to weights, and how often each entry is used.

Data flows from an agent whose network is a `rule_table` through lifetimes, in which every look-up is counted, to one
`TableView` a table, and from there to text or a picture.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from plastic_rl.errors import ConfigError
from plastic_rl.evaluation.lifetimes import Moment, run_lifetimes
from plastic_rl.evaluation.plots import new_figure, save_figure
from plastic_rl.evaluation.statistics import FloatArray
from plastic_rl.networks.rule_table import RuleTableNetwork
from plastic_rl.policies import PlasticPolicy
from plastic_rl.tasks.base import Agent, Task

MANY_CELLS = 40


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
    seed: int = 0,
) -> list[TableView]:
    """Let the agent live one lifetime on each task, count the use of each table entry, and lay the tables out.

    Args:
        agent: A trained agent or policy whose network is a `rule_table`.
        env_id: Where it lives.
        tasks: One lifetime each; actions are sampled.
        env_kwargs: Arguments of the environment.
        trials: Trials in a lifetime of an environment that has no lifetimes of its own.
        seed: Of the environment's noise.

    Raises:
        ConfigError: If the agent has no rule tables.
    """
    policy: Any = getattr(agent, "policy", agent)
    network = policy.network if isinstance(policy, PlasticPolicy) else None
    if not isinstance(network, RuleTableNetwork):
        kind = policy.network_config["kind"] if isinstance(policy, PlasticPolicy) else type(policy).__name__
        raise ConfigError(f"this agent ({kind}) has no rule tables to show; networks of kind rule_table have them.")
    totals: dict[str, FloatArray] = {}

    def count(moment: Moment) -> None:
        shown = torch.as_tensor(moment.view(moment.observation), dtype=torch.float32)
        start = torch.zeros(len(shown), dtype=torch.bool)
        state = {name: entry.cpu() for name, entry in moment.state.items()}
        for name, uses in network.uses(policy.feedback(shown, start), state, start).items():
            totals[name] = totals.get(name, 0) + uses.numpy()

    run_lifetimes(agent, env_id, tasks, env_kwargs=env_kwargs, trials=trials, seed=seed, watch=count)
    return _views(network, totals)


def _views(network: RuleTableNetwork, totals: Mapping[str, FloatArray]) -> list[TableView]:
    config = network.config
    rounds = config.rounds + 1
    histories = tuple(
        "".join(str(code >> number & 1) for number in range(rounds)) for code in range(network.update.codes)
    )
    params = dict(network.named_parameters())
    views: list[TableView] = []
    for place, layer in enumerate(network.plastic_layers):
        name = f"{layer}_table"
        step = getattr(config.step, layer) * params["log_step"].detach()[place].exp().item()
        change = step * params[name].detach().double().cpu().numpy()
        uses = totals.get(name)
        share = np.full(change.shape, np.nan) if uses is None or not uses.sum() else uses / uses.sum()
        if layer == "output":
            title, axis = "hidden -> output weights", "hidden unit's firing history"
            views.append(TableView(title, axis, "output", histories, config.conditions, change, share))
        elif layer == "input":
            title = "input -> hidden weights"
            gates = config.gates("input")
            views.append(
                TableView(title, "hidden unit's firing history", "reward", histories, gates, change.T, share.T)
            )
        else:
            for gate, own, used in zip(config.gates("hidden"), change, share, strict=True):
                title = "hidden -> hidden weights" + ("" if gate == "any" else f", {gate}")
                views.append(
                    TableView(title, "pre unit's history", "post unit's history", histories, histories, own, used)
                )
    return views


def tables_text(views: Sequence[TableView]) -> str:
    """The tables as text: each entry's change of a weight and, behind it, its share of use.

    Rows and columns of a large table that were never used are left out, and counted.
    """
    return "\n\n".join(_text(view) for view in views)


def _text(view: TableView) -> str:
    lines = [view.title, f"  {_summary(view)}", f"  rows: {view.row_axis}; columns: {view.column_axis}"]
    rows, columns = list(range(len(view.rows))), list(range(len(view.columns)))
    if view.change.size > MANY_CELLS and not np.isnan(view.use).any():
        rows = [row for row in rows if view.use[row].any()]
        columns = [column for column in columns if view.use[:, column].any()]
    cells = [
        [view.rows[row], *(_cell(view.change[row, column], view.use[row, column]) for column in columns)]
        for row in rows
    ]
    table = [["", *(view.columns[column] for column in columns)], *cells]
    widths = [max(len(line[place]) for line in table) for place in range(len(table[0]))]
    lines += ["  " + "  ".join(text.rjust(width) for text, width in zip(line, widths, strict=True)) for line in table]
    missing = len(view.rows) - len(rows), len(view.columns) - len(columns)
    if any(missing):
        lines.append(f"  (never used and not shown: {missing[0]} rows, {missing[1]} columns)")
    return "\n".join(lines)


def _cell(change: float, use: float) -> str:
    return f"{change:+.3g}" if np.isnan(use) else f"{change:+.3g} ({use:.1%})"


def _summary(view: TableView) -> str:
    """How often this table strengthens weights, and its strongest entries in use."""
    if np.isnan(view.use).any():
        return "no use was counted"
    total = view.use.sum()
    if total == 0:
        return "never used"
    up, down = view.use[view.change > 0].sum() / total, view.use[view.change < 0].sum() / total
    text = f"strengthens {up:.1%} of the weights that it meets, weakens {down:.1%}"
    weight = np.abs(view.change) * view.use
    strongest = [int(place) for place in np.argsort(-weight, axis=None)[:3] if weight.flat[int(place)] > 0]
    named = []
    for place in strongest:
        row, column = divmod(place, len(view.columns))
        named.append(f"{view.rows[row]} / {view.columns[column]} {view.change[row, column]:+.3g}")
    return f"{text}; most effect (change x use): {'; '.join(named)}" if named else text


def plot_tables(views: Sequence[TableView], path: str | Path) -> Path:
    """Draw each table as a picture of changes (blue weakens, red strengthens) above one of the share of use.

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
    sizes = [max(2.6, 0.34 * len(view.columns) + 1.6) for view in views]
    height = max(2.2, 0.2 * max(len(view.rows) for view in views))
    figure = new_figure(sum(sizes) + 1.0, 2 * height + 1.2)
    axes = figure.subplots(2, len(views), squeeze=False, gridspec_kw={"width_ratios": sizes})
    for place, view in enumerate(views):
        largest = float(np.abs(view.change).max()) or 1.0
        pictures = (
            (view.change, {"cmap": "RdBu_r", "vmin": -largest, "vmax": largest}, "change of a weight"),
            (view.use, {"cmap": "Greys", "vmin": 0.0}, "share of use"),
        )
        for row, (values, style, label) in enumerate(pictures):
            axis = axes[row][place]
            image = axis.imshow(values, aspect="auto", interpolation="nearest", **style)
            axis.set_xticks(range(len(view.columns)), view.columns, rotation=60, ha="right", fontsize=8)
            axis.set_yticks(range(len(view.rows)), view.rows, fontsize=8)
            axis.set_ylabel(view.row_axis, fontsize=9)
            axis.set_xlabel(view.column_axis, fontsize=9)
            axis.set_title(f"{view.title}\n{label}" if row == 0 else label, fontsize=10)
            figure.colorbar(image, ax=axis, shrink=0.8)
    return save_figure(figure, path)
