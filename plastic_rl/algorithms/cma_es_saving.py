"""The checkpoint of CMA-ES: from which evolution goes on byte for byte, as plain arrays and documents."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch

from plastic_rl.algorithms.persistence import load_parameters, space_from_document, space_to_document
from plastic_rl.algorithms.saving import check_class, check_keywords, count_in, plain
from plastic_rl.algorithms.vec_env import EnvironmentDescription
from plastic_rl.checkpoint import Checkpoint, set_torch_rng_state, torch_rng_state
from plastic_rl.errors import damage_is_refused
from plastic_rl.policies import POLICIES

if TYPE_CHECKING:
    from plastic_rl.algorithms.base import PlasticAlgorithm
    from plastic_rl.algorithms.cma_es import CMAES

    AlgorithmT = TypeVar("AlgorithmT", bound=PlasticAlgorithm)

# Neither the engine nor its workers: results do not depend on them.
_ARGUMENTS = (
    "population_size",
    "lifetimes",
    "sigma",
    "statistic",
    "evolve",
    "covariance",
    "restarts",
    "deterministic",
    "individuals_per_chunk",
    "trials",
    "env_kwargs",
    "seed",
)


def describe(algorithm: CMAES) -> dict[str, Any]:
    """Return the algorithm's arguments and spaces as plain data: what `rebuild` needs.

    Raises:
        CheckpointError: If an argument is not plain data.
    """
    return {
        "algorithm": type(algorithm).__name__,
        "policy": algorithm.policy_class.__name__,
        "environment_id": algorithm.env_id,
        "arguments": {
            **{name: plain(getattr(algorithm, name), name) for name in _ARGUMENTS},
            "groups": {pattern: asdict(group) for pattern, group in algorithm.groups.items()},
            "stats_window_size": algorithm._stats_window_size,
            "policy_kwargs": plain(algorithm.policy_kwargs, "policy_kwargs"),
        },
        "n_envs": algorithm.n_envs,
        "observation_space": space_to_document(algorithm.observation_space),
        "action_space": space_to_document(algorithm.action_space),
        "environment": algorithm.description.to_document(),
    }


def checkpoint_of(algorithm: CMAES) -> Checkpoint:
    """Everything needed to go on from here, between two generations."""
    policy, search = algorithm.policy, algorithm.search
    return Checkpoint(
        tensors={
            "params": {name: parameter.detach() for name, parameter in policy.named_parameters()},
            "optimizer": {name: torch.from_numpy(array) for name, array in search.tensors().items()},
            "state": {},
        },
        documents={
            "rng": {
                "sampling": torch_rng_state(algorithm._sampling),
                "predict": torch_rng_state(policy.sampling),
                "initial": torch_rng_state(algorithm._initial),
            },
            "env": None,
            "algorithm": {
                "num_timesteps": algorithm.num_timesteps,
                "total_timesteps": algorithm._total_timesteps,
                "progress_remaining": algorithm._current_progress_remaining,
                "iterations": algorithm.iterations,
                "exams": algorithm.exams,
                "score_buffer": list(algorithm.score_buffer),
                "search": search.document(),
            },
        },
        config=describe(algorithm),
    )


def restore(algorithm: CMAES, checkpoint: Checkpoint) -> None:
    """Go on from `checkpoint`.

    A checkpoint that holds only what acts (an exported agent's) begins a new search around its parameters.

    Raises:
        CheckpointError: If the checkpoint belongs to another network, or lacks a part, or a part does not fit.
    """
    with damage_is_refused(f"the checkpoint does not fit this {type(algorithm).__name__}"):
        counters, streams = checkpoint.documents["algorithm"], checkpoint.documents["rng"]
        policy = algorithm.policy
        load_parameters(policy, checkpoint.tensors["params"])
        set_torch_rng_state(algorithm._sampling, streams["sampling"])
        set_torch_rng_state(policy.sampling, streams["predict"])
        set_torch_rng_state(algorithm._initial, streams["initial"])
        algorithm.num_timesteps = count_in(counters, "num_timesteps")
        algorithm._total_timesteps = count_in(counters, "total_timesteps")
        algorithm._current_progress_remaining = float(counters["progress_remaining"])
        algorithm.iterations, algorithm.exams = count_in(counters, "iterations"), count_in(counters, "exams")
        algorithm.score_buffer = deque(map(float, counters["score_buffer"]), maxlen=1)
        if checkpoint.tensors["optimizer"]:
            arrays = {name: np.asarray(tensor) for name, tensor in checkpoint.tensors["optimizer"].items()}
            algorithm.search.restore(arrays, counters["search"])
        else:
            algorithm.begin_search()
        algorithm.examiner = algorithm.make_examiner()


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
        arguments = {**config["arguments"], "device": device, **kwargs}
        # Every algorithm of the package takes it; stable-baselines3's base class does not declare it.
        make: Callable[..., AlgorithmT] = cls
        algorithm = make(POLICIES[config["policy"]], env, **arguments, _init_setup_model=False)
        if algorithm.env is None:
            algorithm.observation_space = space_from_document(config["observation_space"])
            algorithm.action_space = space_from_document(config["action_space"])
            algorithm.n_envs = config["n_envs"]
            algorithm.description = EnvironmentDescription.from_document(config["environment"])
        algorithm._setup_model()
    algorithm.set_checkpoint(checkpoint)
    return algorithm
