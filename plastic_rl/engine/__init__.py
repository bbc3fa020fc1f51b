"""Where independent pieces of work run: in this process, in a pool of processes, or on a cluster.

An engine takes a function and items and returns the results by index. Results must not depend on the engine: each
item carries its own seed, and items are cut so that their shapes are the same in every engine.
"""

from __future__ import annotations

from plastic_rl.engine.base import ENGINES, Engine, EngineArgument, EngineConfig, SerialEngine
from plastic_rl.engine.process import ProcessEngine
from plastic_rl.engine.ray import RayEngine

__all__ = [
    "ENGINES",
    "Engine",
    "EngineArgument",
    "EngineConfig",
    "ProcessEngine",
    "RayEngine",
    "SerialEngine",
]
