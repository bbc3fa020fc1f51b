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
from plastic_rl.envs.observations import ObservationCodec, feedback_space
from plastic_rl.feedback import FeedbackLayout


class VecLifetime(VecEnvWrapper):
    """Adds `[previous action, previous reward, trial_start, t/T]` to the observations of any VecEnv.

    One episode is one lifetime of one trial. Put around VecNormalize it shows the agent normalised features and the
    reward as it was: the feedback is exempt from normalisation.

    Raises:
        SpaceError: If the observations cannot be flattened (Dict, Tuple, images) or the actions not encoded.
    """

    def __init__(self, venv: VecEnv) -> None:
        self._observations = ObservationCodec(venv.observation_space)
        self._actions = ActionCodec(venv.action_space)
        self.layout = FeedbackLayout.after(self._observations.size, self._actions.size)
        super().__init__(venv, observation_space=feedback_space(self._observations, self._actions))
        self.metadata: dict[str, Any] = {
            "feedback": self.layout.to_dict(),
            "lifetime_steps": None,
            "steps_per_trial": None,
        }
        self._buffer: npt.NDArray[np.float32] = np.zeros((venv.num_envs, self.layout.stop), dtype=np.float32)
        self._sent: npt.NDArray[Any] = np.zeros(0)

    def reset(self) -> npt.NDArray[np.float32]:
        """Start all lifetimes anew."""
        self._observations.encode(self.venv.reset(), self._buffer[:, : self.layout.start])
        self._start(np.ones(self.num_envs, dtype=bool))
        return self._bounded(self._buffer)

    def _start(self, rows: npt.NDArray[np.bool_]) -> None:
        self._buffer[rows, self.layout.start :] = 0.0
        self._buffer[rows, self.layout.trial_start[0]] = 1.0

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
        layout, buffer = self.layout, self._buffer
        self._observations.encode(observations, buffer[:, : layout.start])
        earned = self.venv.get_original_reward() if isinstance(self.venv, VecNormalize) else rewards
        self._actions.encode(
            self._actions.check(self._sent, self.num_envs), buffer[:, layout.action[0] : layout.action[1]]
        )
        buffer[:, layout.reward[0]] = earned
        buffer[:, layout.trial_start[0]] = 0.0
        for row in np.flatnonzero(dones):
            if "terminal_observation" in infos[row]:
                final = buffer[row : row + 1].copy()
                terminal = np.asarray(infos[row]["terminal_observation"])[None]
                self._observations.encode(terminal, final[:, : layout.start])
                infos[row]["terminal_observation"] = self._bounded(final)[0]
        self._start(dones.astype(bool))
        return self._bounded(buffer), rewards, dones, infos

    def get_state(self) -> dict[str, Any]:
        """The feedback shown last."""
        return {"buffer": self._buffer.copy()}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Put back what `get_state` took."""
        self._buffer = np.array(state["buffer"], dtype=np.float32)
