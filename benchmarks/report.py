"""The rows for a reader: tables, what was promised, and a picture."""

from __future__ import annotations

import operator
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.measure import Rows

COLUMNS = {
    "cpu_ms": ("CPU ms", ",.1f"),
    "ratio": ("ratio", ".1f"),
    "mb": ("MB", ",.0f"),
    "whole_process_mb": ("MB, whole process", ",.0f"),
    "mb_a_further_step": ("MB a further step", ".3f"),
    "cpu_ms_a_step": ("CPU ms a step", ".4f"),
    "samples_a_second": ("samples/s", ",.0f"),
    "steps_a_second": ("steps/s", ",.0f"),
    "gflop_s": ("GFLOP/s", ".1f"),
    "of_peak": ("of peak", ".0%"),
    "gbyte_s": ("GB/s", ".1f"),
    "of_second_cache": ("of second cache", ".0%"),
    "note": ("", ""),
}
"""Fields that are shown: how they are headed, and written. The others are in the file of numbers."""
LEGEND = (
    "CPU ms: of this process, the median over rounds in which all rows of a block ran in turn, on one thread.\n"
    "ratio: how many times as fast as the loop (libraries: none; rule_table: as torch; environment: as scalar_bare),\n"
    "median over rounds [lowest, highest]. MB: peak resident memory less that before training, in a fresh process;\n"
    "a further step: what each adds from a lifetime of T steps to one of 2 T."
)


class Requirement(NamedTuple):
    """That a field of all rows of a pattern is at least, or at most, so much."""

    rows: str
    field: str
    sign: str
    limit: float

    def verdict(self, rows: Rows) -> str | None:
        """Met or not, by the worst row; None where none of them was measured."""
        found = [row[self.field] for name, row in rows.items() if fnmatchcase(name, self.rows) and self.field in row]
        if not found:
            return None
        worst, holds = (min(found), operator.ge) if self.sign == ">=" else (max(found), operator.le)
        figure = format(worst, COLUMNS[self.field][1])
        verdict = f"met ({figure})" if holds(worst, self.limit) else f"NOT met ({figure})"
        return f"{self.rows}: {COLUMNS[self.field][0]} {self.sign} {self.limit:g}: {verdict}"


REQUIREMENTS = (
    *(
        Requirement(f"iteration/{rule}/{core}", "ratio", ">=", ratio)
        for rule, least in (("simple", (18, 12, 5, 2.2)), ("retroactive", (16, 10, 4, 2.0)))
        for core, ratio in zip(("native:avx512", "native:avx2", "native:baseline", "torch"), least, strict=True)
    ),
    Requirement("memory/*_N100_B30_T200/native:*", "mb_a_further_step", "<=", 0.1),
    Requirement("memory/*_N256_B64_T200/native:*", "mb", "<=", 400),
    Requirement("memory/*_N100_B30_T3200/native:*", "mb", "<=", 500),
    Requirement("memory/*_N100_B30_T200/reference", "mb", "<=", 600),
    Requirement("generation/native:avx512", "ratio", ">=", 60),
)


def verdicts(rows: Rows) -> list[str]:
    """What is promised of those rows that there are."""
    found = (requirement.verdict(rows) for requirement in REQUIREMENTS)
    return [verdict for verdict in found if verdict is not None]


def table(rows: Rows, *, markdown: bool = False) -> str:
    """One table for each group."""
    blocks = []
    for group in dict.fromkeys(name.split("/")[0] for name in rows):
        own = {name: row for name, row in rows.items() if name.split("/")[0] == group}
        fields = [field for field in COLUMNS if any(field in row for row in own.values())]
        lines = [[group, *(COLUMNS[field][0] for field in fields)]]
        lines += [[name.partition("/")[2], *(_shown(row, field) for field in fields)] for name, row in own.items()]
        blocks.append("\n".join(_piped(lines) if markdown else _aligned(lines)))
    return "\n\n".join(blocks)


def _shown(row: dict[str, Any], field: str) -> str:
    if field not in row:
        return ""
    shown = format(row[field], COLUMNS[field][1])
    return f"{shown} [{row['lowest']:.1f}, {row['highest']:.1f}]" if field == "ratio" else shown


def _piped(lines: Sequence[Sequence[str]]) -> Iterator[str]:
    first, *others = (f"| {' | '.join(line)} |" for line in lines)
    return iter([first, "|---" + "|---:" * (len(lines[0]) - 1) + "|", *others])


def _aligned(lines: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        name, *others = (
            cell.ljust(width) if not i else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        yield "  ".join([name, *others]).rstrip()


def described(machines: dict[str, dict[str, Any]]) -> str:
    """Where and with what groups were measured; machines and versions that are the same once."""
    groups: dict[str, list[str]] = {}
    for group, own in machines.items():
        packages = [name for name in own if name not in {"processor", "cores", "levels", "load", "time"}]
        versions = ", ".join(f"{name} {own[name]}" for name in packages)
        levels = ", ".join(own["levels"]) or "none"
        text = f"{own['processor']}, {own['cores']} cores, levels of the native core: {levels}; {versions}"
        groups.setdefault(text, []).append(f"{group} {own['load'][0]}")
    return "\n".join(f"{text}.\nLoad when begun: {', '.join(loads)}" for text, loads in groups.items())


# --- the picture ------------------------------------------------------------------------------------------------------

COLOURS = {"loop": "#9a9a9a", "reference": "#c8a15a", "torch": "#7fb2e5", "baseline": "#5a8fd0", "avx2": "#2f65b0"}
COLOURS |= {"avx512": "#123f80"}
RULES = ("simple", "fan_out", "retroactive")


def plot(rows: Rows, path: Path) -> None:
    """Draw how many times as fast an iteration is, and the memory that it takes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.0, 3.4), layout="constrained")
    speed, memory = figure.subplots(1, 2)
    _bars(speed, [{name: row.get("ratio") for name, row in _of(rows, f"iteration/{rule}").items()} for rule in RULES])
    speed.set_xticks(range(len(RULES)), RULES)
    speed.set_title("training iteration: times as fast as the loop")
    sizes = list(dict.fromkeys(name.split("/")[1] for name in rows if name.startswith("memory/simple_")))
    _bars(memory, [{name: row["mb"] for name, row in _of(rows, f"memory/{size}").items()} for size in sizes], log=True)
    labels = [", ".join(f"{part[0]} {part[1:]}" for part in size.split("_")[1:]) for size in sizes]
    memory.set_xticks(range(len(sizes)), [label.replace(", T", ",\nT") for label in labels])
    memory.set_title("peak memory of training, MB (rule simple)")
    figure.savefig(path, dpi=110)


def _of(rows: Rows, prefix: str) -> Rows:
    """Rows `prefix/VERSION` by the version, a level of the native core by its name."""
    own = {name: row for name, row in rows.items() if name.rpartition("/")[0] == prefix}
    return {name.rpartition("/")[2].removeprefix("native:"): row for name, row in own.items()}


def _bars(axes: Any, groups: list[dict[str, Any]], *, log: bool = False) -> None:
    versions = [name for name in COLOURS if any(name in group for group in groups)]
    for group, heights in enumerate(groups):
        here = [name for name in versions if name in heights]
        for place, name in enumerate(here):
            at = group + 0.8 * ((place + 0.5) / len(here) - 0.5)
            bar = axes.bar(at, heights[name], 0.76 / len(here), color=COLOURS[name])
            axes.bar_label(bar, fmt="{:,.0f}" if heights[name] >= 10 else "{:.1f}", fontsize=8)
    for name in versions:
        axes.bar(
            0, 0, color=COLOURS[name], label=f"native core, {name}" if name in {"baseline", "avx2", "avx512"} else name
        )
    if log and versions:
        axes.set_yscale("log")
    axes.margins(y=0.15)
    axes.spines[["top", "right"]].set_visible(False)
    if versions:
        axes.legend(frameon=False, fontsize=8)
