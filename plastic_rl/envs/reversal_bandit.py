"""The reversal bandit: two arms that change places."""

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
from plastic_rl.tasks.base import Task, number_of
from plastic_rl.tasks.reversal_bandit import ReversalBanditTasks, good_arms


class ReversalBanditVectorEnv(TaskVectorEnv):
    """Which of two arms is the good one now? They change places unannounced.

    **What must be learned.** To stay with an arm that pays, and to leave it when it has probably turned bad.

    **Observation** (Box, 5 columns): previous action one-hot (2), previous reward, trial_start (always 1), t/T.

    **Actions** (Discrete 2): pull arm 0 or 1.

    **Reward**: 1 with probability `p_good` from the good arm and `1 - p_good` from the other, else 0;
    `info["expected_reward"]` is that probability.

    **Trial**: one pull. **End**: terminated after `steps` pulls.

    **Tasks**: before every pull but the first the arms change places with probability `hazard`. The splits train,
    valid and test are one task (only the times of the switches differ); on the split `shift` the hazard is .05.
    Both arms are equally informative, and a single fixed leaky unit scores 73.9: this is a smoke test of learning
    within a lifetime, no evidence that plasticity is needed.

    **Limits** (.8, .02, 100 pulls): random 50, win-stay-lose-shift 67.1, Bayes (belief filter; the limit) 74.07,
    oracle 80. With `p_good` .9 Bayes is 85.10.

    **Source**: two-armed reversal learning, as in Wang et al. 2018, "Prefrontal cortex as a meta-reinforcement
    learning system".

    Args:
        num_envs: Number of rows, `B`.
        steps: Pulls in a lifetime.
        p_good: Probability that the good arm pays.
        hazard: Probability of a switch before each pull but the first.
        options: See `RowOptions`.
    """

    state_arrays: ClassVar[tuple[str, ...]] = ("_good", "_p_good", "_uniforms", "_last")

    def __init__(
        self,
        num_envs: int = 1,
        *,
        steps: int = 100,
        p_good: float = 0.8,
        hazard: float = 0.02,
        **options: Unpack[RowOptions],
    ) -> None:
        super().__init__(
            num_envs,
            distribution=ReversalBanditTasks(steps=steps, p_good=p_good, hazard=hazard),
            action_space=spaces.Discrete(2),
            steps=steps,
            steps_per_trial=1,
            options=options,
        )
        self._good: IntArray = np.zeros((num_envs, steps), dtype=np.int64)
        self._p_good: FloatArray = np.zeros(num_envs)
        self._uniforms: FloatArray = np.zeros((num_envs, steps))
        self._last: IntArray = np.zeros(num_envs, dtype=np.int64)

    def begin_rows(self, rows: IntArray, tasks: Sequence[Task], generators: Sequence[np.random.Generator]) -> None:
        """See `TaskVectorEnv`; the switches belong to the task, one uniform number for each pull is the noise."""
        for row, task, generator in zip(rows.tolist(), tasks, generators, strict=True):
            self._good[row] = good_arms(task, self.steps)
            self._p_good[row] = number_of(task, "p_good")
            generator.random(out=self._uniforms[row])
        self._last[rows] = -1

    def transition(self, actions: Array) -> Outcome:
        """See `TaskVectorEnv`."""
        good = self._good[self._all_rows, self.time] == actions
        probability = np.where(good, self._p_good, 1.0 - self._p_good)
        reward = (self._uniforms[self._all_rows, self.time] < probability).astype(np.float64)
        self._last[:] = actions
        return Outcome(reward, np.ones(self.num_envs, dtype=np.bool_), probability)

    def _present_probabilities(self, row: int) -> FloatArray:
        """What both arms of `row` pay now, `(2,)`; at the end, what they paid last."""
        probabilities = np.full(2, 1.0 - self._p_good[row])
        probabilities[self._good[row, min(self.time[row], self.steps - 1)]] = self._p_good[row]
        return probabilities

    def text(self, row: int) -> str:
        """See `TaskVectorEnv`: hidden probabilities now, a mark at the arm pulled last."""
        lines = [drawing.headline(self.time[row], self.steps, self.returns[row])]
        for arm, probability in enumerate(self._present_probabilities(row)):
            mark = ">" if arm == self._last[row] else " "
            lines.append(f"{mark} arm {arm} p {probability:.2f} {drawing.text_bar(probability)}")
        return "\n".join(lines)

    def frame(self, row: int) -> npt.NDArray[np.uint8]:
        """See `TaskVectorEnv`: a bar for what each arm pays now, the one pulled last in colour."""
        return drawing.bars(
            self._present_probabilities(row),
            labels=["0", "1"],
            chosen=int(self._last[row]),
            paid=bool(self._reward_column[row] > 0),
            head=f"{self.time[row]}/{self.steps} R {self.returns[row]:.0f}",
        )


class ReversalBanditEnv(TaskEnv):
    """One row of `ReversalBanditVectorEnv`, which documents it."""

    vector_class = ReversalBanditVectorEnv
