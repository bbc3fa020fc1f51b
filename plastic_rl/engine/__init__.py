"""Where independent pieces of work run: in this process for now.

Nothing uses this room yet: it holds the interface, and its contract suite, for the searches over populations and the
process pools to come. Training and evaluation batch their lifetimes in one process.

An engine takes a function and items and returns the results by index. Results must not depend on the engine: each
item carries its own seed, and items are cut so that their shapes are the same in every engine.
"""

from __future__ import annotations

from plastic_rl.engine.base import ENGINES, Engine, SerialEngine, make_engine

__all__ = ["ENGINES", "Engine", "SerialEngine", "make_engine"]
