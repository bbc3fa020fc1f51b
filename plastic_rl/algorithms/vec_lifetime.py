"""`VecLifetime`: the feedback columns for a stable-baselines3 VecEnv whose environments do not emit them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from gymnasium import spaces
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper, VecNormalize
from stable_baselines3.common.vec_env.base_vec_env import VecEnvStepReturn

from plastic_rl.envs.actions import ActionCodec
from plastic_rl.envs.lifetime import flat_bounds, lifetime_space
from plastic_rl.envs.vector_env import stored_array
from plastic_rl.errors import damage_is_refused
from plastic_rl.feedback import FeedbackLayout


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
        self.metadata: dict[str, Any] = {
            "feedback": self.layout.to_dict(),
            "lifetime_steps": None,
            "steps_per_trial": None,
        }
        self._horizon = _horizon(venv)
        self._buffer: npt.NDArray[np.float32] = np.zeros((venv.num_envs, self.layout.stop), dtype=np.float32)
        self._time: npt.NDArray[np.int64] = np.zeros(venv.num_envs, dtype=np.int64)
        self._sent: npt.NDArray[Any] = np.zeros(0)

    def reset(self) -> npt.NDArray[np.float32]:
        """Start all lifetimes anew."""
        self._show(self.venv.reset())
        self._start(np.ones(self.num_envs, dtype=bool))
        return self._bounded(self._buffer)

    def _show(self, observations: Any) -> None:
        for row in range(self.num_envs):
            flat = spaces.flatten(self._inner_space, observations[row])
            self._buffer[row, : self.layout.start] = np.asarray(flat, dtype=np.float32)

    def _start(self, rows: npt.NDArray[np.bool_]) -> None:
        self._buffer[rows, self.layout.start :] = 0.0
        self._buffer[rows, self.layout.trial_start[0]] = 1.0
        self._time[rows] = 0

    def _bounded(self, observations: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        space = self.observation_space
        assert isinstance(space, spaces.Box)
        return np.clip(observations, space.low, space.high)

    def step_async(self, actions: npt.NDArray[Any]) -> None:
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
