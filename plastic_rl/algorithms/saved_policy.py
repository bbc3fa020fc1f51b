"""What a checkpoint says of the policy that acts, and how the policy is made of it: all that an agent on disk needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import torch
from pydantic import BaseModel
from stable_baselines3.common.utils import get_device
from torch import Tensor
from torch.overrides import TorchFunctionMode

from plastic_rl.algorithms.vec_env import EnvironmentDescription
from plastic_rl.checkpoint import Checkpoint, set_torch_rng_state
from plastic_rl.checkpoint.torch_state import check_parameters, load_parameters, space_from_document, space_to_document
from plastic_rl.errors import CheckpointError, damage_is_refused
from plastic_rl.policies import POLICIES, PlasticPolicy


def policy_document(
    policy: PlasticPolicy, policy_kwargs: Mapping[str, Any], description: EnvironmentDescription
) -> dict[str, Any]:
    """Describe a policy, as a checkpoint's config has it under `policy`.

    Raises:
        CheckpointError: If an argument is not plain data.
    """
    return {
        "class": type(policy).__name__,
        "arguments": plain(policy_kwargs, "policy_kwargs"),
        "observation_space": space_to_document(policy.observation_space),
        "action_space": space_to_document(policy.action_space),
        "environment": asdict(description),
    }


def policy_from_document(document: Mapping[str, Any], generator: torch.Generator | None = None) -> PlasticPolicy:
    """Make the policy that `policy_document` described, with parameters drawn anew."""
    description = EnvironmentDescription.from_document(document["environment"])
    return POLICIES[document["class"]](
        space_from_document(document["observation_space"]),
        space_from_document(document["action_space"]),
        feedback=description.feedback,
        steps_per_trial=description.steps_per_trial,
        generator=generator,
        **document["arguments"],
    )


def load_policy(checkpoint: Checkpoint, device: torch.device | str = "cpu") -> PlasticPolicy:
    """Make the policy of a checkpoint, as it acts.

    Raises:
        CheckpointError: If the policy that it describes cannot be made, or its parameters do not fit.
    """
    with damage_is_refused(f"the policy that {checkpoint.source} describes cannot be made"):
        check_policy(checkpoint)
        policy = policy_from_document(checkpoint.config["policy"])
        load_parameters(policy, checkpoint)
        set_torch_rng_state(policy.sampling, checkpoint.documents["rng"]["predict"])
    policy.set_training_mode(False)
    return policy.to(get_device(device))


def acting_part(checkpoint: Checkpoint) -> Checkpoint:
    """Leave out what only training needs: the optimizer, the lifetimes under way, the run's own part."""
    with damage_is_refused(f"{checkpoint.source} is not that of an agent"):
        checkpoint.check_finite("params")
        counters: dict[str, Any] = dict(checkpoint.documents["algorithm"])
        left_out: dict[str, Any] = dict.fromkeys(["last_obs", "last_episode_starts", "lifetime_scores", "search"])
        left_out |= {"score_buffer": [], "ep_info_buffer": [], "ep_success_buffer": []}
        counters |= {name: value for name, value in left_out.items() if name in counters}
        return replace(
            checkpoint,
            tensors={"params": checkpoint.tensors["params"], "optimizer": {}, "state": {}},
            documents={"rng": checkpoint.documents["rng"], "env": None, "algorithm": counters},
        )


def at_stage_start(checkpoint: Checkpoint, *, reset_optimizer: bool) -> Checkpoint:
    """What a stage begins with, of the checkpoint at which the one before it ended: all but the lifetimes under way."""
    begins = acting_part(checkpoint)
    counters = {**begins.documents["algorithm"]}
    kept = [part for part in ("optimizer", "regulariser") if part in checkpoint.tensors]
    if reset_optimizer:
        kept.remove("optimizer")
    elif "search" in counters:
        counters["search"] = checkpoint.documents["algorithm"]["search"]
    return replace(
        begins,
        tensors={**begins.tensors, **{part: checkpoint.tensors[part] for part in kept}},
        documents={**begins.documents, "algorithm": counters},
    )


def check_policy(checkpoint: Checkpoint) -> None:
    """Compare the sizes that a checkpoint states of its policy with its tensors, before anything so large is made.

    Raises:
        CheckpointError: If they differ.
    """
    try:
        with torch.device("meta"), _Undrawn():  # shapes without numbers, which take no memory
            policy = policy_from_document(checkpoint.config["policy"], torch.Generator())
    except (NotImplementedError, RuntimeError):
        return  # a plug-in's network that looks at its own numbers: it says what does not fit when it is made
    check_parameters(policy, checkpoint)
    rows, state = checkpoint.config.get("n_envs"), checkpoint.tensors.get("state")
    stated = {name: (rows, *entry.shape) for name, entry in policy.network.state_entries().items()}
    held = {name: tuple(tensor.shape) for name, tensor in (state or {}).items()}
    if held and held != stated:
        raise CheckpointError(
            f"{checkpoint.source} holds a plastic state of the shapes {held}, and {rows} lifetimes of the network that "
            f"it states have {stated}"
        )


class _Undrawn(TorchFunctionMode):
    """Draws no normal numbers: to draw none on the meta device, torch imports its compiler for a second."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return args[0] if func is Tensor.normal_ else func(*args, **(kwargs or {}))


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
