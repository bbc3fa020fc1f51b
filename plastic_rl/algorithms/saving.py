"""What the checkpoints of all algorithms have in common: what they say of the algorithm, and how it is made again.

`describe` turns a live algorithm's arguments and spaces into plain data, `rebuild` makes an algorithm of them; what a
checkpoint holds beside these, and how it is put back, the modules of the algorithms say.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from pydantic import BaseModel
from torch import Tensor

from plastic_rl.algorithms.persistence import check_parameters, load_parameters, space_from_document, space_to_document
from plastic_rl.algorithms.vec_env import EnvironmentDescription
from plastic_rl.checkpoint import Checkpoint, set_torch_rng_state, torch_rng_state
from plastic_rl.errors import CheckpointError, ConfigError, damage_is_refused, unknown_name_message
from plastic_rl.policies import POLICIES

if TYPE_CHECKING:
    from plastic_rl.algorithms.base import PlasticAlgorithm

    AlgorithmT = TypeVar("AlgorithmT", bound=PlasticAlgorithm)


def describe(algorithm: PlasticAlgorithm) -> dict[str, Any]:
    """Return the algorithm's arguments and spaces as plain data: what `rebuild` needs.

    Raises:
        CheckpointError: If an argument is not plain data (a schedule that is a function, say).
    """
    return {
        "algorithm": type(algorithm).__name__,
        "policy": algorithm.policy_class.__name__,
        "environment_id": algorithm.env_id,
        "arguments": {name: plain(value, name) for name, value in algorithm.arguments().items()},
        "n_envs": algorithm.n_envs,
        "observation_space": space_to_document(algorithm.observation_space),
        "action_space": space_to_document(algorithm.action_space),
        "environment": algorithm.description.to_document(),
    }


def rebuild(cls: type[AlgorithmT], checkpoint: Checkpoint, env: Any, device: Any, **kwargs: Any) -> AlgorithmT:
    """Make the algorithm that a checkpoint describes, and put the checkpoint into it.

    Args:
        cls: The algorithm's class.
        checkpoint: As from `PlasticAlgorithm.get_checkpoint`.
        env: Environment to go on in, as in the constructor; None gives an agent that only predicts.
        device: Where to put the agent.
        **kwargs: Constructor arguments that replace the stored ones.

    Raises:
        CheckpointError: If it is a checkpoint of another algorithm, or what it describes cannot be made.
        ConfigError: If there is no such constructor argument.
    """
    config = checkpoint.config
    named = config.get("algorithm")
    if not isinstance(named, str) or named != cls.__name__:
        raise CheckpointError(f"this is a checkpoint of {named!r}, not of {cls.__name__}")
    _check_keywords(cls, kwargs)
    with damage_is_refused(f"the {cls.__name__} that {checkpoint.source} describes cannot be made"):
        arguments = {**cls.arguments_of(config), "device": device}
        _check_sizes(_outline(cls, config, arguments), checkpoint)
        arguments |= kwargs
        if env is None:
            algorithm = _outline(cls, config, arguments)
            algorithm._setup_model()
        else:
            make: Callable[..., AlgorithmT] = cls
            algorithm = make(POLICIES[config["policy"]], env, **arguments)
            algorithm.env_id = algorithm.env_id or config["environment_id"]
    algorithm.set_checkpoint(checkpoint)
    return algorithm


def _outline(cls: type[AlgorithmT], config: Mapping[str, Any], arguments: Mapping[str, Any]) -> AlgorithmT:
    """The algorithm that a checkpoint describes, without an environment and before anything of its size is made."""
    make: Callable[..., AlgorithmT] = cls
    algorithm = make(POLICIES[config["policy"]], None, **arguments)
    algorithm.env_id = config["environment_id"]
    algorithm.observation_space = space_from_document(config["observation_space"])
    algorithm.action_space = space_from_document(config["action_space"])
    algorithm.n_envs = count_in(config, "n_envs")
    algorithm.description = EnvironmentDescription.from_document(config["environment"])
    return algorithm


def _check_sizes(algorithm: PlasticAlgorithm, checkpoint: Checkpoint) -> None:
    """Compare the sizes that a checkpoint states with the tensors that it holds, within `damage_is_refused`.

    Environments, networks and buffers of the stated sizes are made afterwards, so that none is larger than the file.

    Raises:
        CheckpointError: If they differ.
    """
    rows, state = algorithm.n_envs, checkpoint.tensors["state"]
    starts = checkpoint.documents["algorithm"].get("last_episode_starts")
    if starts is not None and len(starts) != rows:
        raise CheckpointError(f"{checkpoint.source} states {rows:,} environments, and holds {len(starts):,} of them")
    try:
        with torch.device("meta"):  # shapes without numbers, which take no memory
            policy = algorithm.new_policy(algorithm.stored_policy_kwargs(checkpoint), torch.Generator())
    except (NotImplementedError, RuntimeError):
        return  # a plug-in's network that looks at its own numbers: it says what does not fit when it is made
    check_parameters(policy, checkpoint)
    stated = {name: (rows, *entry.shape) for name, entry in policy.network.state_entries().items()}
    held = {name: tuple(tensor.shape) for name, tensor in state.items()}
    if held and held != stated:
        raise CheckpointError(
            f"{checkpoint.source} holds a plastic state of the shapes {held}, and {rows:,} lifetimes of the network "
            f"that it states have {stated}"
        )


def _check_keywords(cls: type[PlasticAlgorithm], kwargs: Mapping[str, Any]) -> None:
    """Refuse what is no argument of the algorithm's constructor, with the nearest name."""
    # Each constructor hands on to the next what it does not take itself.
    makers = [inspect.signature(kind) for kind in cls.__mro__ if hasattr(kind, "stored_arguments")]
    known = [name for maker in makers for name in maker.parameters]
    for name in kwargs:
        if name not in known:
            raise ConfigError(unknown_name_message(f"argument of {cls.__name__}", name, dict.fromkeys(known)))


def parameters_of(algorithm: PlasticAlgorithm) -> dict[str, Tensor]:
    """The policy's parameters by name, as they are now, whatever training makes of them later."""
    return {name: parameter.detach().clone() for name, parameter in algorithm.policy.named_parameters()}


def streams_of(algorithm: PlasticAlgorithm) -> dict[str, Any]:
    """The states of the algorithm's random streams."""
    return {
        "sampling": torch_rng_state(algorithm._sampling),
        "predict": torch_rng_state(algorithm.policy.sampling),
        "initial": torch_rng_state(algorithm._initial),
    }


def counters_of(algorithm: PlasticAlgorithm) -> dict[str, Any]:
    """How far training is."""
    return {
        "num_timesteps": algorithm.num_timesteps,
        "total_timesteps": algorithm._total_timesteps,
        "progress_remaining": algorithm._current_progress_remaining,
    }


def restore_common(algorithm: PlasticAlgorithm, checkpoint: Checkpoint) -> None:
    """Put back parameters, random streams, counters and scores, within `damage_is_refused`."""
    counters, streams = checkpoint.documents["algorithm"], checkpoint.documents["rng"]
    load_parameters(algorithm.policy, checkpoint)
    set_torch_rng_state(algorithm._sampling, streams["sampling"])
    set_torch_rng_state(algorithm.policy.sampling, streams["predict"])
    set_torch_rng_state(algorithm._initial, streams["initial"])
    algorithm.num_timesteps = count_in(counters, "num_timesteps")
    algorithm._total_timesteps = count_in(counters, "total_timesteps")
    algorithm._current_progress_remaining = float(counters["progress_remaining"])
    algorithm.iterations = count_in(counters, "iterations")
    algorithm.score_buffer.clear()
    algorithm.score_buffer.extend(map(float, counters["score_buffer"]))


def count_in(counters: Mapping[str, Any], name: str) -> int:
    """Read a whole number of 0 or more.

    Raises:
        CheckpointError: If it is something else.
    """
    value = counters[name]
    if type(value) is not int or value < 0:
        raise CheckpointError(f"the stored {name!r} must be a whole number of 0 or more, got {value!r}")
    return value


def plain(value: Any, name: str) -> Any:
    """Turn an argument into plain data, or say why it cannot be saved.

    Raises:
        CheckpointError: If it is not plain data.
    """
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, Mapping):
        return {key: plain(entry, f"{name}.{key}") for key, entry in value.items()}
    if value is None or isinstance(value, bool | int | float | str | list | tuple | np.generic | np.ndarray):
        return value
    raise CheckpointError(
        f"cannot save {name} = {value!r}: a checkpoint holds plain data only; use a number or "
        "plastic_rl.config.Schedule"
    )
