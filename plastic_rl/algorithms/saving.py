"""The checkpoint of an on-policy algorithm: from which training goes on byte for byte.

`checkpoint_of` reads a live algorithm, `restore` puts a checkpoint into one, `rebuild` makes one from a checkpoint.
"""

from __future__ import annotations

import inspect
import warnings
from collections import deque
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np
import torch
from pydantic import BaseModel
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper, VecNormalize

from plastic_rl.algorithms.persistence import (
    load_optimizer_tensors,
    load_parameters,
    load_vec_normalize,
    optimizer_tensors,
    space_from_document,
    space_to_document,
    vec_normalize_document,
)
from plastic_rl.algorithms.vec_env import EnvironmentDescription
from plastic_rl.algorithms.vec_env_state import load_vec_env_state, vec_env_state
from plastic_rl.checkpoint import Checkpoint, set_torch_rng_state, torch_rng_state
from plastic_rl.config import Schedule
from plastic_rl.envs.restoring import stored_array
from plastic_rl.errors import CheckpointError, ConfigError, damage_is_refused, unknown_name_message
from plastic_rl.policies import POLICIES

if TYPE_CHECKING:
    from plastic_rl.algorithms.gradient import GradientAlgorithm

    AlgorithmT = TypeVar("AlgorithmT", bound=GradientAlgorithm)

_ARGUMENTS = ("max_grad_norm", "optimizer_eps", "plasticity_lr_scale", "trials", "env_kwargs")


def describe(algorithm: GradientAlgorithm) -> dict[str, Any]:
    """Return the algorithm's arguments and spaces as plain data: what `rebuild` needs.

    Raises:
        CheckpointError: If an argument is not plain data (a schedule that is a function, say).
    """
    return {
        "algorithm": type(algorithm).__name__,
        "policy": algorithm.policy_class.__name__,
        "environment_id": algorithm.env_id,
        "arguments": {
            **{name: getattr(algorithm, name) for name in (*_ARGUMENTS, *algorithm.stored_arguments)},
            "optimizer": algorithm.optimizer_name,
            "learning_rate": plain(algorithm.learning_rate, "learning_rate"),
            **{
                name: plain(getattr(algorithm, attribute), name)
                for name, attribute in algorithm.stored_schedules.items()
            },
            "n_steps": algorithm.requested_n_steps,
            "stats_window_size": algorithm._stats_window_size,
            "seed": algorithm.seed,
            "policy_kwargs": plain(algorithm.policy_kwargs, "policy_kwargs"),
        },
        "n_envs": algorithm.n_envs,
        "observation_space": space_to_document(algorithm.observation_space),
        "action_space": space_to_document(algorithm.action_space),
        "environment": algorithm.description.to_document(),
    }


def checkpoint_of(algorithm: GradientAlgorithm) -> Checkpoint:
    """Everything needed to go on from here: parameters, optimizer, lifetimes, counters, random streams."""
    policy, collector = algorithm.policy, algorithm.collector
    starts = algorithm._last_episode_starts
    return Checkpoint(
        tensors={
            "params": {name: parameter.detach() for name, parameter in policy.named_parameters()},
            "optimizer": optimizer_tensors(policy.optimizer, {p: name for name, p in policy.named_parameters()}),
            "state": dict(algorithm._plastic_state),
        },
        documents={
            "rng": {
                "sampling": torch_rng_state(algorithm._sampling),
                "predict": torch_rng_state(policy.sampling),
                "initial": torch_rng_state(algorithm._initial),
            },
            "env": None if algorithm.env is None else vec_env_state(algorithm.env),
            "algorithm": {
                "num_timesteps": algorithm.num_timesteps,
                "total_timesteps": algorithm._total_timesteps,
                "progress_remaining": algorithm._current_progress_remaining,
                "n_updates": algorithm._n_updates,
                "iterations": algorithm.iterations,
                **algorithm.counters(),
                "score_buffer": list(algorithm.score_buffer),
                # Monitor's clock reading "t" would make equal runs differ.
                "ep_info_buffer": [{**info, "t": 0.0} for info in algorithm.ep_info_buffer or []],
                "ep_success_buffer": [float(success) for success in algorithm.ep_success_buffer or []],
                "lifetime_scores": collector.lifetime_scores,
                "awaiting_reset": collector.awaiting_reset,
                "last_obs": None if algorithm._last_obs is None else np.array(algorithm._last_obs),
                "last_episode_starts": None if starts is None else np.array(starts),
                "vec_normalize": vec_normalize_document(algorithm.get_vec_normalize_env()),
            },
        },
        config=describe(algorithm),
    )


def restore(algorithm: GradientAlgorithm, checkpoint: Checkpoint) -> None:
    """Go on from `checkpoint`, in the environment at hand where it has as many rows.

    An environment that cannot restore its state restarts its lifetimes, with a warning.

    Raises:
        CheckpointError: If the checkpoint belongs to another network, or lacks a part, or a part does not fit.
    """
    with damage_is_refused(f"the checkpoint does not fit this {type(algorithm).__name__}"):
        counters, streams = checkpoint.documents["algorithm"], checkpoint.documents["rng"]
        policy = algorithm.policy
        load_parameters(policy, checkpoint.tensors["params"])
        load_optimizer_tensors(policy.optimizer, checkpoint.tensors["optimizer"], dict(policy.named_parameters()))
        set_torch_rng_state(algorithm._sampling, streams["sampling"])
        set_torch_rng_state(policy.sampling, streams["predict"])
        set_torch_rng_state(algorithm._initial, streams["initial"])
        algorithm.num_timesteps = count_in(counters, "num_timesteps")
        algorithm._total_timesteps = count_in(counters, "total_timesteps")
        algorithm._current_progress_remaining = float(counters["progress_remaining"])
        algorithm._n_updates, algorithm.iterations = count_in(counters, "n_updates"), count_in(counters, "iterations")
        algorithm.set_counters(counters)
        window = algorithm._stats_window_size
        algorithm.score_buffer = deque(map(float, counters["score_buffer"]), maxlen=window)
        ended = [{**info, "r": float(info["r"]), "l": int(info["l"])} for info in counters["ep_info_buffer"]]
        algorithm.ep_info_buffer = deque(ended, maxlen=window)
        algorithm.ep_success_buffer = deque(map(float, counters["ep_success_buffer"]), maxlen=window)
        normalised = algorithm.get_vec_normalize_env()
        if normalised is not None and counters["vec_normalize"] is not None:
            load_vec_normalize(normalised, counters["vec_normalize"])
        _warn_of_normalised_training(counters["vec_normalize"], normalised)
        goes_on = _restore_lifetimes(algorithm, checkpoint)
    env = algorithm.env
    if env is None or goes_on is not None:
        return
    warnings.warn(
        "this environment cannot restore its state: its lifetimes start anew, so training goes on, but not with "
        "the bytes of an undisturbed run",
        stacklevel=2,
    )
    if checkpoint.documents["env"] is not None:
        # The environment went on to its next lifetimes; the seed kept for a first reset would turn it back.
        layer: VecEnv = env
        layer._reset_seeds()
        while isinstance(layer, VecEnvWrapper):
            layer = layer.venv
            layer._reset_seeds()
    algorithm._last_obs = cast("Any", env.reset())
    algorithm._last_episode_starts = np.ones(algorithm.n_envs, dtype=bool)


def _warn_of_normalised_training(stored: Mapping[str, Any] | None, at_hand: VecNormalize | None) -> None:
    if stored is None or stored["observations"] is None or (at_hand is not None and at_hand.norm_obs):
        return
    warnings.warn(
        "this agent was trained on observations that VecNormalize had normalised, and is loaded without one: it would "
        "act on observations as they are, which it has never seen. Load it with env=VecNormalize(...) around its "
        "environment: the checkpoint holds the statistics, which it then takes over",
        stacklevel=3,
    )


def count_in(counters: Mapping[str, Any], name: str) -> int:
    """Read a whole number of 0 or more.

    Raises:
        CheckpointError: If it is something else.
    """
    value = counters[name]
    if type(value) is not int or value < 0:
        raise CheckpointError(f"the stored {name!r} must be a whole number of 0 or more, got {value!r}")
    return value


def _restore_lifetimes(algorithm: GradientAlgorithm, checkpoint: Checkpoint) -> bool | None:
    """Put the lifetimes under way back.

    Returns:
        True where they go on, false where newborn ones begin with the next `learn`, None where the environment has to
        be reset first.
    """
    counters = checkpoint.documents["algorithm"]
    starts, env_state = counters["last_episode_starts"], checkpoint.documents["env"]
    algorithm._last_obs = algorithm._last_episode_starts = None
    algorithm.collector.reset()
    env = algorithm.env
    if env is None or starts is None or len(starts) != algorithm.n_envs:
        algorithm._plastic_state = algorithm.newborn_state()
        return False
    if env_state is None or not load_vec_env_state(env, env_state):
        algorithm._plastic_state = algorithm.newborn_state()
        return None
    collector = algorithm.collector
    shown = np.array(counters["last_obs"])
    if shown.shape != (algorithm.n_envs, *(algorithm.observation_space.shape or ())) or shown.dtype.kind not in "fiub":
        raise CheckpointError(f"the stored 'last_obs' is no observation of these environments, but {shown!r:.80}")
    algorithm._last_episode_starts = stored_array("last_episode_starts", starts, collector.awaiting_reset)
    collector.lifetime_scores = stored_array("lifetime_scores", counters["lifetime_scores"], collector.lifetime_scores)
    collector.awaiting_reset = stored_array("awaiting_reset", counters["awaiting_reset"], collector.awaiting_reset)
    # Only its names and shapes count: the algorithm's own stream must not be drawn from.
    newborn = algorithm.policy.network.initial_state(algorithm.n_envs, torch.Generator())
    stored = checkpoint.tensors["state"]
    if {name: entry.shape for name, entry in newborn.items()} != {name: entry.shape for name, entry in stored.items()}:
        raise CheckpointError(f"the stored plastic state is none of {algorithm.n_envs} lifetimes of this network")
    algorithm._plastic_state = {
        name: stored[name].to(device=algorithm.device, dtype=entry.dtype) for name, entry in newborn.items()
    }
    algorithm._last_obs = shown
    return True


def rebuild(cls: type[AlgorithmT], checkpoint: Checkpoint, env: Any, device: Any, **kwargs: Any) -> AlgorithmT:
    """Make the algorithm that a checkpoint describes, and put the checkpoint into it.

    Args:
        cls: The algorithm's class.
        checkpoint: As from `checkpoint_of`.
        env: Environment to go on in, as in the constructor; None gives an agent that only predicts.
        device: Where to put the agent.
        **kwargs: Constructor arguments that replace the stored ones.

    Raises:
        CheckpointError: If it is a checkpoint of another algorithm, or what it describes cannot be made.
        ConfigError: If there is no such constructor argument.
    """
    config = checkpoint.config
    check_class(cls, config)
    check_keywords(cls, kwargs)
    with damage_is_refused(f"the {cls.__name__} that the checkpoint describes cannot be made"):
        arguments = dict(config["arguments"])
        for name in ("learning_rate", *cls.stored_schedules):
            arguments[name] = Schedule.model_validate(arguments[name])
        arguments = {"n_envs": count_in(config, "n_envs"), **arguments, "device": device, **kwargs}
        algorithm = cls(POLICIES[config["policy"]], env, **arguments, _init_setup_model=False)
        algorithm.env_id = algorithm.env_id or config["environment_id"]
        if algorithm.env is None:
            algorithm.observation_space = space_from_document(config["observation_space"])
            algorithm.action_space = space_from_document(config["action_space"])
            algorithm.n_envs = config["n_envs"]
            algorithm.description = EnvironmentDescription.from_document(config["environment"])
        algorithm._setup_model()
    restore(algorithm, checkpoint)
    return algorithm


def check_class(cls: type[Any], config: Mapping[str, Any]) -> None:
    """Refuse the checkpoint of another algorithm.

    Raises:
        CheckpointError: Naming both.
    """
    named = config.get("algorithm")
    if not isinstance(named, str) or named != cls.__name__:
        raise CheckpointError(f"this is a checkpoint of {named!r}, not of {cls.__name__}")


def check_keywords(cls: type[Any], kwargs: Mapping[str, Any]) -> None:
    """Refuse what is no argument of the algorithm's constructor.

    Raises:
        ConfigError: With the nearest name.
    """
    known = inspect.signature(cls).parameters
    for name in kwargs:
        if name not in known:
            raise ConfigError(unknown_name_message(f"argument of {cls.__name__}", name, known))


def plain(value: Any, name: str) -> Any:
    """Turn an argument into plain data, or say why it cannot be saved.

    Raises:
        CheckpointError: If it is not plain data.
    """
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, Mapping):
        return {key: plain(entry, f"{name}.{key}") for key, entry in value.items()}
    if value is None or isinstance(value, bool | int | float | str | list | tuple):
        return value
    raise CheckpointError(
        f"cannot save {name} = {value!r}: a checkpoint holds plain data only; use a number or "
        "plastic_rl.config.Schedule"
    )
