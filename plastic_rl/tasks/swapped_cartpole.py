"""Cart-pole with its two actions swapped in half of the lifetimes: the task, and hand-made agents."""

from __future__ import annotations

import zlib
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
from gymnasium import spaces

from plastic_rl.errors import TaskError
from plastic_rl.tasks.agents import FloatArray, IntArray, RandomAgent, SeededAgent, as_rows
from plastic_rl.tasks.base import STANDARD_SPLITS, Params, ReferenceAgent, Task, TaskDistribution

Sees = Literal["pole", "all"]
Swap = Literal["both", "never", "always"]

HALF_LENGTH = 0.5
"""Half the length of the pole, in metres."""
SHIFT_HALF_LENGTHS = (0.25, 1.0)
X_LIMIT = 2.4
"""Metres from the middle of the track at which a trial is lost."""
ANGLE_LIMIT = 12 * 2 * np.pi / 360
"""Radians from upright at which a trial is lost."""
SCALES: dict[Sees, tuple[float, ...]] = {
    "pole": (ANGLE_LIMIT, 2.0),
    "all": (X_LIMIT, 2.0, ANGLE_LIMIT, 2.0),
}
"""What features are divided by: the limits, and 2 m/s and 2 rad/s."""
GAINS = (1.0, 0.25)
"""Push to the side of `angle + 0.25 s * angular velocity`: balances for 500 steps from every start, at all lengths."""


class SwappedCartPoleTasks(TaskDistribution):
    """Are left and right swapped? In each pair of consecutive tasks one is, in random order.

    The splits train, valid and test hold the same two tasks (only the order differs, and the start states, which are
    noise). On `shift` the half length of the pole is uniform from .25 to 1 m instead of .5 m.

    Args:
        trials: Trials in a lifetime.
        trial_steps: Most steps of a trial.
        sees: Which features the agent sees: those of the pole, or all (the tasks do not depend on it).
        swap: `"both"`; or `"never"` or `"always"`, to look at one half of the tasks by itself.
        steps: Most steps of a lifetime; None: `trials * trial_steps`.
        entropy: Root of all seeds.

    >>> [task.params["swapped"] for task in SwappedCartPoleTasks().tasks("train", 0, 6)]
    [False, True, False, True, False, True]
    """

    family = "SwappedCartPole"
    limit_kind = "oracle"

    def __init__(
        self,
        trials: int = 5,
        trial_steps: int = 200,
        sees: Sees = "pole",
        swap: Swap = "both",
        steps: int | None = None,
        entropy: int = 0,
    ) -> None:
        super().__init__(entropy)
        if trials < 1 or trial_steps < 1 or (steps is not None and steps < 1):
            raise TaskError(
                "trials, trial_steps and steps must be 1 or more, "
                f"got trials={trials}, trial_steps={trial_steps}, steps={steps}"
            )
        for name, value, valid in (("sees", sees, Sees), ("swap", swap, Swap)):
            if value not in get_args(valid):
                raise TaskError(f"{name} must be one of {', '.join(get_args(valid))}, got {value!r}")
        self.splits = (*STANDARD_SPLITS, "shift")
        self.trials = trials
        self.trial_steps = trial_steps
        self.sees: Sees = sees
        self.swap: Swap = swap
        self.steps = trials * trial_steps if steps is None else steps

    def task(self, split: str, index: int) -> Task:
        """See `TaskDistribution`; the order within each pair of tasks is random."""
        task = super().task(split, index)
        spawn_key = (zlib.crc32(split.encode()), index // 2, 1)
        order = int(np.random.SeedSequence(self.entropy, spawn_key=spawn_key).generate_state(1)[0] % 2)
        swapped = bool((index + order) % 2) if self.swap == "both" else self.swap == "always"
        return Task(task.family, task.split, task.index, task.seed, {**task.params, "swapped": swapped})

    def sample_params(self, generator: np.random.Generator, split: str) -> Params:
        """See `TaskDistribution`: `half_length` (m); `task` adds `swapped`."""
        return {"half_length": float(generator.uniform(*SHIFT_HALF_LENGTHS)) if split == "shift" else HALF_LENGTH}

    def reference_agents(self, split: str) -> dict[str, ReferenceAgent]:
        """`random`, `infer_swap` (watches what its first push does), `oracle` (knows; the limit)."""
        return {
            "random": RandomAgent(spaces.Discrete(2)),
            "infer_swap": InferSwapAgent(self.sees),
            "oracle": BalancingAgent(self.sees),
        }


class BalancingAgent(SeededAgent):
    """Oracle: a linear controller of the pole that knows whether left and right are swapped.

    Args:
        sees: Which features the observation starts with.
    """

    needs_task = True

    def __init__(self, sees: Sees = "pole") -> None:
        super().__init__()
        self._scale = np.array(SCALES[sees])

    def _pole(self, rows: npt.NDArray[Any]) -> FloatArray:
        """Angle and angular velocity (rad, rad/s) in observations, `(B, 2)`."""
        pole: FloatArray = (rows[:, : self._scale.size] * self._scale)[:, -2:]
        return pole

    def _push(self, rows: npt.NDArray[Any]) -> IntArray:
        """Side `(B,)` to push to, 0 left and 1 right."""
        lean: FloatArray = self._pole(rows) @ np.array(GAINS)
        return (lean > 0).astype(np.int64)

    def predict(
        self,
        observation: npt.NDArray[Any] | dict[str, npt.NDArray[Any]],
        state: Any = None,
        episode_start: npt.NDArray[np.bool_] | None = None,
        deterministic: bool = False,
    ) -> tuple[npt.NDArray[Any], Any]:
        """See `Agent`; `deterministic` changes nothing."""
        rows, _ = as_rows(observation, episode_start, state)
        swapped = np.array([bool(task.params["swapped"]) for task in self._known_tasks(len(rows))])
        return self._push(rows) ^ swapped, True


class InferSwapAgent(BalancingAgent):
    """Pushes, watches which way the pole is thrown, and balances it with what it has found out.

    State: what is known `(B,)` (0 nothing, 1 not swapped, -1 swapped), and the angular velocity before the push `(B,)`.
    """

    needs_task = False

    def predict(
        self,
        observation: npt.NDArray[Any] | dict[str, npt.NDArray[Any]],
        state: Any = None,
        episode_start: npt.NDArray[np.bool_] | None = None,
        deterministic: bool = False,
    ) -> tuple[npt.NDArray[Any], Any]:
        """See `Agent`; the first action of a lifetime takes the actions for not swapped."""
        rows, start = as_rows(observation, episode_start, state)
        velocity = self._pole(rows)[:, 1]
        if state is None:
            state = {"known": np.zeros(len(rows)), "velocity": velocity}
        first = self._scale.size
        pushed = np.where(start | (rows[:, -2] > 0), 0.0, rows[:, first + 1] - rows[:, first])
        # A push to the right throws the pole to the left; in one step gravity does far less than a push.
        seen = np.sign(-pushed * (velocity - state["velocity"]))
        known = np.where(start, 0.0, np.where(state["known"] == 0, seen, state["known"]))
        return self._push(rows) ^ (known < 0), {"known": known, "velocity": velocity}
