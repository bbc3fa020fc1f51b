"""Bernoulli bandits with k arms."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Unpack

import numpy as np
import numpy.typing as npt
from gymnasium import spaces

from plastic_rl.envs import drawing
from plastic_rl.envs.row_vector_env import Array, FloatArray, IntArray, RowOptions
from plastic_rl.envs.task_env import TaskEnv
from plastic_rl.envs.task_vector_env import Outcome, TaskVectorEnv
from plastic_rl.tasks.base import Task
from plastic_rl.tasks.bernoulli_bandit import BernoulliBanditTasks


class BernoulliBanditVectorEnv(TaskVectorEnv):
    """Which of k arms pays best? Each pays 1 with a hidden probability of its own, else 0.

    **What must be learned.** To explore the arms and settle on a good one within one lifetime: the probabilities are
    drawn anew for each lifetime, and nothing but the rewards received tells them.

    **Observation** (Box, k + 3 columns): previous action one-hot (k), previous reward, trial_start (always 1), t/T.

    **Actions** (Discrete k): pull arm 0 to k - 1.

    **Reward**: 1 with the probability of the arm pulled, else 0; `info["expected_reward"]` is that probability.

    **Trial**: one pull. **End**: terminated after `steps` pulls.

    **Tasks**: `probabilities`, uniform on [0, 1] each; on the split `shift` Beta(2, 2).

    **Limits**, total over (n, k) = (100, 5): random 49.9, Thompson 74.7, index policy 78.65 (limit; exact Bayes for two
    arms and up to 100 pulls), oracle 83.33.

    **Source**: Duan et al. 2016, "RL2: Fast reinforcement learning via slow reinforcement learning".

    Args:
        num_envs: Number of rows, `B`.
        arms: Number of arms, k.
        steps: Pulls in a lifetime, n.
        options: See `RowOptions`.
    """

    state_arrays: ClassVar[tuple[str, ...]] = ("_probabilities", "_uniforms", "_pulls", "_last")

    def __init__(self, num_envs: int = 1, *, arms: int = 5, steps: int = 100, **options: Unpack[RowOptions]) -> None:
        super().__init__(
            num_envs,
            distribution=BernoulliBanditTasks(arms=arms, steps=steps),
            action_space=spaces.Discrete(arms),
            steps=steps,
            steps_per_trial=1,
            options=options,
        )
        self.arms = arms
        self._probabilities: FloatArray = np.zeros((num_envs, arms))
        self._uniforms: FloatArray = np.zeros((num_envs, steps))
        self._pulls: IntArray = np.zeros((num_envs, arms), dtype=np.int64)
        self._last: IntArray = np.zeros(num_envs, dtype=np.int64)

    def begin_rows(self, rows: IntArray, tasks: Sequence[Task], generators: Sequence[np.random.Generator]) -> None:
        """See `TaskVectorEnv`; one uniform number for each pull decides whether it pays, whatever the arm."""
        for row, task, generator in zip(rows.tolist(), tasks, generators, strict=True):
            self._probabilities[row] = task.params["probabilities"]
            generator.random(out=self._uniforms[row])
        self._pulls[rows] = 0
        self._last[rows] = -1

    def transition(self, actions: Array) -> Outcome:
        """See `TaskVectorEnv`."""
        probability = self._probabilities[self._all_rows, actions]
        reward = (self._uniforms[self._all_rows, self.time] < probability).astype(np.float64)
        self._pulls[self._all_rows, actions] += 1
        self._last[:] = actions
        return Outcome(reward, np.ones(self.num_envs, dtype=np.bool_), probability)

    def text(self, row: int) -> str:
        """See `TaskVectorEnv`: hidden probability, pulls and a mark at the arm pulled last."""
        lines = [drawing.headline(self.time[row], self.steps, self.returns[row])]
        for arm, probability in enumerate(self._probabilities[row]):
            mark = ">" if arm == self._last[row] else " "
            pulls = self._pulls[row, arm]
            lines.append(f"{mark} arm {arm:<3d} p {probability:.2f} {drawing.text_bar(probability)} {pulls} pulls")
        return "\n".join(lines)

    def frame(self, row: int) -> npt.NDArray[np.uint8]:
        """See `TaskVectorEnv`: a bar for each arm's hidden probability, pulls below, the last one in colour."""
        return drawing.bars(
            self._probabilities[row],
            labels=[str(pulls) for pulls in self._pulls[row]],
            chosen=int(self._last[row]),
            paid=bool(self._reward_column[row] > 0),
            head=f"{self.time[row]}/{self.steps} R {self.returns[row]:.0f}",
        )


class BernoulliBanditEnv(TaskEnv):
    """One row of `BernoulliBanditVectorEnv`, which documents it."""

    vector_class = BernoulliBanditVectorEnv
