"""The outer loops, as stable-baselines3 algorithms."""

from plastic_rl.algorithms.a2c import PlasticA2C

__all__ = ["PlasticA2C"]
