"""Candidates: networks as they are made from their config, tried one after the other; the best on `valid` is kept.

It is how hand-written rules are chosen, which have nothing to train but a few numbers. What evolved or trained rules
must beat is then the best of a grid, chosen as their own checkpoints are. A candidate is a policy and nothing else.
"""

from __future__ import annotations

import copy
import itertools
from contextlib import closing
from typing import Any

import torch
from stable_baselines3.common.vec_env import VecEnv

from plastic_rl.algorithms.base import seeds_of
from plastic_rl.algorithms.kept_core import core_record
from plastic_rl.algorithms.saved_policy import policy_document
from plastic_rl.algorithms.vec_env import EnvironmentDescription, adapt
from plastic_rl.checkpoint import Checkpoint, torch_rng_state
from plastic_rl.errors import ConfigError, UnknownNameError
from plastic_rl.experiment.config import ExperimentConfig
from plastic_rl.policies import POLICIES, PlasticPolicy


class Candidates:
    """The candidates of an experiment, by number, from 0; each was built once.

    Raises:
        ConfigError: If a candidate is no network.
    """

    def __init__(self, config: ExperimentConfig) -> None:
        self.config, environment = config, config.environment
        env = adapt(environment.id, n_envs=1, **environment.options)
        assert isinstance(env, VecEnv)
        with closing(env):
            self.observation_space, self.action_space = env.observation_space, env.action_space
            self.description = EnvironmentDescription.of(env)
        for number in range(len(self)):
            self.policy(number)

    def __len__(self) -> int:
        return self.config.total

    def settings(self, number: int) -> dict[str, Any]:
        """The settings of a candidate by dotted name; those of the last name in the grid change first."""
        assert self.config.candidates is not None
        grid = self.config.candidates.grid
        combination = next(itertools.islice(itertools.product(*grid.values()), number, None))
        return dict(zip(grid, combination, strict=True))

    def network(self, number: int) -> dict[str, Any]:
        """The network's config of a candidate.

        Raises:
            ConfigError: If a setting lies within something that has no settings.
        """
        network = copy.deepcopy(self.config.network)
        for name, value in self.settings(number).items():
            *path, last = name.split(".")
            place = network
            for key in path:
                place = place.setdefault(key, {})
                if not isinstance(place, dict):
                    raise ConfigError(f"candidates.grid.{name}: {key} is {place!r} and has no settings of its own.")
            place[last] = value
        return network

    def policy(self, number: int) -> PlasticPolicy:
        """Make the policy that a candidate is.

        Raises:
            ConfigError: If it is none.
        """
        try:
            return POLICIES[self.config.policy](
                self.observation_space,
                self.action_space,
                feedback=self.description.feedback,
                steps_per_trial=self.description.steps_per_trial,
                generator=torch.Generator().manual_seed(seeds_of(self.config.seed)[0]),
                network=self.network(number),
            ).to(self.config.device)
        except (ConfigError, UnknownNameError) as error:
            settings = ", ".join(f"candidates.grid.{name}: {value!r}" for name, value in self.settings(number).items())
            raise ConfigError(
                f"candidate {number + 1} of {len(self)} ({settings}) makes no network: {error}"
            ) from error

    def checkpoint(self, number: int, policy: PlasticPolicy) -> Checkpoint:
        """A candidate as a checkpoint: the policy, and how many have been tried."""
        document = policy_document(policy, {"network": self.network(number)}, self.description)
        return Checkpoint(
            tensors={"params": {name: own.detach().clone() for name, own in policy.named_parameters()}},
            documents={
                "rng": {"predict": torch_rng_state(policy.sampling)},
                "algorithm": {"candidates": number + 1},
            },
            config={"algorithm": None, "policy": document, "environment_id": self.config.environment.id},
            core=core_record(policy),
        )
