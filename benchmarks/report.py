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
        for rule, least in (("simple", (18, 12, 5, 0.75)), ("retroactive", (16, 10, 4, 0.75)))
        for core, ratio in zip(("native:avx512", "native:avx2", "native:baseline", "torch"), least, strict=True)
    ),
    Requirement("memory/*_N100_B30_T200/native:*", "mb_a_further_step", "<=", 0.1),
    Requirement("memory/*_N256_B64_T200/native:*", "mb", "<=", 400),
    Requirement("memory/*_N100_B30_T3200/native:*", "mb", "<=", 500),
    Requirement("memory/*_N100_B30_T200/torch", "mb", "<=", 600),
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

STYLES = {
    "loop": ("plain loop", "#9a9a9a"),
    "torch": ("torch", "#8ec1ee"),
    "baseline": ("native core, baseline", "#5a8fd0"),
    "avx2": ("native core, AVX2", "#2f65b0"),
    "avx512": ("native core, AVX-512", "#123f80"),
}
"""Label and colour of each version."""
RULES = ("simple", "fan_out", "retroactive")


def plot(rows: Rows, path: Path) -> None:
    """Draw how many times as fast an iteration is, and the memory that it takes."""
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    figure = Figure(figsize=(9.5, 3.6), layout="constrained")
    speed, memory = figure.subplots(1, 2)
    _bars(speed, [{name: row["ratio"] for name, row in _of(rows, f"iteration/{rule}").items()} for rule in RULES])
    speed.set_xticks(range(len(RULES)), RULES)
    speed.set_title("Training iteration: times as fast as the loop", fontsize=11)
    sizes = list(dict.fromkeys(name.split("/")[1] for name in rows if name.startswith("memory/simple_")))
    _bars(memory, [{name: row["mb"] for name, row in _of(rows, f"memory/{size}").items()} for size in sizes])
    labels = [", ".join(f"{part[0]} {part[1:]}" for part in size.split("_")[1:]) for size in sizes]
    memory.set_xticks(range(len(sizes)), labels, fontsize=9)
    memory.set_yscale("log")
    memory.set_ylim(bottom=10)
    memory.set_title("Peak memory of training in MB (rule simple)", fontsize=11)
    patches = [Patch(color=colour, label=label) for label, colour in STYLES.values()]
    figure.legend(handles=patches, loc="outside lower center", ncols=len(patches), frameon=False, fontsize=8)
    figure.savefig(path, dpi=110)


def _of(rows: Rows, prefix: str) -> Rows:
    """Rows `prefix/VERSION` by the version, a level of the native core by its name."""
    own = {name: row for name, row in rows.items() if name.rpartition("/")[0] == prefix}
    return {name.rpartition("/")[2].removeprefix("native:"): row for name, row in own.items()}


def _bars(axes: Any, groups: list[dict[str, float]]) -> None:
    """Bars of each group side by side, all as wide."""
    width = 0.85 / max([1, *map(len, groups)])
    for group, heights in enumerate(groups):
        here = [name for name in STYLES if name in heights]
        for place, name in enumerate(here):
            at = group + width * (place - (len(here) - 1) / 2)
            bar = axes.bar(at, heights[name], 0.94 * width, color=STYLES[name][1])
            axes.bar_label(bar, fmt="{:,.0f}" if heights[name] >= 10 else "{:.1f}", fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
