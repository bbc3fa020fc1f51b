"""The grid maze with a hidden reward."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Unpack

import numpy as np
import numpy.typing as npt
from gymnasium import spaces

from plastic_rl.envs import drawing
from plastic_rl.envs.restoring import stored_array
from plastic_rl.envs.row_vector_env import Array, FloatArray, IntArray, Observations, RowOptions
from plastic_rl.envs.task_env import TaskEnv
from plastic_rl.envs.task_vector_env import Outcome, TaskVectorEnv
from plastic_rl.errors import CheckpointError
from plastic_rl.tasks.base import Task, number_of
from plastic_rl.tasks.grid_maze import GOAL_REWARD, MOVES, GridMazeTasks, maze_of


class GridMazeVectorEnv(TaskVectorEnv):
    """Find the hidden reward, then come back to it as often as possible from wherever you are put.

    **What must be learned.** To explore, to remember where the reward was, and to find one's own place from the walls
    around: the goal cell is drawn anew for each lifetime, cannot be seen, and on reaching it the agent is put into a
    random other free cell.

    **Maze.** Outer wall, pillars at all cells of even row and even column, an open centre, where a lifetime starts.

    **Observation** (Box, 17 columns): 3x3 walls around the agent, row by row (9), bias (always 1), previous action
    one-hot (4), previous reward, trial_start, t/T. It does not depend on the side.

    **Actions** (Discrete 4): north, south, west, east; into a wall: no movement.

    **Reward**: +10 on reaching the goal, `-wall_penalty` for running into a wall, else 0.

    **Trial**: from a start or teleport to the goal; its length varies. **End**: terminated after `steps` steps.

    **Tasks**: `side` and `goal` (cell `row * side + column`), uniform over the free cells but the centre. The split
    `shift` has the neighbouring sides; `holdout` > 0 keeps that share of the goal cells for the split `holdout`.

    **Limits**, reward per lifetime at side 9 / 11 / 13: random walk 15 / 8 / 6, search and then shortest paths with the
    own position known 377 / 269 / 200, oracle (the limit) 416.2 / 324.2 / 269.6.

    **Source**: Miconi et al. 2018, "Differentiable plasticity"; Miconi et al. 2019, "Backpropamine" (side 13; the 2018
    runs had a wall penalty of .1).

    Args:
        num_envs: Number of rows, `B`.
        side: Outer side, walls included: odd, 5 or more.
        steps: Steps in a lifetime.
        wall_penalty: Cost of running into a wall, 0 or more.
        holdout: Share of the goal cells held out of train, valid and test.
        options: See `RowOptions`.
    """

    metadata: dict[str, Any] = drawing.render_metadata(frames_per_second=8)
    state_arrays: ClassVar[tuple[str, ...]] = ("_uniforms",)

    def __init__(
        self,
        num_envs: int = 1,
        *,
        side: int = 9,
        steps: int = 200,
        wall_penalty: float = 0.0,
        holdout: float = 0.0,
        **options: Unpack[RowOptions],
    ) -> None:
        if wall_penalty < 0:
            raise ValueError(f"wall_penalty is a cost of 0 or more, got {wall_penalty}")
        super().__init__(
            num_envs,
            distribution=GridMazeTasks(side=side, steps=steps, wall_penalty=wall_penalty, holdout=holdout),
            action_space=spaces.Discrete(len(MOVES)),
            steps=steps,
            feature_low=np.zeros(10),
            feature_high=np.ones(10),
            reward_range=(-wall_penalty, GOAL_REWARD),
            options=options,
        )
        self.wall_penalty = wall_penalty
        self._uniforms: FloatArray = np.zeros((num_envs, steps))
        # Cells of all sides in use are numbered through, one side after the other, so that rows of different sides
        # are stepped by the same look-ups. `_first_cell` is where the numbers of a row's side begin.
        self._first_of: dict[int, int] = {}
        self._first_free_of: dict[int, int] = {}
        self._next_cell: IntArray = np.zeros(0, dtype=np.int64)
        self._patches: npt.NDArray[np.float32] = np.zeros((0, 10), dtype=np.float32)
        self._free: IntArray = np.zeros(0, dtype=np.int64)
        self._add_side(side)
        self._side: IntArray = np.full(num_envs, side)
        self._first_cell: IntArray = np.zeros(num_envs, dtype=np.int64)
        self._position: IntArray = np.zeros(num_envs, dtype=np.int64)
        self._goal: IntArray = np.zeros(num_envs, dtype=np.int64)
        # Teleports draw from the free cells but the goal: the goal's place among them is skipped.
        self._first_free: IntArray = np.zeros(num_envs, dtype=np.int64)
        self._free_count: IntArray = np.zeros(num_envs, dtype=np.int64)
        self._goal_place: IntArray = np.zeros(num_envs, dtype=np.int64)

    def _add_side(self, side: int) -> None:
        """Append the tables of another side of maze."""
        maze = maze_of(side)
        first = len(self._patches)
        self._first_of[side] = first
        self._first_free_of[side] = len(self._free)
        self._next_cell = np.concatenate([self._next_cell, (maze.next_cell + first).ravel()])
        biased = np.concatenate([maze.patches, np.ones((len(maze.patches), 1), dtype=np.float32)], axis=1)
        self._patches = np.concatenate([self._patches, biased])
        self._free = np.concatenate([self._free, maze.free + first])

    def begin_rows(self, rows: IntArray, tasks: Sequence[Task], generators: Sequence[np.random.Generator]) -> None:
        """See `TaskVectorEnv`; one uniform number for each step says where a teleport at that step leads."""
        for row, task, generator in zip(rows.tolist(), tasks, generators, strict=True):
            side, goal = int(number_of(task, "side")), int(number_of(task, "goal"))
            if side not in self._first_of:
                self._add_side(side)
            maze = maze_of(side)
            self._side[row] = side
            self._first_cell[row] = self._first_of[side]
            self._goal[row] = self._first_of[side] + goal
            self._position[row] = self._first_of[side] + maze.centre
            self._first_free[row] = self._first_free_of[side]
            self._free_count[row] = maze.free.size
            self._goal_place[row] = np.searchsorted(maze.free, goal)
            generator.random(out=self._uniforms[row])

    def transition(self, actions: Array) -> Outcome:
        """See `TaskVectorEnv`."""
        position = self._next_cell.take(self._position * len(MOVES) + actions)
        found = position == self._goal
        reward = found * GOAL_REWARD
        if self.wall_penalty:
            reward -= self.wall_penalty * (position == self._position)
        self._position = position
        if found.any():
            rows = np.flatnonzero(found)
            place = (self._uniforms[rows, self.time[rows]] * (self._free_count[rows] - 1)).astype(np.int64)
            place += place >= self._goal_place[rows]
            position[rows] = self._free[self._first_free[rows] + place]
        return Outcome(reward, found)

    def write_features(self, features: Observations) -> None:
        """See `TaskVectorEnv`: the walls around and the bias."""
        features[...] = self._patches.take(self._position, axis=0)

    def privileged(self) -> dict[str, Array]:
        """See `TaskVectorEnv`: `side` and `position` (cell number in the row's own maze)."""
        return {"side": self._side.copy(), "position": self._position - self._first_cell}

    def family_state(self) -> dict[str, Any]:
        """See `TaskVectorEnv`; the position is the cell number in the row's own maze."""
        return {**super().family_state(), "position": self._position - self._first_cell}

    def set_family_state(self, state: Mapping[str, Any]) -> None:
        """See `TaskVectorEnv`; sides and goals follow from the tasks."""
        arrays = dict(state)
        position = stored_array("position", arrays.pop("position"), self._position)
        for row, cell in enumerate(position.tolist()):
            if cell not in maze_of(int(self._side[row])).free:
                raise CheckpointError(f"the stored position {cell} is no free cell of a maze of side {self._side[row]}")
        self._position = self._first_cell + position
        super().set_family_state(arrays)

    def text(self, row: int) -> str:
        """See `TaskVectorEnv`: `#` wall, `A` the agent, `G` the hidden goal."""
        first = self._first_cell[row]
        picture = maze_of(int(self._side[row])).text(
            {int(self._goal[row] - first): "G", int(self._position[row] - first): "A"}
        )
        return f"{drawing.headline(self.time[row], self.steps, self.returns[row])}\n{picture}"

    def frame(self, row: int) -> npt.NDArray[np.uint8]:
        """See `TaskVectorEnv`: walls dark, the agent blue, the hidden goal gold (green when just found)."""
        maze = maze_of(int(self._side[row]))
        first = int(self._first_cell[row])
        found = bool(self._trial_column[row] > 0 and self.time[row] > 0)
        return drawing.grid(
            maze.walls,
            squares={int(self._goal[row]) - first: drawing.GREEN if found else drawing.GOLD},
            discs={int(self._position[row]) - first: drawing.BLUE},
            head=f"{self.time[row]}/{self.steps} R {self.returns[row]:g}",
        )


class GridMazeEnv(TaskEnv):
    """One row of `GridMazeVectorEnv`, which documents it."""

    metadata: dict[str, Any] = drawing.render_metadata(frames_per_second=8)
    vector_class = GridMazeVectorEnv
