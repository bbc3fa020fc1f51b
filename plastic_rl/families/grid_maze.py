"""The grid maze with a hidden reward."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, ClassVar, Unpack

import numpy as np
from gymnasium import spaces
from typing_extensions import override

from plastic_rl.arrays import Array, BoolArray, FloatArray, Image, IntArray, SingleArray
from plastic_rl.envs import drawing
from plastic_rl.envs.reference_agents import RandomAgent
from plastic_rl.envs.task import STANDARD_SPLITS, Params, ReferenceAgent, Task, TaskDistribution, number_of
from plastic_rl.envs.task_vector_env import Outcome, TaskEnv, TaskVectorEnv
from plastic_rl.envs.vector_env import RowOptions, stored_array
from plastic_rl.errors import CheckpointError, TaskError

MOVES: tuple[tuple[int, int], ...] = ((-1, 0), (1, 0), (0, -1), (0, 1))
"""Row and column steps of the actions 0 to 3: north, south, west, east."""

GOAL_REWARD = 10.0
SMALLEST_HOLDOUT_FAMILY = 20


class Maze:
    """The walls of one size of maze, and what follows from them; cells are numbered `row * side + column`.

    The outer ring is wall, and so is every cell of even row and even column inside, but for the centre.

    Attributes:
        side: Outer side, walls included; odd, 5 or more.
        walls: `(side, side)` bool.
        free: Numbers of the free cells in ascending order, `(N,)`.
        centre: Number of the start cell.
        next_cell: Where each move leads from each cell, `(side * side, 4)`; into a wall: nowhere.
        patches: The 3x3 neighbourhood of each cell, 1 for wall, `(side * side, 9)`, row by row.

    >>> print(Maze(7).text())
    #######
    #     #
    # # # #
    #     #
    # # # #
    #     #
    #######
    """

    def __init__(self, side: int) -> None:
        if side < 5 or side % 2 == 0:
            raise TaskError(f"the side of a maze must be odd and 5 or more, got {side}")
        self.side = side
        place = np.arange(side)
        edge = (place == 0) | (place == side - 1)
        even = place % 2 == 0
        self.walls: BoolArray = edge[:, None] | edge[None, :] | (even[:, None] & even[None, :])
        middle = side // 2
        self.walls[middle, middle] = False
        self.centre = middle * side + middle
        self.free: IntArray = np.flatnonzero(~self.walls)
        cells = side * side
        self.next_cell: IntArray = np.repeat(np.arange(cells)[:, None], len(MOVES), axis=1)
        for action, (down, right) in enumerate(MOVES):
            target = self.free + down * side + right
            self.next_cell[self.free, action] = np.where(self.walls.ravel()[target], self.free, target)
        self.patches: SingleArray = np.ones((cells, 9), dtype=np.float32)
        flat = self.walls.ravel().astype(np.float32)
        around = [down * side + right for down in (-1, 0, 1) for right in (-1, 0, 1)]
        self.patches[self.free] = flat[self.free[:, None] + np.array(around)]
        self._distances: IntArray | None = None

    @property
    def distances(self) -> IntArray:
        """Length of the shortest path between any two free cells, `(side * side, side * side)`; -1 for walls."""
        if self._distances is None:
            cells = self.side * self.side
            distances = np.full((cells, cells), -1, dtype=np.int64)
            reached = np.zeros((cells, cells), dtype=np.bool_)
            reached[self.free, self.free] = True
            distances[reached] = 0
            for length in range(1, cells):
                # Moves are reversible: a cell is reached where one of its neighbours was (walls are their own).
                nearer = reached.copy()
                for action in range(len(MOVES)):
                    nearer |= reached[:, self.next_cell[:, action]]
                if (nearer == reached).all():
                    break
                distances[nearer & ~reached] = length
                reached = nearer
            self._distances = distances
        return self._distances

    def text(self, marks: dict[int, str] | None = None) -> str:
        """The maze as text, one sign for each cell: `#` wall, and `marks` by cell number."""
        signs = np.where(self.walls.ravel(), "#", " ").tolist()
        for cell, mark in (marks or {}).items():
            signs[cell] = mark
        return "\n".join("".join(signs[row * self.side : (row + 1) * self.side]) for row in range(self.side))


@lru_cache(maxsize=32)
def maze_of(side: int) -> Maze:
    """The maze of outer side `side`, built once in a process."""
    return Maze(side)


class GridMazeTasks(TaskDistribution):
    """A hidden reward cell, uniform over the free cells but the centre.

    The split `shift` has mazes of the neighbouring sides (`side - 2` if that is a maze, and `side + 2`). With
    `holdout`, that share of the goal cells occurs in no split but `holdout`.

    Args:
        side: Outer side of the maze, walls included: odd, 5 or more.
        steps: Steps in a lifetime.
        wall_penalty: What running into a wall costs (the tasks do not depend on it).
        holdout: Share of goal cells held out of train, valid and test; 0 for none.
        entropy: Root of all seeds.

    >>> sorted({GridMazeTasks(9).task("shift", index).params["side"] for index in range(20)})
    [7, 11]
    """

    family = "GridMaze"
    limit_kind = "oracle"

    def __init__(
        self, side: int = 9, steps: int = 200, wall_penalty: float = 0.0, holdout: float = 0.0, entropy: int = 0
    ) -> None:
        super().__init__(entropy)
        maze = maze_of(side)
        self.side = side
        self.steps = steps
        self.shift_sides = tuple(other for other in (side - 2, side + 2) if other >= 5)
        goals = maze.free[maze.free != maze.centre]
        if not 0.0 <= holdout < 1.0:
            raise TaskError(f"holdout is a share of the goal cells, from 0 up to (not including) 1, got {holdout}")
        if holdout and goals.size < SMALLEST_HOLDOUT_FAMILY:
            raise TaskError(
                f"holdout needs {SMALLEST_HOLDOUT_FAMILY} goal cells or more; a maze of side {side} has {goals.size}"
            )
        shuffled = np.random.Generator(np.random.PCG64(np.random.SeedSequence(entropy))).permutation(goals)
        held = max(1, round(holdout * goals.size)) if holdout else 0
        self.held_out_goals: tuple[int, ...] = tuple(sorted(shuffled[:held].tolist()))
        self.goals: tuple[int, ...] = tuple(sorted(shuffled[held:].tolist()))
        self.splits = (*STANDARD_SPLITS, "shift", *(("holdout",) if holdout else ()))

    def sample_params(self, generator: np.random.Generator, split: str) -> Params:
        """See `TaskDistribution`: `side`, and `goal` as cell number `row * side + column`."""
        if split == "shift":
            side = int(generator.choice(self.shift_sides))
            maze = maze_of(side)
            return {"side": side, "goal": int(generator.choice(maze.free[maze.free != maze.centre]))}
        goals = self.held_out_goals if split == "holdout" else self.goals
        return {"side": self.side, "goal": goals[int(generator.integers(len(goals)))]}

    def reference_agents(self, split: str) -> dict[str, ReferenceAgent]:
        """`random`, `search` (then shortest paths; an upper reference), `oracle` (the limit).

        The last two are shown their own position, which a learner has to work out.
        """
        return {
            "random": RandomAgent(spaces.Discrete(len(MOVES))),
            "search": SearchAgent(),
            "oracle": ShortestPathAgent(),
        }


class PositionedAgent(ReferenceAgent):
    """Base of agents whose privileged information is their own cell, from the environment they are attached to."""

    needs_env = True

    def _towards(self, side: int, position: IntArray, target: IntArray, deterministic: bool) -> IntArray:
        """A first move `(R,)` of a shortest path from `position (R,)` to `target (R,)`."""
        maze = maze_of(side)
        nearness = -maze.distances[maze.next_cell[position], target[:, None]].astype(np.float64)
        return self.best(nearness, deterministic)


class ShortestPathAgent(PositionedAgent):
    """Oracle: always goes straight to the hidden goal."""

    needs_task = True

    @override
    def choose(self, rows: Array, start: BoolArray, state: Any, deterministic: bool) -> tuple[Array, Any]:
        sides, positions = self.privileged("side", len(rows)), self.privileged("position", len(rows))
        goals = np.array([task.params["goal"] for task in self.privileged_tasks(len(rows))], dtype=np.int64)
        actions = np.zeros(len(rows), dtype=np.int64)
        for side in np.unique(sides).tolist():
            here = np.flatnonzero(sides == side)
            actions[here] = self._towards(side, positions[here], goals[here], deterministic)
        return actions, True


class SearchAgent(PositionedAgent):
    """Goes to the nearest cell it has not visited until it finds the goal, then back there by shortest paths.

    State: visited cells `(B, C)` bool, the known goal `(B,)` (-1: unknown), the cell of the last move `(B,)`.
    """

    @override
    def choose(self, rows: Array, start: BoolArray, state: Any, deterministic: bool) -> tuple[Array, Any]:
        sides, positions = self.privileged("side", len(rows)), self.privileged("position", len(rows))
        if state is None:
            cells = int(sides.max()) ** 2
            state = {
                "visited": np.zeros((len(rows), cells), dtype=np.bool_),
                "goal": np.full(len(rows), -1),
                "entered": np.full(len(rows), -1),
            }
        # The reward stands before trial_start and t/T; only the goal pays more than half of its reward.
        found = rows[:, -3] > GOAL_REWARD / 2
        goal = np.where(start, -1, np.where(found, state["entered"], state["goal"]))
        visited = state["visited"] & ~start[:, None]
        every = np.arange(len(rows))
        visited[every, positions] = True
        visited[every[found & ~start], goal[found & ~start]] = True
        actions = np.zeros(len(rows), dtype=np.int64)
        entered = np.zeros(len(rows), dtype=np.int64)
        for side in np.unique(sides).tolist():
            here = np.flatnonzero(sides == side)
            maze = maze_of(side)
            unseen: FloatArray = -maze.distances[positions[here]][:, maze.free].astype(np.float64)
            unseen[visited[here][:, maze.free]] = -np.inf
            nearest = maze.free[self.best(unseen, deterministic)]
            target = np.where(goal[here] >= 0, goal[here], nearest)
            actions[here] = self._towards(side, positions[here], target, deterministic)
            entered[here] = maze.next_cell[positions[here], actions[here]]
        return actions, {"visited": visited, "goal": goal, "entered": entered}


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
        self._patches: SingleArray = np.zeros((0, 10), dtype=np.float32)
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

    def write_features(self, features: SingleArray) -> None:
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

    def frame(self, row: int) -> Image:
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
