"""Rules carried over: the parameters of a trained agent in a network of another size, or for another environment.

Only what does not depend on sizes can be carried over: rule tables, shared coefficients, steps. Everything else is
refused by name. Start weights of such networks are drawn in each lifetime, so nothing else has to fit.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from stable_baselines3.common.vec_env import VecEnv

from plastic_rl.algorithms.vec_env import EnvironmentDescription, adapt
from plastic_rl.config import merge
from plastic_rl.errors import RunError
from plastic_rl.experiment.agents import TrainedAgent
from plastic_rl.policies import PlasticPolicy


def carry_over(
    trained: TrainedAgent,
    env_id: str,
    env_kwargs: Mapping[str, Any],
    *,
    trials: int = 1,
    network: Mapping[str, Any] | None = None,
    device: str | None = None,
) -> PlasticPolicy:
    """Make a policy for an environment that acts by the rules of a trained agent.

    Args:
        trained: The agent.
        env_id: The environment that the policy is for.
        env_kwargs: Its arguments.
        trials: Inner episodes of a lifetime where it is not made of lifetimes.
        network: Changes to the network's config, e.g. `{"hidden_size": 500}`.
        device: Where to run it; by default as in training.

    Raises:
        RunError: If a parameter that actions depend on is missing there, or has another shape.
        ConfigError: If the changed network does not validate.
        SpaceError: If the environment's spaces are not supported.
    """
    source = trained.load(device)
    env = adapt(env_id, n_envs=1, env_kwargs=dict(env_kwargs), trials=trials)
    assert isinstance(env, VecEnv)
    try:
        description = EnvironmentDescription.of(env)
        policy = type(source)(
            env.observation_space,
            env.action_space,
            feedback=description.feedback,
            steps_per_trial=description.steps_per_trial,
            generator=torch.Generator().manual_seed(trained.config.seed),
            network=merge(source.network_config, network or {}),
        ).to(source.device)
    finally:
        env.close()
    given, own = source.parameters_by_name(), policy.parameters_by_name()
    problems = []
    # Those that are drawn but never trained belong to the rules too.
    acting = [name for name in dict.fromkeys([*given, *own]) if not name.startswith("value_head.")]
    for name in acting:
        old, new = given.get(name), own.get(name)
        if old is None or new is None:
            problems.append(f"{name} is only in the {'new' if old is None else 'trained'} network")
        elif old.shape != new.shape:
            problems.append(f"{name} has shape {tuple(old.shape)}, and would need {tuple(new.shape)}")
    if problems:
        raise RunError(
            f"the rules of {trained.folder} cannot be carried over to {env_id}: {'; '.join(problems)}. Only parameters "
            "that do not depend on sizes can be: rule tables, coefficients shared by all synapses, steps."
        )
    with torch.no_grad():
        for name in acting:
            own[name].copy_(given[name])
    return policy
