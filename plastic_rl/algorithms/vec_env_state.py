"""Storing where the environments of a VecEnv stand in their lifetimes, through any stack of wrappers."""

from __future__ import annotations

from typing import Any, cast

from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper

from plastic_rl.errors import CheckpointError, damage_is_refused


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
    """Put back what `vec_env_state` took; false where the environments can only go on with their next lifetimes.

    Raises:
        CheckpointError: If the state is of another stack of wrappers, or of other environments.
    """
    with damage_is_refused("the stored environments do not fit these"):
        stored, vector = list(state["wrappers"]), state["vector"]
        stateful: list[Any] = []
        layer: Any = env
        while isinstance(layer, VecEnvWrapper):
            if hasattr(type(layer), "set_state"):
                stateful.append(layer)
            layer = layer.venv
        if not hasattr(type(layer), "set_state"):
            return False
        if len(stored) != len(stateful):
            names = ", ".join(type(wrapper).__name__ for wrapper in stateful) or "none"
            raise CheckpointError(
                f"the checkpoint holds the state of {len(stored)} wrappers around the environments, and these have "
                f"{len(stateful)} that keep state ({names}). Put the same wrappers around them"
            )
        for wrapper, own in zip(stateful, stored, strict=True):
            wrapper.set_state(own)
        layer.set_state(vector)
        return not _restarts(vector)


def _restarts(state: Any) -> bool:
    """Whether some environment said that it can only restart (`{"restarts": True}`, as foreign ones do)."""
    return isinstance(state, dict) and (
        state.get("restarts") is True or any(_restarts(value) for value in state.values())
    )
