"""Any environment as the SAME_STEP VecEnv with feedback that the algorithms act in.

`adapt` turns ids, Gymnasium environments and VectorEnvs into a VecEnv; `wrap` gives any VecEnv the feedback columns
and keeps them out of VecNormalize; `VecEnvRows` lets the loop of `plastic_rl.rollout` step it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from stable_baselines3.common.callbacks import BaseCallback, CallbackList, EvalCallback
from stable_baselines3.common.running_mean_std import RunningMeanStd
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper, VecNormalize, unwrap_vec_normalize
from stable_baselines3.common.vec_env.base_vec_env import VecEnvStepReturn

from plastic_rl.arrays import Array, BoolArray, FloatArray, IntArray, SingleArray
from plastic_rl.envs import Lifetime, make_vector
from plastic_rl.envs.actions import ActionCodec
from plastic_rl.envs.lifetime import flat_bounds, lifetime_space
from plastic_rl.envs.vector_env import number_of_this_step, stored_array
from plastic_rl.errors import CheckpointError, ConfigError, SpaceError, damage_is_refused
from plastic_rl.feedback import FeedbackLayout
from plastic_rl.rollout import StepOutcome


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
        return cls.from_document({"lifetime_steps": None, "steps_per_trial": None, **metadata_of(env)})

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> EnvironmentDescription:
        """Read what a checkpoint holds: the fields as plain data."""
        return cls(
            FeedbackLayout.from_dict(document["feedback"]), document["lifetime_steps"], document["steps_per_trial"]
        )


class StepArrays(NamedTuple):
    """What an adapter's last step brought beside observations and rewards, `(B,)` each: see `VecEnvOutcome`.

    Attributes:
        expected: The expected reward, where known.
    """

    ended: BoolArray
    truncated: BoolArray
    counted: BoolArray
    known: BoolArray
    expected: FloatArray


class VectorEnvAdapter(VecEnv):
    """A Gymnasium VectorEnv as a stable-baselines3 VecEnv.

    SAME_STEP and DISABLED autoreset become the VecEnv's own way (a finished row returns its next first observation,
    and the last one in `info["terminal_observation"]`). With NEXT_STEP a finished row needs one more step, which
    belongs to no lifetime: the row's end is reported with that step (so episode sums and starts stay right).

    Attributes:
        arrays: What the last step brought, as arrays; the dicts of `info` say the same row by row.
    """

    arrays: StepArrays

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
        counted = ~self._over
        self._lengths += counted
        ended = terminated | truncated
        known, expected = number_of_this_step(vector_info, "expected_reward", ended, self.num_envs)
        known &= counted
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        if np.count_nonzero(known):
            for info, told, value in zip(infos, known.tolist(), expected.tolist(), strict=True):
                if told:
                    info["expected_reward"] = value
        self.arrays = StepArrays(ended, ended & ~terminated, counted, known, expected)
        final: Any = vector_info.get("final_obs")
        dones, cut_off = ended, self.arrays.truncated
        if self.autoreset_mode is AutoresetMode.DISABLED:
            final = observations
        elif self.autoreset_mode is AutoresetMode.NEXT_STEP:
            dones, cut_off, final = self._over, self._over_truncated, self._final
            self._over, self._over_truncated, self._final = ended, self.arrays.truncated, observations
        for row in dones.nonzero()[0].tolist():
            infos[row]["terminal_observation"] = np.array(final[row])
            infos[row]["TimeLimit.truncated"] = bool(cut_off[row])
            infos[row]["episode"] = {"r": float(self._returns[row]), "l": int(self._lengths[row]), "t": 0.0}
            self._returns[row] = 0.0
            self._lengths[row] = 0
        if self.autoreset_mode is AutoresetMode.DISABLED and np.count_nonzero(ended):
            observations, _ = self.env.reset(options={"reset_mask": ended})
        return observations, rewards.astype(np.float32), dones.copy(), infos

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
            for name in ("returns", "lengths", "over", "over_truncated"):
                setattr(self, f"_{name}", stored_array(name, state[name], getattr(self, f"_{name}")))
            shown = np.zeros((self.num_envs, *(self.observation_space.shape or ())), dtype=np.float32)
            self._final = None if state["final"] is None else stored_array("final", state["final"], shown)
            if self._over.any() and self._final is None:
                raise CheckpointError("a lifetime is over, but its last observation is not stored")


class VecLifetime(VecEnvWrapper):
    """Adds `[previous action, previous reward, trial_start, t/T]` to the observations of any VecEnv.

    The vectorised twin of `plastic_rl.envs.Lifetime(env, trials=1)`: one episode is one lifetime of one trial. Put
    around VecNormalize it shows the agent normalised features and the reward as it was, so that the feedback is exempt
    from normalisation.

    Raises:
        SpaceError: If the observations cannot be flattened (Dict, Tuple, images) or the actions not encoded.
    """

    def __init__(self, venv: VecEnv) -> None:
        self._inner_space = venv.observation_space
        low, high = flat_bounds(venv.observation_space)
        self._codec = ActionCodec(venv.action_space)
        super().__init__(venv, observation_space=lifetime_space(low, high, self._codec))
        self.layout = FeedbackLayout.after(low.size, self._codec.size)
        self.metadata: dict[str, Any] = {"feedback": self.layout.to_dict()}
        self._horizon = _horizon(venv)
        self._buffer: SingleArray = np.zeros((venv.num_envs, self.layout.stop), dtype=np.float32)
        self._time: IntArray = np.zeros(venv.num_envs, dtype=np.int64)
        self._sent: Array = np.zeros(0)

    def reset(self) -> SingleArray:
        """Start all lifetimes anew."""
        self._show(self.venv.reset())
        self._start(np.ones(self.num_envs, dtype=bool))
        return self._bounded(self._buffer)

    def _show(self, observations: Any) -> None:
        for row in range(self.num_envs):
            flat = spaces.flatten(self._inner_space, observations[row])
            self._buffer[row, : self.layout.start] = np.asarray(flat, dtype=np.float32)

    def _start(self, rows: BoolArray) -> None:
        self._buffer[rows, self.layout.start :] = 0.0
        self._buffer[rows, self.layout.trial_start[0]] = 1.0
        self._time[rows] = 0

    def _bounded(self, observations: SingleArray) -> SingleArray:
        space = self.observation_space
        assert isinstance(space, spaces.Box)
        return np.clip(observations, space.low, space.high)

    def step_async(self, actions: Array) -> None:
        """Send the actions on."""
        self._sent = np.asarray(actions)
        self.venv.step_async(actions)

    def step_wait(self) -> VecEnvStepReturn:
        """Step, and put what was done and earned into the observation."""
        observations, rewards, dones, infos = self.venv.step_wait()
        assert isinstance(observations, np.ndarray)
        layout, buffer = self.layout, self._buffer
        self._show(observations)
        self._time += 1
        sent = self._codec.check(self._sent, self.num_envs)
        self._codec.encode(sent, buffer[:, layout.action[0] : layout.action[1]])
        earned = self.venv.get_original_reward() if isinstance(self.venv, VecNormalize) else rewards
        buffer[:, layout.reward[0]] = earned
        buffer[:, layout.trial_start[0]] = dones
        # As in `Lifetime`: without a time limit the share is that of trials over, none within the only one.
        buffer[:, layout.time[0]] = np.minimum(self._time / self._horizon, 1.0) if self._horizon else 0.0
        for row in np.flatnonzero(dones):
            if "terminal_observation" in infos[row]:
                final = buffer[row].copy()
                final[: layout.start] = spaces.flatten(self._inner_space, infos[row]["terminal_observation"])
                infos[row]["terminal_observation"] = self._bounded(final)
        self._start(dones.astype(bool))
        return self._bounded(buffer), rewards, dones, infos

    def get_state(self) -> dict[str, Any]:
        """The feedback shown last."""
        return {"buffer": self._buffer.copy(), "time": self._time.copy()}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Put back what `get_state` took.

        Raises:
            CheckpointError: If it is no such state.
        """
        with damage_is_refused("the stored feedback does not fit these environments"):
            self._buffer = stored_array("buffer", state["buffer"], self._buffer)
            self._time = stored_array("time", state["time"], self._time)


def _horizon(venv: VecEnv) -> int | None:
    """Time limit of the environments where their spec has one: the T of t/T, as in `Lifetime`."""
    try:
        spec = venv.get_attr("spec", indices=[0])[0]
    except AttributeError:
        return None
    return None if spec is None else spec.max_episode_steps


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


def layers(env: VecEnv) -> Iterator[VecEnv]:
    """Yield the wrappers, the outermost first, and then what they are around."""
    yield env
    while isinstance(env, VecEnvWrapper):
        env = env.venv
        yield env


def metadata_of(env: VecEnv) -> Mapping[str, Any]:
    """Metadata of a VecEnv: of the outermost wrapper that declares feedback, else of its first environment."""
    *wrappers, innermost = layers(env)
    for wrapper in wrappers:
        own: Mapping[str, Any] = vars(wrapper).get("metadata") or {}
        if "feedback" in own:
            return own
    return cast("Mapping[str, Any]", innermost.get_attr("metadata", indices=[0])[0] or {})


def wrap(env: VecEnv) -> VecEnv:
    """Give `env` the feedback columns if it lacks them, and keep these out of any VecNormalize around it."""
    if "feedback" not in metadata_of(env):
        return VecLifetime(env)
    exempt_feedback(env)
    return env


def exempt_feedback(env: VecEnv) -> None:
    """Keep the feedback columns of `env`, if it has any, out of every VecNormalize around it: not scaled, not clipped.

    Training does so with its own environment and with those of EvalCallback; do so with any other one that the agent is
    evaluated in.
    """
    metadata = metadata_of(env)
    if "feedback" not in metadata:
        return
    layout = FeedbackLayout.from_dict(metadata["feedback"])
    for layer in layers(env):
        if isinstance(layer, VecLifetime):
            return
        if isinstance(layer, VecNormalize) and layer.norm_obs:
            _exempt_in(layer, layout)


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
    wrappers: Sequence[Mapping[str, Any]] = (),
    task_start: int = 0,
) -> gym.Env[Any, Any] | VecEnv | None:
    """Turn an id or VectorEnv into a VecEnv, and give a scalar environment its feedback.

    The environment of an id meets the tasks of `train` from `task_start` on.

    Raises:
        UnknownNameError: If no environment has the id.
        SpaceError: If a VectorEnv carries no feedback (its rows cannot be wrapped one by one).
        ConfigError: If there are `wrappers`, and `env` is no id.
    """
    if isinstance(env, str):
        made = make_vector(
            env,
            n_envs,
            env_kwargs=dict(env_kwargs or {}),
            trials=trials,
            same_task_each_trial=same_task_each_trial,
            wrappers=wrappers,
            task_start=task_start,
        )
        return VectorEnvAdapter(made)
    if wrappers and env is not None:
        raise ConfigError(
            f"wrappers go around an environment that is made of an id, got {env}; give its id, or make it with "
            "plastic_rl.envs.make_vector(id, n, wrappers=...)"
        )
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
    """What a vector environment's infos say of one row."""
    told = {name: infos.get(f"_{name}") for name in infos if not name.startswith("_")}
    return {name: infos[name][row] for name, known in told.items() if known is None or known[row]}


# --- stepping --------------------------------------------------------------------------------------------------------


@dataclass(slots=True, kw_only=True)
class VecEnvOutcome(StepOutcome):
    """A `StepOutcome`, with what stable-baselines3's callbacks are shown of it.

    Attributes:
        infos: As `VecEnv.step` returns them, B of them.
        truncated: Where the lifetime ended and was cut off from outside, `(B,)`.
    """

    infos: list[dict[str, Any]]
    truncated: BoolArray


class VecEnvRows:
    """The rows of a VecEnv, for `plastic_rl.rollout.steps`; arrays are read where there are any, else the dicts.

    Args:
        env: As `wrap` returned it.
        observation: What it showed last, `(B, I)`.
        starts: Where a lifetime starts with that, `(B,)`.
    """

    def __init__(self, env: VecEnv, observation: Array, starts: BoolArray) -> None:
        self.env, self._present = env, (observation, starts)
        *_, innermost = layers(env)
        self._adapter = innermost if isinstance(innermost, VectorEnvAdapter) else None
        self._normalised = unwrap_vec_normalize(env)

    def present(self) -> tuple[Array, BoolArray]:
        """See `Rows`."""
        return self._present

    def step(self, actions: Array) -> VecEnvOutcome:
        """See `Rows`."""
        observations, rewards, dones, infos = self.env.step(actions)
        arrays = _arrays_of(dones, infos) if self._adapter is None else self._adapter.arrays
        earned = rewards if self._normalised is None else self._normalised.get_original_reward()
        assert isinstance(observations, np.ndarray)
        return VecEnvOutcome(
            observation=observations,
            starts=dones,
            reward=rewards,
            expected=_expected(arrays, earned),
            known=arrays.known,
            ended=arrays.ended,
            counted=arrays.counted,
            trial_end=arrays.ended,
            infos=infos,
            truncated=arrays.truncated,
        )


def _expected(arrays: StepArrays, earned: Array) -> FloatArray:
    """The expected reward where it is known, else what was `earned (B,)`."""
    expected: FloatArray = earned.astype(np.float64)
    if np.count_nonzero(arrays.known):
        np.copyto(expected, arrays.expected, where=arrays.known)
    return expected


def _arrays_of(dones: BoolArray, infos: list[dict[str, Any]]) -> StepArrays:
    truncated = np.array([bool(info.get("TimeLimit.truncated", False)) for info in infos]) & dones
    known = np.array(["expected_reward" in info for info in infos])
    expected = np.array([info.get("expected_reward", 0.0) for info in infos], dtype=np.float64)
    return StepArrays(dones, truncated, np.ones_like(dones), known, expected)


# --- state -----------------------------------------------------------------------------------------------------------


def vec_env_state(env: VecEnv) -> dict[str, Any] | None:
    """State of the environments and of every stateful wrapper, or None where they cannot give it."""
    wrappers, innermost = _stateful(env)
    # Scalar environments in stable-baselines3's own VecEnvs sit in wrappers (TimeLimit, Monitor) that cannot be asked
    # for their part; half of a state would not give the bytes of an undisturbed run.
    if innermost is None:
        return None
    return {"wrappers": [wrapper.get_state() for wrapper in wrappers], "vector": innermost.get_state()}


def _stateful(env: VecEnv) -> tuple[list[Any], Any | None]:
    """The wrappers that keep state, and the environments where they do."""
    *wrappers, innermost = layers(env)
    keeping: list[Any] = [wrapper for wrapper in wrappers if hasattr(type(wrapper), "get_state")]
    return keeping, innermost if hasattr(type(innermost), "get_state") else None


def load_vec_env_state(env: VecEnv, state: dict[str, Any]) -> bool:
    """Put back what `vec_env_state` took; false where the environments can only go on with their next lifetimes.

    Raises:
        CheckpointError: If the state is of another stack of wrappers, or of other environments.
    """
    with damage_is_refused("the stored environments do not fit these"):
        stored, vector = list(state["wrappers"]), state["vector"]
        stateful, innermost = _stateful(env)
        if innermost is None:
            return False
        if len(stored) != len(stateful):
            names = ", ".join(type(wrapper).__name__ for wrapper in stateful) or "none"
            raise CheckpointError(
                f"the checkpoint holds the state of {len(stored)} wrappers around the environments, and these have "
                f"{len(stateful)} that keep state ({names}). Put the same wrappers around them"
            )
        for wrapper, own in zip(stateful, stored, strict=True):
            wrapper.set_state(own)
        innermost.set_state(vector)
        return not (isinstance(innermost, VectorEnvAdapter) and vector["vector_env"].get("restarts") is True)


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
