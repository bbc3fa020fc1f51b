"""What `plastic-rl doctor` reports."""

from __future__ import annotations

import os
import platform
import re
import sys
import textwrap
from pathlib import Path

import plastic_rl
from plastic_rl import _native
from plastic_rl.errors import PlasticRLError

REQUIRED = (
    "plastic-rl",
    "torch",
    "numpy",
    "gymnasium",
    "stable-baselines3",
    "cma",
    "pydantic",
    "safetensors",
    "scipy",
    "scikit-learn",
    "matplotlib",
    "tensorboard",
    "typer",
    "rich",
    "PyYAML",
    "pillow",
)
OPTIONAL = {
    "pygame": "rendering of Gymnasium's classic-control and toy-text environments",
    "mujoco": "Gymnasium's robot environments",
    "wandb": "logging to Weights & Biases",
}


def report() -> tuple[list[str], bool]:
    """Return the lines of the report, and whether all is well."""
    import torch

    from plastic_rl.checkpoint import library_version

    healthy, core = True, _native.chosen_core()
    facts = {
        "python": f"{platform.python_version()} ({sys.executable})",
        "system": platform.platform(),
        "processor": f"{_processor()}, {os.cpu_count()} cores",
        "core": f"{core}{'' if core.asked_for else f'; {_native.VARIABLE} is not set'}",
        "levels": _levels(),
        "torch": f"{torch.__version__}, {torch.backends.cpu.get_cpu_capability()} on the CPU",
        "threads": f"torch {torch.get_num_threads()} here; a run uses `torch_threads` of its config (1 by default)",
        "devices": f"cpu{_accelerators()}",
    }
    lines = [line for name, fact in facts.items() for line in _folded(f"{name:<10} {fact}", 11)] + ["", "packages"]
    for name in REQUIRED:
        # A checkout that was never installed has no metadata, and still knows its version.
        version = plastic_rl.__version__ if name == "plastic-rl" else library_version(name)
        healthy = healthy and version is not None
        lines.append(f"  {name:<18} {version or 'MISSING: install plastic-rl again, e.g. make venv'}")
    lines += ["", "optional packages"]
    for name, use in OPTIONAL.items():
        lines += _folded(f"  {name:<18} {library_version(name) or 'not installed'}  ({use})", 21)
    problem = _try_training()
    lines += [
        "",
        *_folded(f"training   {'one update of a small agent works' if not problem else f'FAILED: {problem}'}", 11),
    ]
    return lines, healthy and problem is None


def _folded(line: str, indent: int) -> list[str]:
    return textwrap.wrap(line, 80, subsequent_indent=" " * indent, break_long_words=False, break_on_hyphens=False)


def _processor() -> str:
    """Its name, where the system tells, and its architecture."""
    cpuinfo = Path("/proc/cpuinfo")
    named = re.search(r"^model name\s*:\s*(.+)$", cpuinfo.read_text(), re.MULTILINE) if cpuinfo.exists() else None
    return f"{named.group(1)}, {platform.machine()}" if named else platform.machine()


def _levels() -> str:
    """The native core's levels of instructions."""
    compiled, run = _native.compiled_levels(), _native.levels()
    if not compiled:
        return "none: the package was installed without its compiled core, which needs a C++ compiler"
    return f"compiled {', '.join(compiled)}; this processor runs {'all' if run == compiled else ', '.join(run)}"


def _accelerators() -> str:
    import torch

    names = [f"cuda:{index} ({torch.cuda.get_device_name(index)})" for index in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        names.append("mps")
    return "".join(f", {name}" for name in names)


def _try_training() -> str | None:
    from plastic_rl.experiment import make_algorithm, parse_experiment

    mapping = {
        "environment": {"id": "plastic_rl/ReversalBandit-v0", "kwargs": {"steps": 10}},
        "network": {"kind": "plastic_rnn", "hidden_size": 4},
        "algorithm": {"name": "a2c", "total_timesteps": 20, "n_envs": 2},
    }
    try:
        make_algorithm(parse_experiment(mapping)).learn(20)
    except (PlasticRLError, RuntimeError, ImportError, OSError) as error:
        return str(error)
    return None
