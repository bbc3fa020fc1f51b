"""Clocks, memory readings and named rows; and which core computes."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from statistics import median
from typing import Any

import gymnasium
import numpy as np
import stable_baselines3
import torch

import plastic_rl
from plastic_rl._native import VARIABLE, levels

MEGABYTE = 1e6
ENOUGH = 0.25
"""Seconds that a measurement of something quick lasts: it runs several times."""
MOST_RUNS = 20

Rows = dict[str, dict[str, Any]]
"""Fields by the name of the row, `group/what/version`."""
Run = Callable[[], object]

# --- time -------------------------------------------------------------------------------------------------------------


def seconds_of(run: Run, runs: int = 1) -> float:
    """CPU seconds of a run: they do not count the time that others had the core."""
    begun = time.process_time()
    for _ in range(runs):
        run()
    return (time.process_time() - begun) / runs


def timed(
    prefix: str,
    contestants: Mapping[str, Run],
    rounds: int,
    against: str | None = None,
    scales: Mapping[str, float] | None = None,
) -> Rows:
    """Rows `prefix/name`: median CPU time of all contestants, who run in turn (a busy machine slows all alike).

    Args:
        prefix: Of the rows' names.
        contestants: By name.
        rounds: How often each is measured, after once to warm up.
        against: Whose time is divided by each one's, round by round; `ratio` is the median.
        scales: What a contestant's time is multiplied by, for one that does but a part of the work.
    """
    scales = scales or {}
    runs = {name: round(ENOUGH / max(seconds_of(run), 1e-9)) for name, run in contestants.items()}
    runs = {name: min(max(count, 1), MOST_RUNS) for name, count in runs.items()}
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, run in contestants.items():
            seconds[name].append(scales.get(name, 1.0) * seconds_of(run, runs[name]))
    rows: Rows = {}
    for name, own in seconds.items():
        rows[f"{prefix}/{name}"] = row = {"cpu_ms": 1e3 * median(own)}
        if against is not None:
            row |= ratios(seconds[against], own)
        row |= {"rounds": rounds, "runs_a_round": runs[name], "all_cpu_ms": [1e3 * one for one in own]}
    return rows


def ratios(slow: list[float], fast: list[float]) -> dict[str, float]:
    """Median, lowest and highest over rounds of `slow / fast`: the two of a round ran one right after the other."""
    found = [before / after for before, after in zip(slow, fast, strict=True)]
    return {"ratio": median(found), "lowest": min(found), "highest": max(found)}


# --- memory -----------------------------------------------------------------------------------------------------------


def resident_now() -> float:
    """Resident memory of this process in MB (Linux)."""
    return _of("/proc/self/status", "VmRSS")


def resident_peak() -> float:
    """Highest resident memory of this process since the last `forget_peak`, in MB (Linux)."""
    return _of("/proc/self/status", "VmHWM")


def forget_peak() -> None:
    """Let the peak start anew from what is resident now."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def available() -> float:
    """Memory that can still be taken, in MB (Linux)."""
    return _of("/proc/meminfo", "MemAvailable")


def _of(file: str, name: str) -> float:
    for line in Path(file).read_text(encoding="ascii").splitlines():
        if line.startswith(f"{name}:"):
            return float(line.split()[1]) * 1024 / MEGABYTE
    raise RuntimeError(f"{file} has no {name}: memory is measured on Linux only")


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


# --- cores ------------------------------------------------------------------------------------------------------------


def cores() -> list[str]:
    """All cores of this machine, the fastest last, by the names that `PLASTIC_RL_CORE` has for them."""
    return ["torch", *(f"native:{level}" for level in levels())]


def two_cores() -> list[str]:
    """The slowest and the fastest of them: where all levels need the same, or rounds are long."""
    return list(dict.fromkeys((cores()[0], cores()[-1])))


@contextlib.contextmanager
def computing_on(core: str) -> Iterator[None]:
    """Networks that are built in here compute on `core`."""
    before = os.environ.get(VARIABLE)
    os.environ[VARIABLE] = core
    try:
        yield
    finally:
        os.environ.pop(VARIABLE)
        if before is not None:
            os.environ[VARIABLE] = before


def on(core: str, make: Callable[[], Run]) -> Run:
    """What `make` makes, on `core`: also what it builds when it first runs."""
    with computing_on(core):
        run = make()

    def here() -> None:
        with computing_on(core):
            run()

    return here


# --- what it was measured with ----------------------------------------------------------------------------------------


def machine() -> dict[str, Any]:
    """Where, when and with what."""
    return {
        "processor": processor(),
        "levels": levels(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "load": [round(load, 2) for load in os.getloadavg()],
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "gymnasium": gymnasium.__version__,
        "stable_baselines3": stable_baselines3.__version__,
        "plastic_rl": plastic_rl.__version__,
        "time": time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime()) + " UTC",
    }


def processor() -> str:
    """Its name, and family and model where the name says little."""
    found: dict[str, str] = {}
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            name, _, value = line.partition(":")
            found.setdefault(name.strip(), value.strip())
    if "model name" not in found:
        return platform.processor() or platform.machine()
    return f"{found['model name']} (family {found.get('cpu family', '?')}, model {found.get('model', '?')})"
