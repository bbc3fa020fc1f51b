"""The reversal bandit: two arms that change places."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from gymnasium import spaces
from typing_extensions import override

from plastic_rl.arrays import Array, BoolArray, FloatArray, IntArray
from plastic_rl.envs.task import STANDARD_SPLITS, Params, RandomAgent, ReferenceAgent, Task, TaskDistribution, number_of
from plastic_rl.envs.task_vector_env import ChoiceVectorEnv, Outcome, TaskEnv
from plastic_rl.errors import TaskError

SHIFT_HAZARD = 0.05


class ReversalBanditTasks(TaskDistribution):
    """All tasks of a split differ only in when the good arm switches, which follows from `Task.seed`.

    Args:
        steps: Pulls in a lifetime.
        p_good: Probability that the good arm pays, above 0.5 and at most 1; the other pays with `1 - p_good`.
        hazard: Probability of a switch before each pull but the first.
        entropy: Root of all seeds.
    """

    family = "ReversalBandit"
    splits = (*STANDARD_SPLITS, "shift")
    single_task = True
    limit_kind = "bayes"

    def __init__(self, steps: int = 100, p_good: float = 0.8, hazard: float = 0.02, entropy: int = 0) -> None:
        super().__init__(entropy)
        if steps < 1 or not 0.5 < p_good <= 1.0 or not 0.0 <= hazard <= 1.0:
            raise TaskError(
                "a reversal bandit has 1 or more steps, p_good above 0.5 up to 1 and a hazard from 0 to 1, "
                f"got steps={steps}, p_good={p_good}, hazard={hazard}"
            )
        self.steps = steps
        self.p_good = p_good
        self.hazard = hazard

    def hazard_of(self, split: str) -> float:
        """Probability of a switch on `split`."""
        return SHIFT_HAZARD if split == "shift" else self.hazard

    @override
    def sample_params(self, generator: np.random.Generator, split: str) -> Params:
        return {"p_good": self.p_good, "hazard": self.hazard_of(split)}

    @override
    def reference_agents(self, split: str) -> dict[str, ReferenceAgent]:
        return {
            "random": RandomAgent(spaces.Discrete(2)),
            "win_stay_lose_shift": WinStayLoseShiftAgent(),
            "bayes": BeliefFilterAgent(self.p_good, self.hazard_of(split)),
            "oracle": GoodArmAgent(self.steps),
        }


def good_arms(task: Task, steps: int) -> IntArray:
    """Which arm is the good one at each pull of a lifetime on `task`, `(steps,)`; it follows from `task.seed`."""
    generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence(task.seed)))
    switches = generator.random(steps) < number_of(task, "hazard")
    switches[0] = generator.random() < 0.5
    return np.cumsum(switches) % 2


class ReversalBanditVectorEnv(ChoiceVectorEnv[ReversalBanditTasks]):
    """Which of two arms is the good one now? They change places unannounced.

    # Task
    To stay with an arm that pays, and to leave it when it has probably turned bad.

    # Observation
    Box, 5 columns: previous action one-hot (2); previous reward; trial_start (always 1); t/T.

    # Actions
    Discrete 2:

    | action | meaning       |
    |--------|---------------|
    | 0, 1   | pull this arm |

    # Reward
    1 with probability `p_good` from the good arm and `1 - p_good` from the other, else 0; `info["expected_reward"]` is
    that probability.

    # End
    A trial is one pull. Terminated after `steps` pulls.

    # Tasks and splits
    Before every pull but the first the arms change places with probability `hazard`. The splits train, valid and test
    are one task (only the times of the switches differ); on the split `shift` the hazard is .05. Both arms are equally
    informative, and a single fixed leaky unit scores 73.9: this is a smoke test of learning within a lifetime, no
    evidence that plasticity is needed.

    # Limits
    With .8, .02 and 100 pulls: random 50, win-stay-lose-shift 67.1, Bayes (belief filter; the limit) 74.07, oracle 80.
    With `p_good` .9 Bayes is 85.10.

    # Source
    Two-armed reversal learning, as in Wang et al. 2018, "Prefrontal cortex as a meta-reinforcement learning system".
    """

    tasks_class = ReversalBanditTasks
    bar_text = "arm {action} p {share:.2f} {bar}"
    state_arrays: ClassVar[tuple[str, ...]] = ("_good", "_p_good", "_uniforms", "_last")

    def __init__(self, num_envs: int = 1, **arguments: Any) -> None:
        tasks, options = self.tasks_and_options(arguments)
        super().__init__(
            num_envs,
            distribution=tasks,
            action_space=spaces.Discrete(2),
            steps=tasks.steps,
            steps_per_trial=1,
            options=options,
        )
        self._good: IntArray = np.zeros((num_envs, tasks.steps), dtype=np.int64)
        self._p_good: FloatArray = np.zeros(num_envs)
        self._uniforms: FloatArray = np.zeros((num_envs, tasks.steps))
        self._last: IntArray = np.zeros(num_envs, dtype=np.int64)

    @override
    def begin_rows(self, rows: IntArray, tasks: Sequence[Task], generators: Sequence[np.random.Generator]) -> None:
        """The switches belong to the task, one uniform number for each pull is the noise."""
        for row, task, generator in zip(rows.tolist(), tasks, generators, strict=True):
            self._good[row] = good_arms(task, self.steps)
            self._p_good[row] = number_of(task, "p_good")
            generator.random(out=self._uniforms[row])
        self._last[rows] = -1

    @override
    def transition(self, actions: Array) -> Outcome:
        good = self._good[self._all_rows, self.time] == actions
        probability = np.where(good, self._p_good, 1.0 - self._p_good)
        reward = (self._uniforms[self._all_rows, self.time] < probability).astype(np.float64)
        self._last[:] = actions
        return Outcome(reward, np.ones(self.num_envs, dtype=np.bool_), probability)

    @override
    def bars(self, row: int) -> tuple[FloatArray, Sequence[int]]:
        """What both arms pay now; at the end, what they paid last."""
        probabilities = np.full(2, 1.0 - self._p_good[row])
        probabilities[self._good[row, min(self.time[row], self.steps - 1)]] = self._p_good[row]
        return probabilities, (0, 1)


class ReversalBanditEnv(TaskEnv):
    """One row of `ReversalBanditVectorEnv`, which documents it."""

    vector_class = ReversalBanditVectorEnv


class WinStayLoseShiftAgent(ReferenceAgent):
    """Repeats the last arm after a reward and takes the other after none; the first arm is random."""

    @override
    def choose(self, rows: Array, start: BoolArray, state: Any, deterministic: bool) -> tuple[Array, Any]:
        last = rows[:, 1] > 0.5
        action = np.where(rows[:, 2] > 0.5, last, ~last).astype(np.int64)
        first = np.zeros(len(rows), dtype=np.int64) if deterministic else self.coin(len(rows)).astype(np.int64)
        return np.where(start, first, action), True


class BeliefFilterAgent(ReferenceAgent):
    """Bayes-optimal: pulls the arm that is more probably the good one.

    Both arms are equally informative (one pays with p, the other with 1 - p), so that acting greedily on the belief
    costs no information. State: the belief that arm 1 is good, `(B,)`.
    """

    def __init__(self, p_good: float, hazard: float) -> None:
        super().__init__()
        self.p_good = p_good
        self.hazard = hazard

    @override
    def choose(self, rows: Array, start: BoolArray, state: Any, deterministic: bool) -> tuple[Array, Any]:
        before = np.full(len(rows), 0.5) if state is None else state
        # A reward on arm 1 and none on arm 0 speak for arm 1 alike.
        for_one = (rows[:, 1] > 0.5) == (rows[:, 2] > 0.5)
        likelihood = np.where(for_one, self.p_good, 1.0 - self.p_good)
        evidence = before * likelihood + (1.0 - before) * (1.0 - likelihood)
        # With p_good = 1 an impossible sight would divide by zero; it leaves the belief as it was.
        posterior = np.divide(before * likelihood, evidence, out=before.copy(), where=evidence > 0.0)
        belief = np.where(start, 0.5, posterior * (1.0 - self.hazard) + (1.0 - posterior) * self.hazard)
        tie = np.zeros(len(rows), dtype=np.bool_) if deterministic else self.coin(len(rows))
        return np.where(belief == 0.5, tie, belief > 0.5).astype(np.int64), belief


class GoodArmAgent(ReferenceAgent):
    """Oracle: always pulls the good arm."""

    needs_task = True

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.steps = steps

    @override
    def choose(self, rows: Array, start: BoolArray, state: Any, deterministic: bool) -> tuple[Array, Any]:
        if state is None:
            state = np.stack([good_arms(task, self.steps) for task in self.privileged_tasks(len(rows))])
        time = np.rint(rows[:, -1].astype(np.float64) * self.steps).astype(np.int64)
        return state[np.arange(len(rows)), np.minimum(time, self.steps - 1)], state
