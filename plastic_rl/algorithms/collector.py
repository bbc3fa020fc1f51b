"""Acting: fills a `Rollout` from a vectorised environment, carrying the plastic state from one rollout to the next."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt
import torch
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor

from plastic_rl.algorithms.rollout import Rollout
from plastic_rl.errors import ConfigError

if TYPE_CHECKING:
    from plastic_rl.algorithms.gradient import GradientAlgorithm


class Collector:
    """The acting half of an on-policy iteration.

    Attributes:
        state_before: Plastic state at the start of the last rollout: where `unroll` begins.
        last_values: `(B,)` value of the observation behind the last step, zero where the lifetime ended.
        lifetime_scores: `(B,)` expected reward (else reward) so far in each row's lifetime.
    """

    def __init__(self, algorithm: GradientAlgorithm) -> None:
        self.algorithm = algorithm
        self.state_before: dict[str, Tensor] = {}
        self.last_values = torch.zeros(0)
        self.reset()

    def reset(self) -> None:
        """Forget the lifetimes under way."""
        rows = self.algorithm.n_envs
        self.lifetime_scores: npt.NDArray[np.float64] = np.zeros(rows)
        # Rows whose lifetime ended with the last step, but whose environment resets only with the next
        # (NEXT_STEP autoreset): that step is no step of any lifetime.
        self.awaiting_reset: npt.NDArray[np.bool_] = np.zeros(rows, dtype=bool)

    def collect(self, env: VecEnv, callback: BaseCallback, rollout: Rollout) -> bool:
        """Act for `rollout.n_steps` steps; false if the callback asked to stop.

        At every call of the callback the algorithm's counters, observation and plastic state belong to the step just
        taken, so that a callback may save at any time.
        """
        algorithm = self.algorithm
        policy, device = algorithm.policy, algorithm.device
        policy.set_training_mode(False)
        rollout.clear()
        callback.on_rollout_start()
        params = policy.parameters_by_name()
        rollout.recording = policy.network.recording(rollout.n_steps)
        self.state_before = algorithm._plastic_state
        with torch.no_grad():
            noise = policy.distribution.draw_noise((rollout.n_steps, rollout.n_envs), algorithm._sampling).to(device)
            for step in range(rollout.n_steps):
                rollout.observations[step] = _tensor(algorithm._last_obs, device)
                rollout.episode_starts[step] = _tensor(algorithm._last_episode_starts, device)
                actions, state = policy.act(
                    params,
                    rollout.observations[step],
                    algorithm._plastic_state,
                    rollout.episode_starts[step],
                    noise[step],
                )
                rollout.store_action(step, actions)
                if rollout.recording is not None:
                    rollout.recording.append(state)
                chosen = policy.distribution.to_environment(actions).cpu().numpy()
                observations, rewards, dones, infos = env.step(chosen)
                expected = self._expected(rewards, infos)
                if algorithm.expected_rewards:
                    self._check_known(infos)
                earned = expected.astype(np.float32) if algorithm.expected_rewards else rewards
                rollout.rewards[step] = _tensor(earned, device)
                algorithm._plastic_state = state
                ended, truncated = self._ends(dones, infos, rollout, step)
                self._score(expected, dones)
                if truncated:
                    self._bootstrap(params, state, observations, infos, truncated, rollout, step)
                rollout.ended[step] = _tensor(ended, device)
                algorithm._last_obs = cast("Any", observations)
                algorithm._last_episode_starts = dones
                algorithm.num_timesteps += env.num_envs
                callback.update_locals(locals())
                if not callback.on_step():
                    return False
                algorithm._update_info_buffer(infos, dones)
            starts = _tensor(algorithm._last_episode_starts, device)
            last = _tensor(algorithm._last_obs, device).float()
            self.last_values = policy.value(params, last, algorithm._plastic_state, starts)
        callback.update_locals(locals())
        callback.on_rollout_end()
        return True

    def _ends(
        self, dones: npt.NDArray[np.bool_], infos: list[dict[str, Any]], rollout: Rollout, step: int
    ) -> tuple[npt.NDArray[np.bool_], list[int]]:
        """Which lifetimes ended with this step, and the rows among them that were cut off from outside."""
        if self.awaiting_reset.any():
            rollout.counted[step] = torch.from_numpy(~self.awaiting_reset).to(rollout.counted)
        ended = dones.copy()
        truncated = []
        awaiting = np.zeros_like(self.awaiting_reset)
        for row, info in enumerate(infos):
            over = info.get("lifetime_over")
            if over is not None:
                ended[row] = awaiting[row] = True
            if over == "truncated" or (
                dones[row] and not self.awaiting_reset[row] and info.get("TimeLimit.truncated", False)
            ):
                truncated.append(row)
        self.awaiting_reset = awaiting
        return ended, truncated

    def _bootstrap(
        self,
        params: dict[str, Tensor],
        state: dict[str, Tensor],
        observations: Any,
        infos: list[dict[str, Any]],
        truncated: list[int],
        rollout: Rollout,
        step: int,
    ) -> None:
        """Value of the observation behind each truncation, seen with the plastic state of that very lifetime."""
        behind = np.array(observations, dtype=np.float32)
        for row in truncated:
            if "terminal_observation" in infos[row]:
                behind[row] = infos[row]["terminal_observation"]
        device = rollout.rewards.device
        going_on = torch.zeros(rollout.n_envs, dtype=torch.bool, device=device)
        values = self.algorithm.policy.value(params, _tensor(behind, device), state, going_on)
        rollout.bootstrap[step, truncated] = values[truncated]

    def _expected(self, rewards: npt.NDArray[np.float32], infos: list[dict[str, Any]]) -> npt.NDArray[np.float64]:
        """Expected rewards `(B,)` of this step where the environment reports them, else those that were drawn."""
        normalised = self.algorithm.get_vec_normalize_env()
        if normalised is not None:
            rewards = normalised.get_original_reward()
        known = [info.get("expected_reward", reward) for info, reward in zip(infos, rewards, strict=True)]
        return np.array(known, np.float64)

    def _check_known(self, infos: list[dict[str, Any]]) -> None:
        """Refuse to learn from expected rewards that are not reported; dummy steps have none."""
        reported = ["expected_reward" in info for info in infos]
        if not np.all(reported | self.awaiting_reset):
            raise ConfigError(
                "expected_rewards needs an environment that reports them, as expected_reward in the info of each step "
                "(bandits and classification do); this one does not. Set expected_rewards to false"
            )

    def _score(self, expected: npt.NDArray[np.float64], dones: npt.NDArray[np.bool_]) -> None:
        self.lifetime_scores += expected
        for row in np.flatnonzero(dones):
            self.algorithm.score_buffer.append(float(self.lifetime_scores[row]))
            self.lifetime_scores[row] = 0.0


def _tensor(array: Any, device: torch.device) -> Tensor:
    return torch.from_numpy(np.asarray(array)).to(device)
