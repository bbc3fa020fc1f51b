"""Attractor memories as a user reads them: how a recall goes, how often its first step errs, and how much they hold.

Data flow: a memory by name, with its options -> `view_memory`, which fills it with random patterns -> `MemoryView` ->
text or a picture.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from plastic_rl.arrays import FloatArray
from plastic_rl.config import validate
from plastic_rl.errors import ConfigError
from plastic_rl.evaluation.plots import PALETTE, figure_title, new_figure, plain_axes, save_figure
from plastic_rl.memories import MEMORIES, Memory

WIDTH = 80
"""Columns of the terminal that texts fit into."""
CUES = 20
"""Patterns that are recalled."""
STEPS = 30
"""Of a recall, at most."""
LOADS = (0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 3.0)
"""Loads of the capacity curve, as multiples of the one asked for."""
MOST_NUMBERS = 2**26
"""Units times patterns that are worked on: 512 MiB."""


@dataclass(frozen=True)
class LoadPoint:
    """What a memory does at one load, starting from stored patterns themselves.

    Attributes:
        load: Patterns, as a share of the units.
        error: Share of units that the first step gets wrong.
        expected_error: By theory; None where it says nothing.
        overlap: With the pattern at the end of the recall, mean over patterns.
        expected_overlap: By theory; None where it says nothing.
    """

    load: float
    error: float
    expected_error: float | None
    overlap: float
    expected_overlap: float | None


@dataclass(frozen=True)
class MemoryView:
    """A memory filled with random patterns, and what came of recalling some of them.

    Attributes:
        name: In `MEMORIES`.
        memory: Filled.
        zeroed: Share of the units that are unknown in the cues.
        overlaps: With the cue's own pattern, `(T + 1, cues)`.
        others: The largest with any other pattern, `(T + 1, cues)`; NaN where there is none.
        energies: Per unit, `(T + 1, cues)`.
        settled: Share of the recalls that came to rest.
        loads: From low to high; one is that of `memory`.
    """

    name: str
    memory: Memory
    zeroed: float
    overlaps: FloatArray
    others: FloatArray
    energies: FloatArray
    settled: float
    loads: tuple[LoadPoint, ...]


def view_memory(
    name: str,
    *,
    units: int = 1000,
    load: float = 0.1,
    zeroed: float = 0.5,
    options: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> MemoryView:
    """Fill a memory with random patterns and recall some from a part of them, and at several loads from all of them.

    Args:
        name: In `MEMORIES`.
        units: N.
        load: Patterns, as a share of the units.
        zeroed: Share of the units that are unknown in a cue, 0 to 1.
        options: Of the memory.
        seed: Of patterns, cues and updates.

    Raises:
        UnknownNameError: If there is no such memory.
        ConfigError: If an option is none of its own, or the size is no good.
    """
    kind = MEMORIES[name]
    options = validate(kind.options_model(), options or {}, f"the options of {name}").model_dump()
    if units < 1 or not 0 < load < math.inf or not 0 <= zeroed <= 1:
        raise ConfigError(
            "a memory is shown with 1 unit or more, a load above 0 and a share of 0 to 1 zeroed units, got "
            f"units={units}, load={load:g}, zeroed={zeroed:g}"
        )
    if max(LOADS) * load * units**2 > MOST_NUMBERS:
        raise ConfigError(
            f"{units:,} units with up to {round(max(LOADS) * load * units):,} patterns (the capacity curve goes to "
            f"{max(LOADS):g} times the load) are too many; valid are up to {MOST_NUMBERS:,} units times patterns"
        )
    empty = kind(units, **options)
    memory = empty.store(empty.random_patterns(max(1, round(load * units)), _stream(seed, 0)))
    patterns = memory.patterns[:CUES]
    cues = patterns * (_stream(seed, 1).random(patterns.shape).argsort(axis=1) >= round(zeroed * units))
    recalled = memory.recall(cues, steps=STEPS, generator=_stream(seed, 2), course=True)
    assert recalled.overlaps is not None, "the course was asked for"
    assert recalled.energies is not None, "the course was asked for"
    own = np.arange(len(patterns))
    others = recalled.overlaps.copy()
    others[:, own, own] = -np.inf
    largest = others.max(axis=2)
    counts = sorted({max(1, round(factor * load * units)) for factor in LOADS})
    return MemoryView(
        name=name,
        memory=memory,
        zeroed=zeroed,
        overlaps=recalled.overlaps[:, own, own],
        others=np.where(np.isfinite(largest), largest, np.nan),
        energies=recalled.energies / units,
        settled=float(recalled.settled.mean()),
        loads=tuple(_at_load(empty, count, seed) for count in counts),
    )


def _stream(seed: int, *place: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed, spawn_key=place)))


def _at_load(empty: Memory, count: int, seed: int) -> LoadPoint:
    memory = empty.store(empty.random_patterns(count, _stream(seed, 3, count)))
    generator = _stream(seed, 4, count)
    some = memory.patterns[:CUES]
    first = memory.recall(memory.patterns, steps=1, generator=generator).state
    last = memory.recall(some, steps=STEPS, generator=generator).state
    return LoadPoint(
        load=count / memory.size,
        error=float((np.abs(first - memory.patterns) > 0.5).mean()),
        expected_error=memory.expected_error(count / memory.size),
        overlap=float(np.diag(memory.overlaps(last)).mean()),
        expected_overlap=memory.expected_overlap(count / memory.size),
    )


# --- text -------------------------------------------------------------------------------------------------------------


def memories_text() -> str:
    """Every memory by name, with the first line of its documentation."""
    width = max(map(len, MEMORIES))
    return "\n".join(_hanging(f"{name:<{width}}  {_summary(kind)}", width + 2) for name, kind in MEMORIES.items())


def _summary(kind: type[Memory]) -> str:
    return (kind.__doc__ or "").strip().split("\n")[0]


def _hanging(text: str, indent: int) -> str:
    return textwrap.fill(text, WIDTH, subsequent_indent=" " * indent, break_on_hyphens=False)


def memory_text(view: MemoryView) -> str:
    """The view in words and columns, no wider than `WIDTH`."""
    memory = view.memory
    fields = type(memory).options_model().model_fields
    chosen = memory.options.model_dump()
    lines = [_hanging(f"{view.name}: {_summary(type(memory))}", 4), "", "options"]
    for option, value in chosen.items():
        shown = "null" if value is None else str(value).lower() if isinstance(value, bool) else f"{value}"
        lines.append(_hanging(f"  {option} = {shown}: {fields[option].description}", 6))
    patterns = len(memory.patterns)
    cues = view.overlaps.shape[1]
    lines += [
        "",
        f"{memory.size:,} units, {patterns:,} random patterns: load {patterns / memory.size:.3g}",
        "",
        f"recall of {cues} patterns from cues with {view.zeroed:.0%} of their units zeroed",
        "  step  overlap: own  (lowest)  other  energy a unit",
    ]
    lines += [
        f"  {step:4}  {_bar(own.mean())} {own.mean():5.3f}   {own.min():6.3f}  {_mean(other):>5}  {energy.mean():8.4f}"
        for step, own, other, energy in _selected(view)
    ]
    lines += [
        f"  {view.settled:.0%} came to rest within {len(view.overlaps) - 1} steps",
        "",
        "from the patterns themselves, by load: what the first step gets wrong, and the",
        "overlap in which the recall ends",
        "  load    wrong    theory   overlap                theory",
    ]
    lines += [
        f"  {point.load:<6.3g}  {point.error:.5f}  {_known(point.expected_error, 5):<7}  {_bar(point.overlap)} "
        f"{point.overlap:6.3f}  {_known(point.expected_overlap, 3)}"
        for point in view.loads
    ]
    return "\n".join(lines)


def _selected(view: MemoryView) -> list[tuple[int, FloatArray, FloatArray, FloatArray]]:
    """The first steps of the recall, and the last."""
    steps = sorted({*range(min(len(view.overlaps), 8)), len(view.overlaps) - 1})
    return [(step, view.overlaps[step], view.others[step], view.energies[step]) for step in steps]


def _mean(values: FloatArray) -> str:
    """Of no values (one pattern has no others) a dash."""
    return _known(float(values.mean()) if np.isfinite(values).all() else None, 3)


def _known(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _bar(share: float) -> str:
    """A bar of 16 `#` and `.` for a share between 0 and 1 (cut off there)."""
    filled = round(float(np.clip(share, 0, 1)) * 16)
    return "#" * filled + "." * (16 - filled)


# --- picture ----------------------------------------------------------------------------------------------------------


def plot_memory(view: MemoryView, path: str | Path) -> Path:
    """Draw overlap and energy along the recall, and error and overlap by load beside theory.

    Args:
        view: What to draw.
        path: `.png`, `.svg` or `.pdf`.

    Returns:
        `path`.
    """
    from matplotlib.ticker import MaxNLocator

    figure = new_figure(10.0, 6.6)
    (overlap, error), (energy, capacity) = figure.subplots(2, 2)
    steps = np.arange(len(view.overlaps))
    overlap.plot(steps, view.overlaps, color=PALETTE[0], linewidth=0.6, alpha=0.4)
    overlap.plot(steps, view.overlaps.mean(axis=1), color=PALETTE[0], linewidth=2.2, label="own pattern")
    if not np.isnan(view.others).any():
        overlap.plot(
            steps, view.others.mean(axis=1), color=PALETTE[1], linestyle="--", linewidth=1.8, label="nearest other"
        )
    overlap.set_ylabel("overlap")
    overlap.set_ylim(min(-0.05, float(np.nanmin(view.overlaps)) - 0.05), None)
    overlap.set_title(f"recall from cues with {view.zeroed:.0%} zeroed", fontsize=11)
    overlap.legend(frameon=False, fontsize=9.5, loc="center right")
    energy.plot(steps, view.energies, color=PALETTE[2], linewidth=0.6, alpha=0.4)
    energy.plot(steps, view.energies.mean(axis=1), color=PALETTE[2], linewidth=2.2)
    energy.set_ylabel("energy per unit")
    energy.set_xlabel("step of the recall", fontsize=11)
    loads = [point.load for point in view.loads]
    errors = [point.error for point in view.loads]
    error.plot(loads, errors, "o", color=PALETTE[0], markersize=5.5, label="measured", zorder=4)
    fine = np.linspace(1e-3, max(loads), 200)
    for axis, theory in ((error, view.memory.expected_error), (capacity, view.memory.expected_overlap)):
        expected = [theory(load) for load in fine.tolist()]
        if None not in expected:
            axis.plot(fine, expected, color="#333333", linewidth=1.3, label="theory")
    error.set_ylim(-0.05, 1.05)
    if max(errors) > 0:
        error.set_yscale("log")
        error.set_ylim(min(one for one in errors if one > 0) / 3, 1)
    error.set_ylabel("wrong units")
    error.set_title("first step from a pattern itself", fontsize=11)
    error.legend(frameon=False, fontsize=9.5, loc="lower right" if max(errors) > 0 else "center right")
    overlaps = [point.overlap for point in view.loads]
    capacity.plot(loads, overlaps, "o", color=PALETTE[0], markersize=5.5, label="measured", zorder=4)
    capacity.set_ylabel("overlap at the end")
    capacity.set_ylim(-0.05, max(1.08, *overlaps))
    capacity.set_xlabel("load: patterns / units", fontsize=11)
    capacity.legend(frameon=False, fontsize=9.5, loc="lower left")
    for axis in (overlap, energy, error, capacity):
        plain_axes(axis)
    for axis in (error, capacity):
        axis.set_xlim(0, 1.04 * max(loads))
    for axis in (overlap, energy):
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure_title(figure, f"{view.name}, {view.memory.size:,} units, {len(view.memory.patterns):,} patterns")
    return save_figure(figure, path)
