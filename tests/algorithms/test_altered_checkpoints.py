"""Checkpoints that were altered and given fresh checksums: one clear error, or an agent that still trains."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from plastic_rl.algorithms import PlasticA2C
from plastic_rl.algorithms.gradient_saving import restore
from plastic_rl.algorithms.saving import rebuild
from plastic_rl.algorithms.vec_env import VectorEnvAdapter
from plastic_rl.algorithms.vec_lifetime import VecLifetime
from plastic_rl.checkpoint import Checkpoint
from plastic_rl.envs import make_vector
from plastic_rl.errors import CheckpointError, ConfigError, PlasticRLError

BANDIT, MAZE = "plastic_rl/ReversalBandit-v0", "plastic_rl/GridMaze-v0"
MISSING = object()
WRONG = [MISSING, None, "text", -1, 10**30, float("nan"), [], {"a": 1}, np.zeros((1, 2, 3)), np.full(2, -7)]
# Sizes that only cost memory until it runs out are no damage that could be told from a large experiment.
SIZES = {"n_steps", "stats_window_size"}


def checkpoint_in(env_id: str, steps: int = 8) -> Checkpoint:
    agent = PlasticA2C(
        "BackpropaminePolicy",
        env_id,
        n_envs=2,
        n_steps=5,
        seed=1,
        env_kwargs={"steps": steps},
        policy_kwargs={"network": {"hidden_size": 3}},
    )
    return agent.learn(10).get_checkpoint()


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if path:
        yield path
    if isinstance(value, dict):
        for key in value:
            yield from places(value[key], (*path, key))
    elif isinstance(value, list):
        for index in range(min(len(value), 1)):  # the others are alike
            yield from places(value[index], (*path, index))


def altered(checkpoint: Checkpoint, part: str, path: tuple[Any, ...], value: Any) -> Checkpoint:
    changed = copy.deepcopy(checkpoint)
    holder = getattr(changed, part)
    for key in path[:-1]:
        holder = holder[key]
    if value is MISSING:
        del holder[path[-1]]
    else:
        holder[path[-1]] = value
    return changed


@pytest.mark.parametrize("env_id", [BANDIT, MAZE])
@pytest.mark.parametrize("part", ["documents", "config"])
def test_altered_data_are_refused_or_harmless(env_id: str, part: str) -> None:
    whole = checkpoint_in(env_id)
    refused = 0
    for path in places(getattr(whole, part)):
        for value in WRONG:
            if isinstance(path[-1], int) and value is MISSING:
                continue
            if path[-1] in SIZES and isinstance(value, int) and value > 0:
                continue
            try:
                rebuild(PlasticA2C, altered(whole, part, path, value), env_id, "cpu").learn(
                    10, reset_num_timesteps=False, log_interval=0
                )
            except PlasticRLError:
                refused += 1
            except Exception as error:
                error.add_note(f"with {value!r} at {path}")
                raise
    assert refused > 200


@pytest.mark.parametrize("part", ["params", "optimizer", "state"])
def test_altered_tensors_are_refused(part: str) -> None:
    whole = checkpoint_in(BANDIT)
    for name, tensor in whole.tensors[part].items():
        for value in (MISSING, torch.zeros(7, 7, 7), torch.cat([tensor.reshape(-1), torch.zeros(1)])):
            if part == "optimizer" and (value is MISSING or tensor.dim() == 0):
                continue
            with pytest.raises(CheckpointError):
                rebuild(PlasticA2C, altered(whole, "tensors", (part, name), value), BANDIT, "cpu")


def test_whole_parts_that_lack_are_named() -> None:
    whole = checkpoint_in(BANDIT)
    for part in ("rng", "algorithm", "env"):
        with pytest.raises(CheckpointError, match=f"it lacks '{part}'"):
            rebuild(PlasticA2C, altered(whole, "documents", (part,), MISSING), BANDIT, "cpu")
    with pytest.raises(ConfigError, match="Did you mean 'gamma'"):
        rebuild(PlasticA2C, whole, BANDIT, "cpu", gama=0.5)


def test_generator_states_are_checked() -> None:
    env = make_vector(BANDIT, 2, env_kwargs={"steps": 8})
    env.reset(seed=1)
    state = env.get_state()
    state["generators"][1] = {"bit_generator": "MT19937"}
    with pytest.raises(CheckpointError, match="does not fit ReversalBanditVectorEnv"):
        env.set_state(state)


def test_another_stack_of_wrappers_is_refused() -> None:
    def bandit() -> VectorEnvAdapter:
        return VectorEnvAdapter(make_vector(BANDIT, 2, env_kwargs={"steps": 8}))

    whole = checkpoint_in(BANDIT)

    class Remembering(VecNormalize):
        def get_state(self) -> dict[str, Any]:
            return {}

        def set_state(self, state: dict[str, Any]) -> None:
            assert state == {}

    agent = PlasticA2C("BackpropaminePolicy", Remembering(bandit()), policy_kwargs={"network": {"hidden_size": 3}})
    with pytest.raises(CheckpointError, match=r"state of 0 wrappers .* have 1 that keep state \(Remembering\)"):
        restore(agent, whole)


def test_stored_feedback_must_fit() -> None:
    env = VecLifetime(DummyVecEnv([lambda: gym.make("CartPole-v1")]))
    env.reset()
    with pytest.raises(CheckpointError, match="'buffer' must be float32"):
        env.set_state({"buffer": np.zeros((3, 9), np.float32), "time": np.zeros(3, np.int64)})
    with pytest.raises(CheckpointError, match="lacks 'time'"):
        env.set_state({"buffer": np.zeros((1, 9), np.float32)})
