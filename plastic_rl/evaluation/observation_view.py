"""Observations of an evaluation as the agent saw them in training: normalised, or without the feedback columns."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt

from plastic_rl.errors import SpaceError
from plastic_rl.feedback import FeedbackLayout

View = Callable[[npt.NDArray[Any]], npt.NDArray[Any]]
"""Turns observations `(B, I)` of the environment into those that the agent takes."""


def view_of(agent: object, env_id: str, env: gymnasium.vector.VectorEnv[Any, Any, Any]) -> View:
    """Say how the agent sees the environment, after comparing the spaces it declares, if it does.

    An agent trained behind stable-baselines3's VecNormalize sees observations normalised by its training statistics,
    which stay as they are; feedback is exempt as it was in training. An agent whose observation space is that of the
    plain environment (a stock stable-baselines3 model) sees the features without the feedback columns.

    Args:
        agent: With or without `observation_space`, `action_space` and `get_vec_normalize_env`.
        env_id: For the message.
        env: From `plastic_rl.envs.make_vector`.

    Raises:
        SpaceError: If the observation's shape or the action space differs.
    """
    layout = FeedbackLayout.from_dict(env.metadata["feedback"])
    plain = _check_spaces(agent, env_id, env, layout)
    features = slice(0, layout.start)
    lookup = getattr(agent, "get_vec_normalize_env", None)
    normalised: Any = None if lookup is None else lookup()
    if normalised is None or not normalised.norm_obs:
        return (lambda observation: observation[:, features]) if plain else (lambda observation: observation)
    if plain:
        return lambda observation: np.asarray(normalised.normalize_obs(observation[:, features]))
    if normalised.observation_space.shape == (layout.stop,):
        return lambda observation: np.asarray(normalised.normalize_obs(observation))
    bounds: Any = getattr(agent, "observation_space", env.single_observation_space)

    def see(observation: npt.NDArray[Any]) -> npt.NDArray[Any]:
        # The feedback was put around VecNormalize, and what came out kept within the declared space.
        shown = observation.copy()
        shown[:, features] = normalised.normalize_obs(observation[:, features])
        kept: npt.NDArray[Any] = np.clip(shown, bounds.low, bounds.high)
        return kept

    return see


def _check_spaces(
    agent: object, env_id: str, env: gymnasium.vector.VectorEnv[Any, Any, Any], layout: FeedbackLayout
) -> bool:
    """Whether the agent takes the features alone, without the feedback."""
    plain = False
    for name, wanted in (("observation", env.single_observation_space), ("action", env.single_action_space)):
        declared = getattr(agent, f"{name}_space", None)
        if declared is None:
            continue
        if name == "observation":
            plain = declared.shape == (layout.start,)
            same = plain or declared.shape == wanted.shape
        else:
            same = _same_actions(declared, wanted)
        if not same:
            raise SpaceError(
                f"the agent's {name} space ({_short(declared)}) does not fit {env_id}, which has {_short(wanted)}. "
                "Evaluate it on an environment of the kind (and arguments) that it was trained on; rules that do not "
                "depend on sizes can be carried over: plastic-rl evaluate ... --carry-over."
            )
    return plain


def _short(space: gymnasium.Space[Any]) -> str:
    if isinstance(space, gymnasium.spaces.Box) and len(space.shape) == 1:
        return f"{space.shape[0]} columns"
    return str(space)


def _same_actions(declared: gymnasium.Space[Any], wanted: gymnasium.Space[Any]) -> bool:
    if isinstance(declared, gymnasium.spaces.Box) and isinstance(wanted, gymnasium.spaces.Box):
        return declared.shape == wanted.shape
    return declared == wanted
