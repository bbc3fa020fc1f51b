"""The outer loops, as stable-baselines3 algorithms; `ALGORITHMS` holds them by the names that configs give them."""

from __future__ import annotations

from plastic_rl.algorithms.a2c import PlasticA2C
from plastic_rl.algorithms.base import ALGORITHMS, AlgorithmConfig, PlasticAlgorithm, algorithm_model
from plastic_rl.algorithms.evolution.cma_es import CMAES
from plastic_rl.algorithms.evolution.genome import GeneGroup
from plastic_rl.algorithms.gradient import GradientAlgorithm
from plastic_rl.algorithms.supervised import SupervisedGradient

ALGORITHMS.register("a2c", PlasticA2C)
ALGORITHMS.register("cma_es", CMAES)
ALGORITHMS.register("supervised_gradient", SupervisedGradient)

__all__ = [
    "ALGORITHMS",
    "CMAES",
    "AlgorithmConfig",
    "GeneGroup",
    "GradientAlgorithm",
    "PlasticA2C",
    "PlasticAlgorithm",
    "SupervisedGradient",
    "algorithm_model",
]
