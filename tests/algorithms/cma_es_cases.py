"""A small search, as the tests of CMA-ES share it."""

from __future__ import annotations

from typing import Any

from plastic_rl.algorithms import CMAES

BANDIT = "plastic_rl/ReversalBandit-v0"
SMALL = {"network": {"rule": "backpropamine_simple", "hidden_size": 6}}


def make(env: Any = BANDIT, **kwargs: Any) -> CMAES:
    own: dict[str, Any] = {"seed": 3, "policy_kwargs": SMALL, "population_size": 6, "lifetimes": 2}
    if env == BANDIT:
        own["env_kwargs"] = {"steps": 12}
    return CMAES("PlasticPolicy", env, **{**own, **kwargs})
