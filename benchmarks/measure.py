"""Clocks and memory readings of one process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

MEGABYTE = 1e6


def resident_now() -> float:
    """Resident memory of this process in MB (Linux)."""
    return _status("VmRSS")


def resident_peak() -> float:
    """Highest resident memory of this process since the last `forget_peak`, in MB (Linux)."""
    return _status("VmHWM")


def forget_peak() -> None:
    """Let the peak start anew from what is resident now."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def _status(field: str) -> float:
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{field}:"):
            return float(line.split()[1]) * 1024 / MEGABYTE
    raise RuntimeError(f"/proc/self/status has no {field}: memory is measured on Linux only")


class Seconds(NamedTuple):
    """Readings of both clocks, one for each round: the CPU's does not count the time that others had the core."""

    wall: list[float]
    cpu: list[float]


def alternate(contestants: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, Seconds]:
    """Run all contestants once to warm up, then `rounds` times in turn (A B A B: a busy machine slows all alike)."""
    for run in contestants.values():
        run()
    seconds = {name: Seconds([], []) for name in contestants}
    for _ in range(rounds):
        for name, run in contestants.items():
            wall, cpu = time.perf_counter(), time.process_time()
            run()
            seconds[name].wall.append(time.perf_counter() - wall)
            seconds[name].cpu.append(time.process_time() - cpu)
    return seconds


def ratio(slow: list[float], fast: list[float]) -> float:
    """Median over rounds of `slow / fast`: the two of a round ran one right after the other."""
    return median(before / after for before, after in zip(slow, fast, strict=True))


def in_fresh_process(arguments: list[str]) -> Any:
    """Run `python -m benchmarks ARGUMENTS` in a process of its own, and read the JSON that it prints last."""
    finished = subprocess.run(
        [sys.executable, "-m", "benchmarks", *arguments],
        cwd=Path(__file__).parent.parent,
        env={**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    if finished.returncode != 0:
        raise RuntimeError(f"benchmark process failed:\n{finished.stderr}")
    return json.loads(finished.stdout.splitlines()[-1])
