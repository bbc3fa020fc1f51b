"""The checkpoint of an algorithm that follows a gradient: from which training goes on byte for byte.

`checkpoint_of` reads a live algorithm, `restore` puts a checkpoint into one.
"""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper, VecNormalize

from plastic_rl.algorithms.persistence import (
    load_optimizer_tensors,
    load_vec_normalize,
    optimizer_tensors,
    vec_normalize_document,
)
from plastic_rl.algorithms.saving import count_in, counters_of, describe, parameters_of, restore_common, streams_of
from plastic_rl.algorithms.vec_env_state import load_vec_env_state, vec_env_state
from plastic_rl.checkpoint import Checkpoint
from plastic_rl.envs.vector_env import stored_array
from plastic_rl.errors import CheckpointError, damage_is_refused

if TYPE_CHECKING:
    from plastic_rl.algorithms.gradient import GradientAlgorithm


def checkpoint_of(algorithm: GradientAlgorithm) -> Checkpoint:
    """Everything needed to go on from here: parameters, optimizer, lifetimes, counters, random streams."""
    policy = algorithm.policy
    # Without an environment there are no lifetimes.
    collector = None if algorithm.env is None else algorithm.collector
    starts = algorithm._last_episode_starts
    return Checkpoint(
        tensors={
            "params": parameters_of(algorithm),
            "optimizer": optimizer_tensors(policy.optimizer, {p: name for name, p in policy.named_parameters()}),
            "state": dict(algorithm._plastic_state),
        },
        documents={
            "rng": streams_of(algorithm),
            "env": None if algorithm.env is None else vec_env_state(algorithm.env),
            "algorithm": {
                **counters_of(algorithm),
                "n_updates": algorithm._n_updates,
                "iterations": algorithm.iterations,
                **algorithm.counters(),
                "score_buffer": list(algorithm.score_buffer),
                # Monitor's clock reading "t" would make equal runs differ.
                "ep_info_buffer": [{**info, "t": 0.0} for info in algorithm.ep_info_buffer or []],
                "ep_success_buffer": [float(success) for success in algorithm.ep_success_buffer or []],
                "lifetime_scores": None if collector is None else collector.lifetime_scores,
                "awaiting_reset": None if collector is None else collector.awaiting_reset,
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
    with damage_is_refused(f"{checkpoint.source} does not fit this {type(algorithm).__name__}"):
        counters, policy = checkpoint.documents["algorithm"], algorithm.policy
        restore_common(algorithm, checkpoint)
        trained = {name: parameter for name, parameter in policy.named_parameters() if parameter.requires_grad}
        load_optimizer_tensors(policy.optimizer, checkpoint, trained)
        algorithm._n_updates = count_in(counters, "n_updates")
        algorithm.set_counters(counters)
        window = algorithm._stats_window_size
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


def _restore_lifetimes(algorithm: GradientAlgorithm, checkpoint: Checkpoint) -> bool | None:
    """Put the lifetimes under way back.

    Returns:
        True where they go on, false where newborn ones begin with the next `learn`, None where the environment has to
        be reset first.
    """
    counters = checkpoint.documents["algorithm"]
    starts, env_state = counters["last_episode_starts"], checkpoint.documents["env"]
    algorithm._last_obs = algorithm._last_episode_starts = None
    env = algorithm.env
    if env is None:
        return False
    algorithm.collector.reset()
    if starts is None or len(starts) != algorithm.n_envs:
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
    checkpoint.check_finite("state")
    own, stored = (
        {name: (entry.shape, entry.dtype) for name, entry in state.items()}
        for state in (algorithm._plastic_state, checkpoint.tensors["state"])
    )
    if own != stored:
        raise CheckpointError(f"the stored plastic state is none of {algorithm.n_envs} lifetimes of this network")
    algorithm._plastic_state = {
        name: checkpoint.tensors["state"][name].to(algorithm.device) for name in algorithm._plastic_state
    }
    algorithm._last_obs = shown
    return True
