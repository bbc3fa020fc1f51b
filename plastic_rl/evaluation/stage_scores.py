"""What an agent can do on each stage of its training after each of them: the matrix of scores, forgetting and transfer.

References:
    Lopez-Paz & Ranzato 2017, arXiv 1706.08840 (the matrix R, backward and forward transfer).

Rows are agents: the untrained one, then that of each stage's end. Columns are the environments of the stages, each
once.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from pydantic import Field, ValidationError, model_validator

from plastic_rl.arrays import FloatArray
from plastic_rl.config import ConfigModel
from plastic_rl.envs.wrappers import made_with
from plastic_rl.errors import RunError, unknown_name_message
from plastic_rl.evaluation.plots import figure_title, new_figure, save_figure
from plastic_rl.evaluation.statistics import Pair, student_t_interval
from plastic_rl.evaluation.table import Column, fit, folded

UNTRAINED = "untrained"
WIDTH = 80
"""Columns of a table that is not for a terminal."""


class Tested(ConfigModel):
    """An environment that all agents are scored in."""

    name: str
    """That of the first stage in it."""
    id: str
    kwargs: dict[str, Any]
    trials: int
    same_task_each_trial: bool | None
    wrappers: tuple[dict[str, Any], ...]
    tasks: int = Field(ge=1)
    """Tasks `0` to `tasks - 1` of the split."""
    random: float | None
    """Score of the random agent; None where the distribution has none."""
    limit_kind: str
    """Which reference agent is the limit, or `none`."""
    limit: float | None
    """Its score."""

    @property
    def title(self) -> str:
        """Id, arguments, trials and wrappers."""
        text = made_with(self.kwargs, self.trials, self.same_task_each_trial, self.wrappers)
        return f"{self.id} ({text})" if text else self.id


class StageScores(ConfigModel):
    """The matrix of scores of a run, or the mean of those of several seeds: the contents of `stages.json`."""

    format: Literal[1] = 1
    """Version of this layout."""
    agent: str
    split: str
    seeds: int = Field(default=1, ge=1)
    """Training runs that the scores are the mean of."""
    stages: tuple[str, ...] = Field(min_length=1)
    """Names of the stages, in the order of training."""
    column: tuple[int, ...]
    """Place of each stage's environment in `tested`."""
    tested: tuple[Tested, ...]
    scores: tuple[tuple[float, ...], ...]
    """Score per lifetime: a row for the untrained agent and for that of each stage's end, a column for each tested."""
    intervals: tuple[tuple[Pair, ...], ...]
    """Their intervals: over tasks (one run), or over seeds."""
    backward_transfer: float | None = None
    """Mean over all stages but the last of the score at the end minus that right after the stage's own training."""
    forward_transfer: float | None = None
    """Mean over all stages but the first of the score right before the stage minus that of the untrained agent."""
    forgetting: float | None = None
    """Mean over all stages but the last of the score right after the stage minus that after the next one."""
    transfer_intervals: dict[str, Pair] = Field(default_factory=dict)
    """Intervals of the three over seeds, by name; none of one run."""

    @model_validator(mode="before")
    @classmethod
    def _derived(cls, given: Any) -> Any:
        if not isinstance(given, dict) or len(given.get("stages", ())) < 2 or "backward_transfer" in given:
            return given
        try:
            return {**given, **transfers(np.array(given["scores"]), given["column"])}
        except (IndexError, KeyError, TypeError, ValueError):
            return given  # no matrix: `_is_a_matrix` says so

    @model_validator(mode="after")
    def _is_a_matrix(self) -> Self:
        rows, columns = len(self.stages) + 1, len(self.tested)
        for name in ("scores", "intervals"):
            table = getattr(self, name)
            if len(table) != rows or any(len(row) != columns for row in table):
                raise ValueError(f"{name} must have {rows} rows and {columns} columns")
        if len(self.column) != len(self.stages) or not all(0 <= place < columns for place in self.column):
            raise ValueError(f"column must tell one of {columns} columns for each of {len(self.stages)} stages")
        return self

    def to_json(self) -> bytes:
        """Return it as indented JSON."""
        return f"{self.model_dump_json(indent=2)}\n".encode()

    @classmethod
    def load(cls, path: str | Path) -> StageScores:
        """Read what `to_json` returned from a file.

        Raises:
            RunError: If the file is missing or holds something else.
        """
        try:
            return cls.model_validate_json(Path(path).read_bytes())
        except OSError as error:
            raise RunError(f"cannot read the scores of stages {path}: {error.strerror}") from None
        except (ValidationError, ValueError) as error:
            raise RunError(
                f"{path} holds no scores of stages that plastic_rl wrote ({str(error).splitlines()[0]}). Make it anew "
                "with: plastic-rl evaluate RUN --stages"
            ) from None

    def score(self, tested: str | None = None, trained: str | None = None) -> float:
        """The score in the environment of stage `tested` at the end of stage `trained`.

        Args:
            tested: Name of a stage; None: the mean over the environments of all stages, each once (ACC of the source).
            trained: Name of a stage; None: the last one.

        Raises:
            RunError: If there is no such stage.
        """
        for name in (tested, trained):
            if name is not None and name not in self.stages:
                raise RunError(unknown_name_message("stage", name, self.stages))
        scores = self.scores[-1 if trained is None else self.stages.index(trained) + 1]
        return float(np.mean(scores)) if tested is None else scores[self.column[self.stages.index(tested)]]

    @property
    def rows(self) -> tuple[str, ...]:
        """What the rows are called."""
        return (UNTRAINED, *(f"after {number} {stage}" for number, stage in enumerate(self.stages, 1)))

    @property
    def decimals(self) -> int:
        """Digits behind the point that tell scores of this size apart."""
        size = max(abs(score) for row in self.scores for score in row)
        return 1 if size >= 100 else 2 if size >= 10 else 3

    def table(self, width: int | None = None) -> str:
        """Return it as a table of which no line goes beyond `width` columns; None: the terminal's, or 80."""
        if width is None:
            width = shutil.get_terminal_size().columns if sys.stdout.isatty() else WIDTH
        levels = [name for name in ("random", "limit") if any(getattr(one, name) is not None for one in self.tested)]
        columns = [
            Column(one.name, [self._cell(row, place) for row in range(len(self.scores))] + self._levels(one, levels))
            for place, one in enumerate(self.tested)
        ]
        blocks, _ = fit(Column("", [*self.rows, *levels]), columns, width)
        counts = " or ".join(dict.fromkeys(f"{one.tasks:,}" for one in self.tested))
        over = "tasks" if self.seeds == 1 else f"{self.seeds} seeds (Student t)"
        lines = folded(
            f"Score per lifetime on each stage's tasks (split {self.split}, {counts} tasks) after each stage, with 95% "
            f"intervals over {over}",
            width,
        )
        for one in self.tested:
            lines += folded(f"{one.name}: {one.title}", width)
        for block in blocks:
            lines += ["", *block.header, *(line for row in block.rows for line in row)]
        lines.append("")
        lines += [line for said in self.transfer_lines() for line in folded(said, width)]
        return "\n".join(lines) + "\n"

    def _cell(self, row: int, column: int) -> str:
        return f"{self.scores[row][column]:.{self.decimals}f} {_interval(self.intervals[row][column], self.decimals)}"

    def _levels(self, tested: Tested, levels: Sequence[str]) -> list[str]:
        # Below the scores, whose intervals stand to the right.
        room = len(self._cell(0, self.tested.index(tested)).partition("[")[2]) + 2
        found = [getattr(tested, name) for name in levels]
        return ["-" if level is None else f"{level:.{self.decimals}f}" + " " * room for level in found]

    def transfer_lines(self) -> list[str]:
        """Backward transfer, forward transfer and forgetting, each with what it is; none of a single stage."""
        lines = []
        for name, explained in EXPLAINED.items():
            value, ends = getattr(self, name), self.transfer_intervals.get(name)
            if value is not None:
                over_seeds = "" if ends is None else f" {_interval(ends, self.decimals)}"
                lines.append(f"{name.replace('_', ' ')} {value:+.{self.decimals}f}{over_seeds}: {explained}")
        return lines


EXPLAINED = {
    "backward_transfer": "score at the end minus that right after a stage, mean over all but the last",
    "forward_transfer": "score right before a stage minus the untrained agent's, mean over all but the first",
    "forgetting": "score right after a stage minus that after the next one, mean over all but the last",
}
"""What each number is, by name."""


def transfers(scores: FloatArray, column: Sequence[int]) -> dict[str, float]:
    """Backward and forward transfer (Lopez-Paz & Ranzato 2017, eq. 3 and 4), and forgetting by the next stage.

    Args:
        scores: `(T + 1, K)`: row 0 is of the untrained agent, row i of that after stage i.
        column: Which of the K columns each of the T stages is scored by.

    >>> scores = np.array([[1.0, 1.0], [9.0, 2.0], [4.0, 8.0]])
    >>> transfers(scores, [0, 1])
    {'backward_transfer': -5.0, 'forward_transfer': 1.0, 'forgetting': 5.0}
    """
    stages = np.arange(len(column))
    after, before, untrained = scores[stages + 1, column], scores[stages, column], scores[0, column]
    at_end, after_next = scores[-1, column], scores[np.minimum(stages + 2, len(column)), column]
    return {
        "backward_transfer": float((at_end - after)[:-1].mean()),
        "forward_transfer": float((before - untrained)[1:].mean()),
        "forgetting": float((after - after_next)[:-1].mean()),
    }


def pooled(runs: Sequence[StageScores]) -> StageScores:
    """The mean over the runs of several seeds, with Student t intervals over them."""
    table = np.array([run.scores for run in runs])
    shape = table.shape[1:]
    mean, low, high = student_t_interval(table.reshape(len(runs), -1))
    found = [transfers(scores, runs[0].column) for scores in table] if len(runs[0].stages) > 1 else []
    intervals: dict[str, Pair] = {}
    for name in found[0] if found else ():
        _, lowest, highest = student_t_interval(np.array([[one[name]] for one in found]))
        intervals[name] = (lowest.item(), highest.item())
    pairs = np.stack([low, high], -1).reshape(*shape, 2)
    return StageScores(
        agent=f"{len(runs)} seeds",
        split=runs[0].split,
        seeds=len(runs),
        stages=runs[0].stages,
        column=runs[0].column,
        tested=runs[0].tested,
        scores=tuple(tuple(row) for row in np.reshape(mean, shape)),
        intervals=tuple(tuple((ends[0], ends[1]) for ends in row) for row in pairs.tolist()),
        transfer_intervals=intervals,
    )


def _interval(ends: Pair, decimals: int) -> str:
    return f"[{ends[0]:.{decimals}f}, {ends[1]:.{decimals}f}]"


def plot_stages(scores: StageScores, path: str | Path) -> Path:
    """Draw the matrix as a heat map with its numbers, and backward transfer, forward transfer and forgetting below.

    Each column is coloured by a scale of its own, from the random agent's score to the limit where these are known, or
    from its lowest to its highest; a frame marks the score right after the training in an environment.

    Args:
        scores: What to draw.
        path: `.png`, `.svg` or `.pdf`.

    Returns:
        `path`.
    """
    from matplotlib.patches import Rectangle

    table = np.array(scores.scores)
    rows, columns = table.shape
    figure = new_figure(3.4 + 1.9 * columns, 2.2 + 0.62 * rows)
    axis = figure.subplots()
    levels = [[level for level in (one.random, one.limit) if level is not None] for one in scores.tested]
    lowest = np.array([min([table[:, place].min(), *known]) for place, known in enumerate(levels)])
    highest = np.array([max([table[:, place].max(), *known]) for place, known in enumerate(levels)])
    shade = (table - lowest) / np.where(highest > lowest, highest - lowest, 1.0)
    axis.imshow(shade, cmap="Blues", vmin=0.0, vmax=1.6, aspect="auto")  # so that black numbers are read on all
    decimals = scores.decimals
    for row in range(rows):
        for column in range(columns):
            axis.text(column, row - 0.1, f"{table[row, column]:.{decimals}f}", ha="center", va="center", fontsize=12)
            axis.text(
                column,
                row + 0.24,
                _interval(scores.intervals[row][column], decimals),
                ha="center",
                va="center",
                fontsize=8.5,
                color="#222222",
            )
    for row, column in enumerate(scores.column, 1):
        axis.add_patch(Rectangle((column - 0.49, row - 0.49), 0.98, 0.98, fill=False, edgecolor="#D55E00", linewidth=2))
    titles = [
        f"{one.name}\n"
        + ", ".join(
            f"{name} {level:.{decimals}f}"
            for name, level in (("random", one.random), ("limit", one.limit))
            if level is not None
        )
        for one in scores.tested
    ]
    axis.set_xticks(range(columns), titles, fontsize=10)
    axis.set_yticks(range(rows), scores.rows, fontsize=11)
    axis.tick_params(length=0)
    axis.xaxis.tick_top()
    axis.spines[:].set_visible(False)
    below = [line.partition(":")[0] for line in scores.transfer_lines()]
    axis.set_xlabel("\n".join([*below, "frame: right after the training in it"]), fontsize=10, labelpad=8)
    figure_title(figure, f"Score on each stage's tasks after each stage: {scores.agent}")
    return save_figure(figure, path)
