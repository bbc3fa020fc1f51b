"""What `plastic-rl doctor` reports."""

from __future__ import annotations

import os
import platform
import sys

import plastic_rl
from plastic_rl.errors import PlasticRLError

REQUIRED = (
    "plastic-rl",
    "torch",
    "numpy",
    "gymnasium",
    "stable-baselines3",
    "pydantic",
    "safetensors",
    "scipy",
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

    healthy = True
    lines = [
        f"python     {platform.python_version()} ({sys.executable})",
        f"system     {platform.platform()}, {os.cpu_count()} cores",
        f"threads    torch {torch.get_num_threads()} here; a run uses `torch_threads` of its config (1 by default)",
        f"devices    cpu{_accelerators()}",
        "",
        "packages",
    ]
    for name in REQUIRED:
        # A checkout that was never installed has no metadata, and still knows its version.
        version = plastic_rl.__version__ if name == "plastic-rl" else library_version(name)
        healthy = healthy and version is not None
        lines.append(f"  {name:<18} {version or 'MISSING: install plastic-rl again, e.g. make venv'}")
    lines += ["", "optional packages"]
    for name, use in OPTIONAL.items():
        lines.append(f"  {name:<18} {library_version(name) or 'not installed'}  ({use})")
    problem = _try_training()
    lines += ["", f"training   {'one update of a small agent works' if problem is None else f'FAILED: {problem}'}"]
    return lines, healthy and problem is None


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
