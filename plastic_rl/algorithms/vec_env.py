"""Any environment as the SAME_STEP VecEnv with feedback that the algorithms act in.

`adapt` turns ids, Gymnasium environments and VectorEnvs into a VecEnv; `wrap` gives any VecEnv the feedback columns
and keeps them out of VecNormalize.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, cast

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium.vector import AutoresetMode, VectorEnv
from stable_baselines3.common.callbacks import BaseCallback, CallbackList, EvalCallback
from stable_baselines3.common.running_mean_std import RunningMeanStd
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper, VecNormalize
from stable_baselines3.common.vec_env.base_vec_env import VecEnvStepReturn

from plastic_rl.algorithms.vec_lifetime import VecLifetime
from plastic_rl.envs import Lifetime, make_vector
from plastic_rl.envs.vector_env import number_of_this_step, stored_array
from plastic_rl.errors import CheckpointError, SpaceError, damage_is_refused
from plastic_rl.feedback import FeedbackLayout


@dataclass(frozen=True)
class EnvironmentDescription:
    """What a policy must know of its environment besides the spaces.

    Attributes:
        feedback: Where the feedback stands in the observation.
        lifetime_steps: Length of a lifetime where it is fixed, else None.
        steps_per_trial: Length of a trial where it is fixed, else None.
    """

    feedback: FeedbackLayout
    lifetime_steps: int | None
    steps_per_trial: int | None

    @classmethod
    def of(cls, env: VecEnv) -> EnvironmentDescription:
        """Read the description of a VecEnv that `wrap` returned."""
        metadata = metadata_of(env)
        return cls(
            FeedbackLayout.from_dict(metadata["feedback"]),
            metadata.get("lifetime_steps"),
            metadata.get("steps_per_trial"),
        )

    def to_document(self) -> dict[str, Any]:
        """Plain mapping for a checkpoint."""
        return asdict(self)

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> EnvironmentDescription:
        """Read what `to_document` wrote."""
        return cls(
            FeedbackLayout.from_dict(document["feedback"]), document["lifetime_steps"], document["steps_per_trial"]
        )


class VectorEnvAdapter(VecEnv):
    """A Gymnasium VectorEnv as a stable-baselines3 VecEnv.

    SAME_STEP and DISABLED autoreset become the VecEnv's own way (a finished row returns its next first observation,
    and the last one in `info["terminal_observation"]`). With NEXT_STEP a finished row needs one more step, which
    belongs to no lifetime: the row's end is reported with that step (so episode sums and starts stay right), and
    `info["lifetime_over"]` tells at the true end whether it was `"terminated"` or `"truncated"`.
    """

    def __init__(self, env: VectorEnv[Any, Any, Any]) -> None:
        self.env = env
        self.autoreset_mode = AutoresetMode(env.metadata.get("autoreset_mode", AutoresetMode.NEXT_STEP))
        self.render_mode = env.render_mode
        self._actions: npt.NDArray[Any] | None = None
        self._returns = np.zeros(env.num_envs)
        self._lengths = np.zeros(env.num_envs, dtype=np.int64)
        self._over = np.zeros(env.num_envs, dtype=bool)
        self._over_truncated = np.zeros(env.num_envs, dtype=bool)
        self._final: npt.NDArray[Any] | None = None
        # After `set_state` of environments that can only start their next lifetimes, these have begun already: a
        # reset would skip them.
        self._begun = False
        super().__init__(env.num_envs, env.single_observation_space, env.single_action_space)
        # The base class sets metadata of its own.
        self.metadata = dict(env.metadata)

    def reset(self) -> npt.NDArray[Any]:
        """Start all rows anew; a seed given to `seed` is used once."""
        seeds = self._seeds[0] if self._seeds and self._seeds[0] is not None else None
        if self._begun and seeds is None:
            observations = cast("Any", self.env).observe()
            self.reset_infos = [{} for _ in range(self.num_envs)]
        else:
            observations, infos = self.env.reset(seed=seeds)
            self.reset_infos = [_row(infos, row) for row in range(self.num_envs)]
        self._begun = False
        self._reset_seeds()
        self._reset_options()
        self._returns[:] = 0.0
        self._lengths[:] = 0
        self._over[:] = False
        return cast("npt.NDArray[Any]", observations)

    def step_async(self, actions: npt.NDArray[Any]) -> None:
        """Keep the actions for `step_wait`."""
        self._actions = actions
        self._begun = False

    def step_wait(self) -> VecEnvStepReturn:
        """Step all rows."""
        observations, rewards, terminated, truncated, vector_info = self.env.step(self._actions)
        self._returns += rewards
        self._lengths += ~self._over
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        ended = terminated | truncated
        known, expected = number_of_this_step(vector_info, "expected_reward", ended, self.num_envs)
        for row in np.flatnonzero(known):
            infos[row]["expected_reward"] = float(expected[row])
        if self.autoreset_mode is AutoresetMode.NEXT_STEP:
            dones = self._next_step(observations, terminated, ended, infos)
        else:
            dones = ended
            if ended.any():
                observations = self._same_step(observations, terminated, ended, infos, vector_info)
        for row in np.flatnonzero(dones):
            infos[row]["episode"] = {"r": float(self._returns[row]), "l": int(self._lengths[row]), "t": 0.0}
            self._returns[row] = 0.0
            self._lengths[row] = 0
        return observations, rewards.astype(np.float32), dones.copy(), infos

    def _same_step(
        self,
        observations: npt.NDArray[Any],
        terminated: npt.NDArray[np.bool_],
        ended: npt.NDArray[np.bool_],
        infos: list[dict[str, Any]],
        vector_info: dict[str, Any],
    ) -> npt.NDArray[Any]:
        final = observations if self.autoreset_mode is AutoresetMode.DISABLED else vector_info["final_obs"]
        for row in np.flatnonzero(ended):
            infos[row]["terminal_observation"] = np.array(final[row])
            infos[row]["TimeLimit.truncated"] = bool(not terminated[row])
        if self.autoreset_mode is AutoresetMode.DISABLED:
            observations, _ = self.env.reset(options={"reset_mask": ended})
        return observations

    def _next_step(
        self,
        observations: npt.NDArray[Any],
        terminated: npt.NDArray[np.bool_],
        ended: npt.NDArray[np.bool_],
        infos: list[dict[str, Any]],
    ) -> npt.NDArray[np.bool_]:
        dones = self._over.copy()
        for row in np.flatnonzero(dones):
            infos[row].pop("expected_reward", None)
            assert self._final is not None
            infos[row]["terminal_observation"] = np.array(self._final[row])
            infos[row]["TimeLimit.truncated"] = bool(self._over_truncated[row])
        for row in np.flatnonzero(ended):
            infos[row]["lifetime_over"] = "terminated" if terminated[row] else "truncated"
        self._over = ended
        self._over_truncated = ended & ~terminated
        self._final = observations
        return dones

    def close(self) -> None:
        """Close the VectorEnv."""
        self.env.close()

    def render(self, mode: str | None = None) -> Any:
        """Return the first row's frame, as the VectorEnv renders it."""
        frames = self.env.render()
        return frames[0] if isinstance(frames, tuple | list) else frames

    def get_images(self) -> Sequence[npt.NDArray[np.uint8] | None]:
        """Return one frame per row."""
        return cast("Sequence[npt.NDArray[np.uint8]]", self.env.render() or [None] * self.num_envs)

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """Return the adapter's (else the VectorEnv's) attribute, once per row asked for."""
        value = getattr(self, attr_name) if attr_name == "metadata" else getattr(self.env, attr_name)
        return [value for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """Set an attribute of the VectorEnv, for all rows at once."""
        setattr(self.env, attr_name, value)

    def env_method(self, method_name: str, *method_args: Any, indices: Any = None, **method_kwargs: Any) -> list[Any]:
        """Call a method of the VectorEnv (once, for all rows) and return its result once per row asked for."""
        result = getattr(self.env, method_name)(*method_args, **method_kwargs)
        return [result for _ in self._get_indices(indices)]

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        """Always false: the rows of a VectorEnv are not wrapped one by one."""
        return [False for _ in self._get_indices(indices)]

    def get_state(self) -> dict[str, Any]:
        """Everything needed to go on from here, as plain data and arrays."""
        return {
            "vector_env": cast("Any", self.env).get_state(),
            "returns": self._returns.copy(),
            "lengths": self._lengths.copy(),
            "over": self._over.copy(),
            "over_truncated": self._over_truncated.copy(),
            "final": None if self._final is None else np.array(self._final),
        }

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Go on from where `get_state` was called.

        Raises:
            CheckpointError: If it is no state of such environments.
        """
        with damage_is_refused("the stored state does not fit these environments"):
            cast("Any", self.env).set_state(state["vector_env"])
            self._begun = state["vector_env"].get("restarts") is True and hasattr(self.env, "observe")
            if not getattr(self.env, "tasks", True):
                raise CheckpointError("the stored environments were in no lifetime")
            self._returns = stored_array("returns", state["returns"], self._returns)
            self._lengths = stored_array("lengths", state["lengths"], self._lengths)
            self._over = stored_array("over", state["over"], self._over)
            self._over_truncated = stored_array("over_truncated", state["over_truncated"], self._over_truncated)
            shown = np.zeros((self.num_envs, *(self.observation_space.shape or ())), dtype=np.float32)
            self._final = None if state["final"] is None else stored_array("final", state["final"], shown)
            if self._over.any() and self._final is None:
                raise CheckpointError("a lifetime is over, but its last observation is not stored")


class FeedbackExemptMeanStd(RunningMeanStd):
    """Running statistics that leave the feedback columns at mean 0 and variance 1.

    stable-baselines3 copies a training environment's statistics to evaluation environments, so these exempt the
    feedback there too.
    """

    def __init__(self, statistics: RunningMeanStd, layout: FeedbackLayout) -> None:
        super().__init__(shape=statistics.mean.shape)
        self.mean, self.var, self.count = statistics.mean.copy(), statistics.var.copy(), statistics.count
        self.columns = slice(layout.start, layout.stop)
        self._exempt()

    def _exempt(self) -> None:
        self.mean[self.columns] = 0.0
        self.var[self.columns] = 1.0

    def update_from_moments(self, batch_mean: Any, batch_var: Any, batch_count: float) -> None:
        """Update as the base class does, then put the feedback columns back."""
        super().update_from_moments(batch_mean, batch_var, batch_count)
        self._exempt()


def metadata_of(env: VecEnv) -> Mapping[str, Any]:
    """Metadata of a VecEnv: of the outermost wrapper that declares feedback, else of its first environment."""
    layer: Any = env
    while isinstance(layer, VecEnvWrapper):
        if "feedback" in (vars(layer).get("metadata") or {}):
            return cast("Mapping[str, Any]", layer.metadata)
        layer = layer.venv
    return cast("Mapping[str, Any]", layer.get_attr("metadata", indices=[0])[0] or {})


def wrap(env: VecEnv) -> VecEnv:
    """Give `env` the feedback columns if it lacks them, and keep these out of any VecNormalize around it."""
    metadata = metadata_of(env)
    if "feedback" not in metadata:
        return VecLifetime(env)
    exempt_feedback(env)
    return env


def exempt_feedback(env: VecEnv) -> None:
    """Keep the feedback columns of `env`, if it has any, out of every VecNormalize around it: not scaled, not clipped.

    Training does so with its own environment and with those of EvalCallback; do so with any other one that the agent is
    evaluated in.
    """
    metadata = metadata_of(env)
    layer: Any = env
    while "feedback" in metadata and isinstance(layer, VecEnvWrapper) and not isinstance(layer, VecLifetime):
        if isinstance(layer, VecNormalize) and layer.norm_obs:
            _exempt_in(layer, FeedbackLayout.from_dict(metadata["feedback"]))
        layer = layer.venv


def _exempt_in(env: VecNormalize, layout: FeedbackLayout) -> None:
    statistics: Any = env.obs_rms
    if isinstance(statistics, RunningMeanStd):
        if not isinstance(statistics, FeedbackExemptMeanStd):
            env.obs_rms = cast("Any", FeedbackExemptMeanStd(statistics, layout))
        # One limit for each column: NumPy clips by arrays as it does by numbers.
        limits = np.broadcast_to(np.asarray(env.clip_obs, dtype=np.float64), statistics.mean.shape).copy()
        limits[layout.start : layout.stop] = np.inf
        env.clip_obs = cast("Any", limits)


def environments_of(callback: BaseCallback) -> Iterator[VecEnv]:
    """Yield the environments that the callbacks evaluate in, however they are nested."""
    if isinstance(callback, EvalCallback):
        yield callback.eval_env
    children = callback.callbacks if isinstance(callback, CallbackList) else [getattr(callback, "callback", None)]
    for child in children:
        if isinstance(child, BaseCallback):
            yield from environments_of(child)


def adapt(
    env: str | gym.Env[Any, Any] | VectorEnv[Any, Any, Any] | VecEnv | None,
    *,
    n_envs: int = 32,
    env_kwargs: Mapping[str, Any] | None = None,
    trials: int = 1,
    same_task_each_trial: bool | None = None,
    task_start: int = 0,
) -> gym.Env[Any, Any] | VecEnv | None:
    """Turn an id or VectorEnv into a VecEnv, and give a scalar environment its feedback.

    The environment of an id meets the tasks of `train` from `task_start` on.

    Raises:
        UnknownNameError: If no environment has the id.
        SpaceError: If a VectorEnv carries no feedback (its rows cannot be wrapped one by one).
    """
    if isinstance(env, str):
        made = make_vector(
            env,
            n_envs,
            env_kwargs=dict(env_kwargs or {}),
            trials=trials,
            same_task_each_trial=same_task_each_trial,
            task_start=task_start,
        )
        return VectorEnvAdapter(made)
    if isinstance(env, VectorEnv):
        if "feedback" not in (env.metadata or {}):
            raise SpaceError(
                f"{env} does not declare where its observations carry the previous action and reward; pass the "
                "environment's id, or plastic_rl.envs.make_vector(id, n), which adds them"
            )
        return VectorEnvAdapter(env)
    if isinstance(env, gym.Env) and "feedback" not in (env.metadata or {}):
        return cast("gym.Env[Any, Any]", Lifetime(env, trials, same_task_each_trial))
    return env


def _row(infos: Mapping[str, Any], row: int) -> dict[str, Any]:
    return {
        name: value[row]
        for name, value in infos.items()
        if not name.startswith("_") and infos.get(f"_{name}", np.ones(row + 1, bool))[row]
    }
