"""The terminal's view of an evaluation: one table per split, best agent first."""

from __future__ import annotations

import io
import shutil
import sys
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from plastic_rl.evaluation.report import Evaluation, Pair, Score, SplitEvaluation


class _Row(NamedTuple):
    cells: tuple[str, ...]
    own: bool


def evaluation_table(evaluation: Evaluation, *, rich: bool | None = None) -> str:
    """Return the tables of all splits, with what a reader must know to read them.

    Args:
        evaluation: What to show.
        rich: With colours and rules, as plain text, or (None) whichever suits stdout.
    """
    if rich is None:
        rich = sys.stdout.isatty()
    blocks = [
        _with_rules(evaluation, split, result) if rich else _plain(evaluation, split, result)
        for split, result in evaluation.splits.items()
    ]
    return "\n".join([*blocks, *_notes(evaluation)]) + "\n"


def _title(evaluation: Evaluation, split: str, result: SplitEvaluation) -> str:
    arguments = ", ".join(f"{key}={value}" for key, value in evaluation.env_kwargs.items())
    steps = f"{evaluation.lifetime_steps} steps each" if evaluation.lifetime_steps else "of varying length"
    replaced = ", ".join(
        f"{name} {low:g}" if low == high else f"{name} {low:g} to {high:g}"
        for name, (low, high) in result.departures.items()
    )
    return (
        f"{evaluation.env_id}{f' ({arguments})' if arguments else ''}, split {split}: {result.tasks:,} lifetimes, "
        f"{steps}, one on each task{f' with {replaced}' if replaced else ''}; "
        f"{result.score_of.replace('_', ' ')} per lifetime"
    )


def _header(evaluation: Evaluation, result: SplitEvaluation) -> tuple[str, ...]:
    interval = f"{evaluation.confidence:.0%} interval"
    curve = result.curve
    per = "per trial" if curve.unit == "trial" else "per step"
    development: tuple[str, ...] = (f"{per}: first -> last 10%",) if len(curve.mean) > 1 else ()
    development += tuple(f"accuracy after {point.samples:,}" for point in result.accuracy_after)
    if result.limit_kind == "none":
        return ("agent", "score", interval, *development)
    return ("agent", "score", interval, "normalised", interval, "regret", *development)


def _rows(evaluation: Evaluation, result: SplitEvaluation) -> list[_Row]:
    entries = result.entries(evaluation.agent)
    decimals = _decimals(max(abs(score.raw_score) for score in entries.values()))
    ranked = sorted(entries.items(), key=lambda entry: -entry[1].raw_score)
    return [_row(name, score, result, decimals) for name, score in ranked]


def _row(name: str, score: Score, result: SplitEvaluation, decimals: int) -> _Row:
    own = name not in result.reference_agents
    label = f"{name} (limit)" if name == result.limit_kind else name
    cells = [label, f"{score.raw_score:.{decimals}f}", _interval(score.raw_score_interval, decimals)]
    if result.limit_kind != "none":
        normalised = "-" if score.normalised_score is None else f"{score.normalised_score:.3f}"
        regret = "-" if score.regret is None else f"{score.regret:.{decimals}f}"
        cells += [normalised, _interval(score.normalised_score_interval, 3), regret]
    if len(result.curve.mean) > 1:
        first, last = score.curve.ends()
        places = _decimals(max(abs(first), abs(last)))
        cells.append(f"{first:.{places}f} -> {last:.{places}f}")
    cells += [f"{point.accuracy:.3f} {_interval(point.accuracy_interval, 3)}" for point in score.accuracy_after]
    return _Row(tuple(cells), own)


def _decimals(size: float) -> int:
    return 1 if size >= 100 else 2 if size >= 10 else 3


def _interval(pair: Pair | None, decimals: int) -> str:
    return "-" if pair is None else f"[{pair[0]:.{decimals}f}, {pair[1]:.{decimals}f}]"


def _notes(evaluation: Evaluation) -> list[str]:
    coverage = "cover tasks, noise and action sampling, paired between agents; not the training run."
    notes = [f"Intervals ({evaluation.confidence:.0%}, bootstrap) {coverage}"]
    if any(split.limit_kind != "none" for split in evaluation.splits.values()):
        notes.append("normalised = (score - random) / (limit - random); regret = limit - score, on the same tasks.")
    else:
        notes.append("This environment has no known limit, so there is no normalised score.")
    if any(split.accuracy_after for split in evaluation.splits.values()):
        notes.append(
            "accuracy after n: share of held-out samples answered rightly, greedily, after n streamed samples."
        )
    told = {
        name: score.knows
        for split in evaluation.splits.values()
        for name, score in split.reference_agents.items()
        if score.knows != "observations"
    }
    explained = {"task": "told the hidden task", "environment": "shown more than the agent sees (its position)"}
    if told:
        notes.append("; ".join(f"{name}: {explained[knowledge]}" for name, knowledge in told.items()) + ".")
    if evaluation.single_task:
        notes.append(
            "All splits but shift are one and the same task: this measures learning within a lifetime, not "
            "generalisation to new tasks."
        )
    return notes


def _plain(evaluation: Evaluation, split: str, result: SplitEvaluation) -> str:
    header = _header(evaluation, result)
    rows = _rows(evaluation, result)
    widths = [max(len(line[i]) for line in (header, *(row.cells for row in rows))) for i in range(len(header))]

    def line(cells: tuple[str, ...], mark: str) -> str:
        padded = [cells[0].ljust(widths[0])]
        padded += [cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True)]
        return f"{mark} {'  '.join(padded)}".rstrip()

    ruler = "  " + "-" * (sum(widths) + 2 * (len(widths) - 1))
    body = [line(row.cells, ">" if row.own else " ") for row in rows]
    return "\n".join([_title(evaluation, split, result), line(header, " "), ruler, *body, ""])


def _with_rules(evaluation: Evaluation, split: str, result: SplitEvaluation) -> str:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD)
    for index, heading in enumerate(_header(evaluation, result)):
        table.add_column(heading, justify="right" if index else "left", no_wrap=True)
    for row in _rows(evaluation, result):
        table.add_row(*(cell.replace("[", "\\[") for cell in row.cells), style="bold cyan" if row.own else None)
    console = Console(file=io.StringIO(), force_terminal=True, width=max(140, shutil.get_terminal_size().columns))
    console.width = max(console.width, console.measure(table).maximum)
    with console.capture() as captured:
        console.print(f"[bold]{_title(evaluation, split, result)}[/bold]", highlight=False, soft_wrap=True)
        console.print(table)
    return captured.get()
