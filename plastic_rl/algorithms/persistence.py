"""What a checkpoint of an algorithm holds, as plain tensors and documents; nothing here is pickled or executed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.vec_env import VecNormalize
from torch import Tensor

from plastic_rl.envs.vector_env import stored_array
from plastic_rl.errors import CheckpointError, SpaceError


def space_to_document(space: spaces.Space[Any]) -> dict[str, Any]:
    """Describe a Box, Discrete or MultiDiscrete space.

    >>> space_to_document(spaces.Discrete(3))
    {'kind': 'Discrete', 'n': 3}
    """
    if isinstance(space, spaces.Box):
        return {"kind": "Box", "low": space.low, "high": space.high, "dtype": np.dtype(space.dtype).name}
    if isinstance(space, spaces.Discrete):
        return {"kind": "Discrete", "n": int(space.n)}
    if isinstance(space, spaces.MultiDiscrete):
        return {"kind": "MultiDiscrete", "sizes": [int(size) for size in space.nvec]}
    raise SpaceError(f"cannot store the space {space}; valid are Box, Discrete and MultiDiscrete")


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
    raise CheckpointError(f"the checkpoint holds a space of unknown kind {kind!r}")


def optimizer_tensors(optimizer: torch.optim.Optimizer, names: Mapping[torch.nn.Parameter, str]) -> dict[str, Tensor]:
    """Flatten the optimizer's state to `"<entry>/<parameter name>"` -> tensor (Adam's `step` included)."""
    return {
        f"{entry}/{name}": torch.as_tensor(value).detach().clone()
        for parameter, name in names.items()
        for entry, value in optimizer.state.get(parameter, {}).items()
    }


def load_optimizer_tensors(
    optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor], parameters: Mapping[str, Tensor]
) -> None:
    """Put back what `optimizer_tensors` took, on the parameters' devices."""
    optimizer.state.clear()
    for key, value in tensors.items():
        entry, _, name = key.partition("/")
        if name not in parameters:
            raise CheckpointError(f"the optimizer state holds {name!r}, which the policy does not have")
        parameter = parameters[name]
        if value.dim() and value.shape != parameter.shape:
            raise CheckpointError(
                f"the optimizer state {key!r} has shape {tuple(value.shape)}, its parameter {tuple(parameter.shape)}"
            )
        # Adam's counters stay on the CPU, where its update reads them without waiting for the device.
        device = "cpu" if value.dim() == 0 else parameter.device
        optimizer.state.setdefault(parameter, {})[entry] = value.detach().clone().to(device)


def load_parameters(module: torch.nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Copy `tensors` into the module's parameters of the same names.

    Raises:
        CheckpointError: If a name is missing, unknown, or of another shape.
    """
    own = dict(module.named_parameters())
    missing, unknown = sorted(own.keys() - tensors.keys()), sorted(tensors.keys() - own.keys())
    if missing or unknown:
        raise CheckpointError(f"the parameters do not fit this network: missing {missing}, unknown {unknown}")
    for name, parameter in own.items():
        if parameter.shape != tensors[name].shape:
            raise CheckpointError(
                f"parameter {name!r} has shape {tuple(tensors[name].shape)} in the checkpoint and "
                f"{tuple(parameter.shape)} in this network"
            )
    with torch.no_grad():
        for name, parameter in own.items():
            parameter.copy_(tensors[name])


def _moments(statistics: Any) -> dict[str, Any]:
    return {
        "mean": np.asarray(statistics.mean),
        "var": np.asarray(statistics.var),
        "count": float(statistics.count),
    }


def _restore_moments(statistics: Any, document: Mapping[str, Any]) -> None:
    for name in ("mean", "var"):
        setattr(statistics, name, stored_array(name, document[name], np.asarray(getattr(statistics, name))))
    statistics.count = float(document["count"])


def vec_normalize_document(env: VecNormalize | None) -> dict[str, Any] | None:
    """Running statistics of VecNormalize, or None without it."""
    if env is None:
        return None
    return {
        "observations": _moments(env.obs_rms) if env.norm_obs else None,
        "returns": _moments(env.ret_rms),
        "discounted_returns": env.returns,
    }


def load_vec_normalize(env: VecNormalize, document: Mapping[str, Any]) -> None:
    """Put back what `vec_normalize_document` took."""
    if document["observations"] is not None and env.norm_obs:
        _restore_moments(env.obs_rms, document["observations"])
    _restore_moments(env.ret_rms, document["returns"])
    env.returns = stored_array("discounted_returns", document["discounted_returns"], env.returns)
