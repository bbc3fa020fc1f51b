"""Parameters, optimizers and spaces as a checkpoint holds them: plain tensors and documents; nothing is pickled."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from plastic_rl.checkpoint.store import Checkpoint
from plastic_rl.errors import CheckpointError, SpaceError


def space_to_document(space: spaces.Space[Any]) -> dict[str, Any]:
    """Describe a Box, Discrete, MultiDiscrete or MultiBinary space.

    >>> space_to_document(spaces.Discrete(3))
    {'kind': 'Discrete', 'n': 3}
    """
    if isinstance(space, spaces.Box):
        return {"kind": "Box", "low": space.low, "high": space.high, "dtype": np.dtype(space.dtype).name}
    if isinstance(space, spaces.Discrete):
        return {"kind": "Discrete", "n": int(space.n)}
    if isinstance(space, spaces.MultiDiscrete):
        return {"kind": "MultiDiscrete", "sizes": [int(size) for size in space.nvec]}
    if isinstance(space, spaces.MultiBinary) and len(space.shape) == 1:
        return {"kind": "MultiBinary", "n": space.shape[0]}
    raise SpaceError(f"cannot store the space {space}; valid are Box, Discrete, MultiDiscrete and MultiBinary")


def space_from_document(document: Mapping[str, Any]) -> spaces.Space[Any]:
    """Build the space that `space_to_document` described."""
    kind = document["kind"]
    if kind == "Box":
        return spaces.Box(
            np.asarray(document["low"]), np.asarray(document["high"]), dtype=np.dtype(document["dtype"]).type
        )
    if kind == "Discrete":
        return spaces.Discrete(int(document["n"]))
    if kind == "MultiDiscrete":
        return spaces.MultiDiscrete([int(size) for size in document["sizes"]])
    if kind == "MultiBinary":
        return spaces.MultiBinary(int(document["n"]))
    raise CheckpointError(f"the checkpoint holds a space of unknown kind {kind!r}")


OPTIMIZER_ENTRIES: Mapping[type[torch.optim.Optimizer], tuple[str, ...]] = {
    torch.optim.Adam: ("step", "exp_avg", "exp_avg_sq"),
    torch.optim.RMSprop: ("step", "square_avg"),
}
"""What an optimizer keeps of each parameter that it has moved: updates so far, and running averages of its shape."""

_SQUARES = ("exp_avg_sq", "square_avg")


def optimizer_tensors(optimizer: torch.optim.Optimizer, names: Mapping[torch.nn.Parameter, str]) -> dict[str, Tensor]:
    """Flatten the optimizer's state to `"<entry>/<parameter name>"` -> tensor."""
    return {
        # By itself the count of updates would be of torch's default type.
        f"{entry}/{name}": value.detach().clone().to(parameter.dtype)
        for parameter, name in names.items()
        for entry, value in optimizer.state.get(parameter, {}).items()
    }


def load_optimizer_tensors(
    optimizer: torch.optim.Optimizer, checkpoint: Checkpoint, parameters: Mapping[str, Tensor]
) -> None:
    """Put back what `optimizer_tensors` took, on the parameters' devices.

    Raises:
        CheckpointError: If an entry is missing, unknown, of another type or shape, or no number that it can be.
    """
    checkpoint.check_finite("optimizer")
    tensors, source = checkpoint.tensors["optimizer"], f"{checkpoint.source}: in optimizer.safetensors"
    # A parameter that had no gradient has no entries; one that has any has all.
    moved = dict.fromkeys(key.partition("/")[2] for key in tensors)
    if strangers := [name for name in moved if name not in parameters]:
        raise CheckpointError(f"{source} stands {strangers[0]!r}, which is no trained parameter of this policy")
    wanted = {f"{entry}/{name}" for name in moved for entry in OPTIMIZER_ENTRIES[type(optimizer)]}
    if wanted != tensors.keys():
        raise CheckpointError(
            f"{source} are not the entries of {type(optimizer).__name__}: missing {sorted(wanted - tensors.keys())}, "
            f"unknown {sorted(tensors.keys() - wanted)}. Training cannot go on from them: use an earlier checkpoint"
        )
    optimizer.state.clear()
    for key, value in tensors.items():
        entry, _, name = key.partition("/")
        parameter, counts = parameters[name], entry == "step"
        shape = () if counts else tuple(parameter.shape)
        if value.dtype != parameter.dtype or value.shape != shape:
            raise CheckpointError(
                f"{source} {key!r} must be {parameter.dtype} of shape {shape}, got {value.dtype} of shape "
                f"{tuple(value.shape)}"
            )
        if (counts and (value < 1 or value != value.round())) or (entry in _SQUARES and (value < 0).any()):
            valid = "a whole number of 1 or more" if counts else "0 or more, being averages of squares"
            raise CheckpointError(f"{source} {key!r} must be {valid}, got {value.min().item()}")
        # Adam's counters stay on the CPU, where its update reads them without waiting for the device.
        device = "cpu" if counts else parameter.device
        optimizer.state.setdefault(parameter, {})[entry] = value.detach().clone().to(device)


def check_parameters(module: torch.nn.Module, checkpoint: Checkpoint) -> None:
    """Refuse a checkpoint whose parameters are not those of `module` by name, type and shape.

    Raises:
        CheckpointError: Naming those that are missing or unknown, else the first that differs.
    """
    own, tensors = dict(module.named_parameters()), checkpoint.tensors["params"]
    missing, unknown = sorted(own.keys() - tensors.keys()), sorted(tensors.keys() - own.keys())
    if missing or unknown:
        raise CheckpointError(
            f"{checkpoint.source}: the parameters do not fit this network: missing {missing}, unknown {unknown}"
        )
    for name, parameter in own.items():
        stored = tensors[name]
        if (parameter.shape, parameter.dtype) != (stored.shape, stored.dtype):
            raise CheckpointError(
                f"{checkpoint.source}: parameter {name!r} has shape {tuple(stored.shape)} and is {stored.dtype} in the "
                f"checkpoint, but has shape {tuple(parameter.shape)} and is {parameter.dtype} in this network"
            )


def load_parameters(module: torch.nn.Module, checkpoint: Checkpoint) -> None:
    """Copy the parameters of `checkpoint` into those of `module`.

    Raises:
        CheckpointError: If they do not fit (see `check_parameters`), or one is NaN or infinite.
    """
    check_parameters(module, checkpoint)
    checkpoint.check_finite("params")
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.copy_(checkpoint.tensors["params"][name])
