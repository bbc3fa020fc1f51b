"""The outer loops, as stable-baselines3 algorithms."""

from plastic_rl.algorithms.a2c import PlasticA2C
from plastic_rl.algorithms.cma_es import CMAES
from plastic_rl.algorithms.supervised import SupervisedGradient

__all__ = ["CMAES", "PlasticA2C", "SupervisedGradient"]
