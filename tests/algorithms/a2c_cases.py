"""A small A2C agent, as its tests share it."""

from __future__ import annotations

from typing import Any

import torch

from plastic_rl.algorithms import PlasticA2C

BANDIT = "plastic_rl/ReversalBandit-v0"
SMALL = {"network": {"hidden_size": 8}}


def make(env: Any = BANDIT, policy: str = "BackpropaminePolicy", **kwargs: Any) -> PlasticA2C:
    kwargs = {"n_envs": 4, "seed": 3, "policy_kwargs": SMALL, "env_kwargs": {"steps": 20}, **kwargs}
    if env != BANDIT and "steps" in kwargs["env_kwargs"]:
        kwargs["env_kwargs"] = {}
    return PlasticA2C(policy, env, **kwargs)


def params_of(agent: PlasticA2C) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in agent.policy.named_parameters()}


def equal(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)
