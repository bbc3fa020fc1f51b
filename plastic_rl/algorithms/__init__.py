"""The outer loops, as stable-baselines3 algorithms."""

from plastic_rl.algorithms.a2c import PlasticA2C
from plastic_rl.algorithms.cma_es import CMAES
from plastic_rl.algorithms.grid_search import GridSearch
from plastic_rl.algorithms.supervised import SupervisedGradient

__all__ = ["CMAES", "GridSearch", "PlasticA2C", "SupervisedGradient"]
