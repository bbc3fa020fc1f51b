"""Evolution: a search distribution over a genome of parameters, and the fitness of populations drawn from it.

Data flow of a generation: `Search.ask` -> genes -> `FitnessEvaluator`, in chunks, by an engine -> `Search.tell`.
"""

from __future__ import annotations

from plastic_rl.algorithms.evolution.cma_es import CMAES
from plastic_rl.algorithms.evolution.genome import GeneGroup

__all__ = ["CMAES", "GeneGroup"]
