"""Attractor memories: patterns are stored at once, and recalled from a part or a spoilt copy of them. NumPy only.

Data flow: patterns `(P, N)` -> `store` -> a new memory; cue `(.., N)` -> `recall` -> the state that it settles in.
`MEMORIES` lists the models by name. What theory says of them is in `theory`; `writing` holds the local rules that
memories and networks share.
"""

from __future__ import annotations

from plastic_rl.memories.base import Memory, Recall
from plastic_rl.memories.hopfield import Hopfield
from plastic_rl.memories.low_activity import LowActivityHopfield
from plastic_rl.memories.modern import ModernHopfield
from plastic_rl.registry import Registry

__all__ = ["MEMORIES", "Hopfield", "LowActivityHopfield", "Memory", "ModernHopfield", "Recall"]

MEMORIES: Registry[type[Memory]] = Registry("memory")
MEMORIES.register("hopfield", Hopfield)
MEMORIES.register("low_activity", LowActivityHopfield)
MEMORIES.register("modern", ModernHopfield)
