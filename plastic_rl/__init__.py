"""Reinforcement learning for agents whose synapses change while they act.

Importing this package registers its environments with Gymnasium, by name only; everything else is loaded when used.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

try:
    import gymnasium
except KeyboardInterrupt:
    # Most of the program's start is this import: Ctrl-C in it is answered as it is later, without a traceback.
    if Path(sys.argv[0]).name != "plastic-rl" and sys.orig_argv[1:3] != ["-m", "plastic_rl"]:
        raise
    sys.stderr.write("stopped.\n")
    sys.exit(130)

if TYPE_CHECKING:
    from plastic_rl.algorithms import CMAES as CMAES
    from plastic_rl.algorithms import PlasticA2C as PlasticA2C
    from plastic_rl.envs import Lifetime as Lifetime
    from plastic_rl.envs import load_plugin as load_plugin
    from plastic_rl.envs import make_vector as make_vector
    from plastic_rl.envs import register_distribution as register_distribution

__version__ = "0.1.0"

_PUBLIC = {
    "CMAES": "plastic_rl.algorithms",
    "PlasticA2C": "plastic_rl.algorithms",
    "Lifetime": "plastic_rl.envs",
    "load_plugin": "plastic_rl.envs",
    "make_vector": "plastic_rl.envs",
    "register_distribution": "plastic_rl.envs",
}

__all__ = ["__version__", *_PUBLIC]  # noqa: PLE0604 - the names above, all strings


def __getattr__(name: str) -> Any:
    """Load a public name from its room when it is first used."""
    if name in _PUBLIC:
        return getattr(importlib.import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_PUBLIC})


BUILT_IN_DISTRIBUTIONS: dict[str, str] = {}
"""Entry point of the task distribution of each built-in family, by the id of its environment."""

for _name, _module in (
    ("BernoulliBandit", "bernoulli_bandit"),
    ("ReversalBandit", "reversal_bandit"),
    ("CueAssociation", "cue_association"),
    ("TemporalOrder", "temporal_order"),
    ("GridMaze", "grid_maze"),
    ("SwappedCartPole", "swapped_cartpole"),
    ("PatternCompletion", "pattern_completion"),
    ("SupervisedPatternCompletion", "pattern_completion"),
    ("Classification", "classification.environment"),
    ("SupervisedClassification", "classification.environment"),
):
    _classes = f"plastic_rl.families.{_module}:{_name}"
    gymnasium.register(
        id=f"plastic_rl/{_name}-v0", entry_point=f"{_classes}Env", vector_entry_point=f"{_classes}VectorEnv"
    )
    BUILT_IN_DISTRIBUTIONS[f"plastic_rl/{_name}-v0"] = f"{_classes}Tasks"
