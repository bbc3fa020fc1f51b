"""Worked example: a natively vectorised task family, its task distribution and its reference agents, in one file.

    plastic-rl envs show examples/PatchLeaving-v0 --plugin envs/patch_leaving.py

The dynamics are written once, for all rows at once (`begin_rows`, `transition`, `write_features`); the base class adds
feedback columns, horizon, tasks, seeds, autoreset and resuming. The scalar environment is the same code with one row.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium import spaces
from typing_extensions import override

from plastic_rl.arrays import Array, BoolArray, Image, IntArray, SingleArray
from plastic_rl.envs import (
    STANDARD_SPLITS,
    Outcome,
    Params,
    RandomAgent,
    ReferenceAgent,
    Task,
    TaskDistribution,
    TaskEnv,
    TaskVectorEnv,
    number_of,
    register_distribution,
)

ENV_ID = "examples/PatchLeaving-v0"
PICK, LEAVE = 0, 1


class PatchTasks(TaskDistribution):
    """How fast bushes run out (`keep`) and how far apart they are (`walk`).

    Args:
        steps: Steps in a lifetime.
    """

    family = "PatchLeaving"
    splits = (*STANDARD_SPLITS, "shift")
    limit_kind = "oracle"

    def __init__(self, steps: int = 100) -> None:
        super().__init__()
        self.steps = steps

    @override
    def sample_params(self, generator: np.random.Generator, split: str) -> Params:
        low, high = (10, 15) if split == "shift" else (1, 8)
        return {"keep": float(generator.uniform(0.6, 0.95)), "walk": int(generator.integers(low, high + 1))}

    def reference_agents(self, split: str) -> dict[str, ReferenceAgent]:
        """`random`, `five_picks` (the heuristic) and `oracle` (the limit)."""
        return {
            "random": RandomAgent(spaces.Discrete(2)),
            "five_picks": FixedPicksAgent(5),
            "oracle": MarginalValueAgent(self.steps),
        }


class PatchLeavingVectorEnv(TaskVectorEnv[PatchTasks]):
    """Pick on at a berry bush that is running out, or walk to the next one?

    # Task
    To find out how fast the bushes of this world run out and how far apart they are, and from both when to leave: the
    marginal value theorem says when picking pays less than the average of the whole world.

    # Observation
    Box, 6 columns: at a bush (1) or walking (0); previous action one-hot (2); previous reward; trial_start; t/T.

    # Actions
    Discrete 2:

    | action | at a bush | walking |
    |--------|-----------|---------|
    | 0      | pick      | walk on |
    | 1      | leave     | walk on |

    # Reward
    The j-th pick at a bush (from 0) pays 1 with probability `keep ** j`, else 0; walking pays nothing.
    `info["expected_reward"]` is that probability.

    # End
    A trial lasts from one arrival at a bush to the next; its length varies. Terminated after `steps` steps.

    # Tasks and splits
    `keep`, uniform on [.6, .95], and `walk`, the steps between two bushes, 1 to 8; on the split `shift` the walk takes
    10 to 15 steps.

    # Limits
    Sum over 100 steps: random 18.9, five picks a bush 37.4, oracle (exact dynamic programming; the limit) 40.1.

    # Source
    Charnov 1976, "Optimal foraging, the marginal value theorem".

    Args:
        num_envs: Number of rows, `B`.
        arguments: Those of `PatchTasks`, and `RowOptions`.
    """

    tasks_class = PatchTasks
    state_arrays: ClassVar[tuple[str, ...]] = ("_keep", "_walk", "_picks", "_walking", "_uniforms")

    def __init__(self, num_envs: int = 1, **arguments: Any) -> None:
        tasks, options = self.tasks_and_options(arguments)
        super().__init__(
            num_envs,
            distribution=tasks,
            action_space=spaces.Discrete(2),
            steps=tasks.steps,
            feature_low=[0.0],
            feature_high=[1.0],
            options=options,
        )
        self._keep = np.zeros(num_envs)
        self._walk = np.zeros(num_envs, dtype=np.int64)
        self._picks = np.zeros(num_envs, dtype=np.int64)
        self._walking = np.zeros(num_envs, dtype=np.int64)  # steps still to walk, 0 at a bush
        self._uniforms = np.zeros((num_envs, tasks.steps))

    @override
    def begin_rows(self, rows: IntArray, tasks: Sequence[Task], generators: Sequence[np.random.Generator]) -> None:
        """One uniform number for each step decides whether a pick pays."""
        for row, task, generator in zip(rows.tolist(), tasks, generators, strict=True):
            self._keep[row] = number_of(task, "keep")
            self._walk[row] = number_of(task, "walk")
            generator.random(out=self._uniforms[row])
        self._picks[rows] = 0
        self._walking[rows] = 0

    @override
    def transition(self, actions: Array) -> Outcome:
        here = self._walking == 0
        picking = here & (actions == PICK)
        probability = np.where(picking, self._keep**self._picks, 0.0)
        reward = (self._uniforms[np.arange(self.num_envs), self.time] < probability).astype(np.float64)
        self._picks += picking
        # The step that leaves is the first one of the walk.
        self._walking = np.where(here & ~picking, self._walk, self._walking) - (~picking)
        arrived = ~picking & (self._walking == 0)
        self._picks[arrived] = 0
        return Outcome(reward, trial_end=arrived, expected_reward=probability)

    @override
    def write_features(self, features: SingleArray) -> None:
        features[:, 0] = self._walking == 0

    @override
    def text(self, row: int) -> str:
        where = f"walking, {self._walking[row]} to go" if self._walking[row] else f"at a bush, {self._picks[row]} picks"
        return (
            f"step {self.time[row]}/{self.steps}  return {self.returns[row]:g}  {where}  "
            f"(keep {self._keep[row]:.2f}, walk {self._walk[row]})"
        )

    @override
    def frame(self, row: int) -> Image:
        """The bush's remaining berries as a green bar, the way to go as a brown one."""
        picture = np.full((60, 180, 3), 250, dtype=np.uint8)
        if self._walking[row]:
            picture[34:50, 10 : 10 + 160 * self._walking[row] // self._walk[row]] = (150, 110, 70)
        else:
            picture[10:26, 10 : 11 + int(159 * self._keep[row] ** self._picks[row])] = (58, 158, 92)
        return picture


class PatchLeavingEnv(TaskEnv):
    """One row of `PatchLeavingVectorEnv`, which documents it."""

    vector_class = PatchLeavingVectorEnv


class PickCountingAgent(ReferenceAgent):
    """Base of agents that decide by how often they have picked here; state: that number, `(B,)`."""

    @override
    def choose(self, rows: Array, start: BoolArray, state: Any, deterministic: bool) -> tuple[Array, Any]:
        picked = rows[:, 1 + PICK] > 0.5
        arrived = start | (rows[:, 4] > 0.5)
        picks = np.where(arrived, 0, (0 if state is None else state) + picked)
        return np.where(self.leaves(picks, rows[:, 5]), LEAVE, PICK), picks

    @abstractmethod
    def leaves(self, picks: IntArray, time: SingleArray) -> BoolArray:
        """Whether to leave, `(B,)`, after so many picks at this bush, at `time` t/T."""


class FixedPicksAgent(PickCountingAgent):
    """Picks a fixed number of times at every bush.

    Args:
        number: How often.
    """

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number

    @override
    def leaves(self, picks: IntArray, time: SingleArray) -> BoolArray:
        return picks >= self.number


class MarginalValueAgent(PickCountingAgent):
    """Oracle: leaves exactly when that is worth more, by dynamic programming over (steps left, picks here).

    Args:
        steps: Steps in a lifetime.
    """

    needs_task = True

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.steps = steps
        self._leave: BoolArray = np.zeros((0, steps + 1, steps + 1), dtype=np.bool_)

    @override
    def begin(self, tasks: Sequence[Task], seed: int, first: int = 0) -> None:
        """Solves each task."""
        super().begin(tasks, seed, first)
        keep = np.array([number_of(task, "keep") for task in tasks])
        walk = np.array([number_of(task, "walk") for task in tasks], dtype=np.int64)
        # value[b, h, j]: what h more steps are worth at a bush picked j times.
        value = np.zeros((len(tasks), self.steps + 1, self.steps + 2))
        self._leave = np.zeros((len(tasks), self.steps + 1, self.steps + 1), dtype=np.bool_)
        pays = keep[:, None] ** np.arange(self.steps + 1)
        every = np.arange(len(tasks))
        for left in range(1, self.steps + 1):
            stay = pays + value[:, left - 1, 1:]
            go = value[every, np.maximum(left - walk, 0), 0][:, None]
            self._leave[:, left] = go > stay
            value[:, left, :-1] = np.maximum(stay, go)

    @override
    def leaves(self, picks: IntArray, time: SingleArray) -> BoolArray:
        left = self.steps - np.rint(time.astype(np.float64) * self.steps).astype(np.int64)
        return self._leave[np.arange(len(self.privileged_tasks(len(picks)))), left, picks]


gymnasium.register(ENV_ID, entry_point=PatchLeavingEnv, vector_entry_point=PatchLeavingVectorEnv)
register_distribution(ENV_ID, PatchTasks)
