"""Reversal bandits: two arms, one good, which of them changing unannounced; their tasks and reference agents."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from gymnasium import spaces

from plastic_rl.errors import TaskError
from plastic_rl.tasks.agents import IntArray, RandomAgent, SeededAgent, as_rows
from plastic_rl.tasks.base import STANDARD_SPLITS, Params, ReferenceAgent, Task, TaskDistribution, number_of

SHIFT_HAZARD = 0.05


class ReversalBanditTasks(TaskDistribution):
    """All tasks of a split differ only in when the good arm switches, which follows from `Task.seed`.

    The splits train, valid and test are thus one task; `shift` switches more often (hazard .05).

    Args:
        steps: Pulls in a lifetime.
        p_good: Probability that the good arm pays, above 0.5 and at most 1; the other pays with `1 - p_good`.
        hazard: Probability of a switch before each pull but the first.
        entropy: Root of all seeds.
    """

    family = "ReversalBandit"
    single_task = True
    limit_kind = "bayes"

    def __init__(self, steps: int = 100, p_good: float = 0.8, hazard: float = 0.02, entropy: int = 0) -> None:
        super().__init__(entropy)
        if steps < 1 or not 0.5 < p_good <= 1.0 or not 0.0 <= hazard <= 1.0:
            raise TaskError(
                "a reversal bandit has 1 or more steps, p_good above 0.5 up to 1 and a hazard from 0 to 1, "
                f"got steps={steps}, p_good={p_good}, hazard={hazard}"
            )
        self.splits = (*STANDARD_SPLITS, "shift")
        self.steps = steps
        self.p_good = p_good
        self.hazard = hazard

    def hazard_of(self, split: str) -> float:
        """The hazard on `split`."""
        return SHIFT_HAZARD if split == "shift" else self.hazard

    def sample_params(self, generator: np.random.Generator, split: str) -> Params:
        """See `TaskDistribution`: `p_good` and `hazard`."""
        return {"p_good": self.p_good, "hazard": self.hazard_of(split)}

    def reference_agents(self, split: str) -> dict[str, ReferenceAgent]:
        """`random`, `win_stay_lose_shift`, `bayes` (the belief filter: the limit), `oracle`."""
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


class WinStayLoseShiftAgent(SeededAgent):
    """Repeats the last arm after a reward and takes the other after none; the first arm is random."""

    def predict(
        self,
        observation: npt.NDArray[Any] | dict[str, npt.NDArray[Any]],
        state: Any = None,
        episode_start: npt.NDArray[np.bool_] | None = None,
        deterministic: bool = False,
    ) -> tuple[npt.NDArray[Any], Any]:
        """See `Agent`; `deterministic` begins with arm 0."""
        rows, start = as_rows(observation, episode_start, state)
        last = rows[:, 1] > 0.5
        action = np.where(rows[:, 2] > 0.5, last, ~last).astype(np.int64)
        first = np.zeros(len(rows), dtype=np.int64) if deterministic else self._generator.integers(0, 2, len(rows))
        return np.where(start, first, action), True


class BeliefFilterAgent(SeededAgent):
    """Bayes-optimal: pulls the arm that is more probably the good one.

    Both arms are equally informative (one pays with p, the other with 1 - p), so that acting greedily on the belief
    costs no information. State: the belief that arm 1 is good, `(B,)`.

    Args:
        p_good: Probability that the good arm pays.
        hazard: Probability of a switch before each pull.
    """

    def __init__(self, p_good: float, hazard: float) -> None:
        super().__init__()
        self.p_good = p_good
        self.hazard = hazard

    def predict(
        self,
        observation: npt.NDArray[Any] | dict[str, npt.NDArray[Any]],
        state: Any = None,
        episode_start: npt.NDArray[np.bool_] | None = None,
        deterministic: bool = False,
    ) -> tuple[npt.NDArray[Any], Any]:
        """See `Agent`; `deterministic` breaks ties to arm 0."""
        rows, start = as_rows(observation, episode_start, state)
        before = np.full(len(rows), 0.5) if state is None else state
        # A reward on arm 1 and none on arm 0 speak for arm 1 alike.
        for_one = (rows[:, 1] > 0.5) == (rows[:, 2] > 0.5)
        likelihood = np.where(for_one, self.p_good, 1.0 - self.p_good)
        evidence = before * likelihood + (1.0 - before) * (1.0 - likelihood)
        # With p_good = 1 an impossible sight would divide by zero; it leaves the belief as it was.
        posterior = np.divide(before * likelihood, evidence, out=before.copy(), where=evidence > 0.0)
        belief = np.where(start, 0.5, posterior * (1.0 - self.hazard) + (1.0 - posterior) * self.hazard)
        tie = np.zeros(len(rows), dtype=np.bool_) if deterministic else self._generator.random(len(rows)) < 0.5
        return np.where(belief == 0.5, tie, belief > 0.5).astype(np.int64), belief


class GoodArmAgent(SeededAgent):
    """Oracle: always pulls the good arm.

    Args:
        steps: Pulls in a lifetime.
    """

    needs_task = True

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.steps = steps

    def predict(
        self,
        observation: npt.NDArray[Any] | dict[str, npt.NDArray[Any]],
        state: Any = None,
        episode_start: npt.NDArray[np.bool_] | None = None,
        deterministic: bool = False,
    ) -> tuple[npt.NDArray[Any], Any]:
        """See `Agent`; the time is read from the last column of the observation."""
        rows, _ = as_rows(observation, episode_start, state)
        if state is None:
            state = np.stack([good_arms(task, self.steps) for task in self._known_tasks(len(rows))])
        time = np.rint(rows[:, -1].astype(np.float64) * self.steps).astype(np.int64)
        return state[np.arange(len(rows)), np.minimum(time, self.steps - 1)], state
