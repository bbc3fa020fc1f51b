"""Storing where the environments of a VecEnv stand in their lifetimes, through any stack of wrappers."""

from __future__ import annotations

from typing import Any, cast

from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper


def vec_env_state(env: VecEnv) -> dict[str, Any] | None:
    """State of the environments and of every stateful wrapper, or None where they cannot give it."""
    wrappers: list[Any] = []
    layer: Any = env
    while isinstance(layer, VecEnvWrapper):
        if hasattr(type(layer), "get_state"):
            wrappers.append(cast("Any", layer).get_state())
        layer = layer.venv
    if hasattr(type(layer), "get_state"):
        return {"wrappers": wrappers, "vector": layer.get_state()}
    # Scalar environments in stable-baselines3's own VecEnvs sit in wrappers (TimeLimit, Monitor) that cannot be asked
    # for their part; half of a state would not give the bytes of an undisturbed run.
    return None


def load_vec_env_state(env: VecEnv, state: dict[str, Any]) -> bool:
    """Put back what `vec_env_state` took; false where the environments can only go on with their next lifetimes."""
    wrappers = list(state["wrappers"])
    layer: Any = env
    while isinstance(layer, VecEnvWrapper):
        if hasattr(type(layer), "set_state"):
            cast("Any", layer).set_state(wrappers.pop(0))
        layer = layer.venv
    if not hasattr(type(layer), "set_state"):
        return False
    layer.set_state(state["vector"])
    return not _restarts(state["vector"])


def _restarts(state: Any) -> bool:
    """Whether some environment said that it can only restart (`{"restarts": True}`, as foreign ones do)."""
    return isinstance(state, dict) and (
        state.get("restarts") is True or any(_restarts(value) for value in state.values())
    )
