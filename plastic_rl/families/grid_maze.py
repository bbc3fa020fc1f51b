"""The grid maze with a hidden reward."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property, lru_cache
from typing import Any, ClassVar

import numpy as np
from gymnasium import spaces
from typing_extensions import override

from plastic_rl.arrays import Array, BoolArray, FloatArray, Image, IntArray, SingleArray
from plastic_rl.envs import drawing
from plastic_rl.envs.task import STANDARD_SPLITS, Params, RandomAgent, ReferenceAgent, Task, TaskDistribution, number_of
from plastic_rl.envs.task_vector_env import Outcome, TaskEnv, TaskVectorEnv
from plastic_rl.envs.vector_env import stored_array
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

    @cached_property
    def distances(self) -> IntArray:
        """Length of the shortest path between any two free cells, `(side * side, side * side)`; -1 for walls."""
        from scipy.sparse.csgraph import shortest_path

        cells = self.side * self.side
        moves = np.zeros((cells, cells), dtype=np.bool_)
        moves[self.free[:, None], self.next_cell[self.free]] = True
        lengths = shortest_path(moves, unweighted=True)
        return np.where(np.isinf(lengths) | self.walls.ravel(), -1, lengths).astype(np.int64)

    def text(self, marks: dict[int, str] | None = None) -> str:
        """The maze as text, one sign for each cell: `#` wall, and `marks` by cell number."""
        signs = np.where(self.walls.ravel(), "#", " ").tolist()
        for cell, mark in (marks or {}).items():
            signs[cell] = mark
        return "\n".join("".join(signs[row * self.side : (row + 1) * self.side]) for row in range(self.side))


maze_of = lru_cache(maxsize=32)(Maze)
"""The maze of an outer side, built once in a process."""


class GridMazeTasks(TaskDistribution):
    """A hidden reward cell; mazes of the neighbouring sides on `shift`.

    Args:
        side: Outer side of the maze, walls included: odd, 5 or more.
        steps: Steps in a lifetime.
        wall_penalty: What running into a wall costs, 0 or more.
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
        if steps < 1 or not wall_penalty >= 0:
            raise TaskError(
                "a maze has steps of 1 or more and a wall_penalty, a cost, of 0 or more, "
                f"got steps={steps}, wall_penalty={wall_penalty}"
            )
        self.side = side
        self.steps = steps
        self.wall_penalty = wall_penalty
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

    @override
    def sample_params(self, generator: np.random.Generator, split: str) -> Params:
        """`side`, and `goal` as cell number `row * side + column`."""
        if split == "shift":
            side = int(generator.choice(self.shift_sides))
            maze = maze_of(side)
            return {"side": side, "goal": int(generator.choice(maze.free[maze.free != maze.centre]))}
        goals = self.held_out_goals if split == "holdout" else self.goals
        return {"side": self.side, "goal": goals[int(generator.integers(len(goals)))]}

    @override
    def reference_agents(self, split: str) -> dict[str, ReferenceAgent]:
        return {
            "random": RandomAgent(spaces.Discrete(len(MOVES))),
            "search": SearchAgent(),
            "oracle": ShortestPathAgent(),
        }


class GridMazeVectorEnv(TaskVectorEnv[GridMazeTasks]):
    """Find the hidden reward, then come back to it as often as possible from wherever you are put.

    # Task
    To explore, to remember where the reward was, and to find one's own place from the walls around: the goal cell is
    drawn anew for each lifetime, cannot be seen, and on reaching it the agent is put into a random other free cell.
    The maze has an outer wall, pillars at all cells of even row and even column, and an open centre, where a lifetime
    starts.

    # Observation
    Box, 17 columns: 3x3 walls around the agent, row by row (9); bias (always 1); previous action one-hot (4); previous
    reward; trial_start; t/T. It does not depend on the side.

    # Actions
    Discrete 4:

    | action | move  |
    |--------|-------|
    | 0      | north |
    | 1      | south |
    | 2      | west  |
    | 3      | east  |

    Into a wall: no movement.

    # Reward
    +10 on reaching the goal, `-wall_penalty` for running into a wall, else 0.

    # End
    A trial lasts from a start or teleport to the goal; its length varies. Terminated after `steps` steps.

    # Tasks and splits
    `side` and `goal` (cell `row * side + column`), uniform over the free cells but the centre. The split `shift` has
    the neighbouring sides (`side - 2` if that is a maze, and `side + 2`); `holdout` > 0 keeps that share of the goal
    cells for the split `holdout`.

    # Limits
    Reward per lifetime at side 9 / 11 / 13: random walk 15 / 8 / 6, search and then shortest paths with the own
    position known 377 / 269 / 200, oracle (the limit) 416.2 / 324.2 / 269.6.

    # Source
    Miconi et al. 2018, "Differentiable plasticity"; Miconi et al. 2019, "Backpropamine" (side 13; the 2018 runs had a
    wall penalty of .1).
    """

    tasks_class = GridMazeTasks
    metadata: dict[str, Any] = drawing.render_metadata(frames_per_second=8)
    state_arrays: ClassVar[tuple[str, ...]] = ("_uniforms",)

    def __init__(self, num_envs: int = 1, **arguments: Any) -> None:
        tasks, options = self.tasks_and_options(arguments)
        super().__init__(
            num_envs,
            distribution=tasks,
            action_space=spaces.Discrete(len(MOVES)),
            steps=tasks.steps,
            feature_low=np.zeros(10),
            feature_high=np.ones(10),
            reward_range=(-tasks.wall_penalty, GOAL_REWARD),
            options=options,
        )
        self._uniforms: FloatArray = np.zeros((num_envs, tasks.steps))
        # Cells of all sides in use are numbered through, one side after the other, so that rows of different sides
        # are stepped by the same look-ups. `_first_cell` is where the numbers of a row's side begin.
        self._first_of: dict[int, int] = {}
        self._next_cell: IntArray = np.zeros(0, dtype=np.int64)
        self._patches: SingleArray = np.zeros((0, 10), dtype=np.float32)
        self._add_side(tasks.side)
        self._side: IntArray = np.full(num_envs, tasks.side)
        self._first_cell: IntArray = np.zeros(num_envs, dtype=np.int64)
        self._position: IntArray = np.zeros(num_envs, dtype=np.int64)
        self._goal: IntArray = np.zeros(num_envs, dtype=np.int64)
        self._landings: IntArray = np.zeros((num_envs, tasks.steps), dtype=np.int64)
        self._stride, self._prize = np.array(len(MOVES)), np.array(GOAL_REWARD)

    def _add_side(self, side: int) -> None:
        """Append the tables of another side of maze."""
        maze = maze_of(side)
        first = len(self._patches)
        self._first_of[side] = first
        self._next_cell = np.concatenate([self._next_cell, (maze.next_cell + first).ravel()])
        biased = np.concatenate([maze.patches, np.ones((len(maze.patches), 1), dtype=np.float32)], axis=1)
        self._patches = np.concatenate([self._patches, biased])

    @override
    def begin_rows(self, rows: IntArray, tasks: Sequence[Task], generators: Sequence[np.random.Generator]) -> None:
        """One uniform number for each step says where a teleport at that step leads."""
        for row, task, generator in zip(rows.tolist(), tasks, generators, strict=True):
            side, goal = int(number_of(task, "side")), int(number_of(task, "goal"))
            if side not in self._first_of:
                self._add_side(side)
            maze = maze_of(side)
            self._side[row] = side
            self._first_cell[row] = self._first_of[side]
            self._goal[row] = self._first_of[side] + goal
            self._position[row] = self._first_of[side] + maze.centre
            generator.random(out=self._uniforms[row])
            self._lay_landings(row)

    def _lay_landings(self, row: int) -> None:
        """Where a teleport at each step leads: to any free cell but the goal."""
        free, first = maze_of(int(self._side[row])).free, self._first_cell[row]
        others = free[free != self._goal[row] - first]
        self._landings[row] = first + others[(self._uniforms[row] * others.size).astype(np.int64)]

    @override
    def transition(self, actions: Array) -> Outcome:
        position = self._next_cell.take(self._position * self._stride + actions)
        found = position == self._goal
        reward: FloatArray = found * self._prize
        if self.distribution.wall_penalty:
            reward -= self.distribution.wall_penalty * (position == self._position)
        self._position = position
        if np.count_nonzero(found):
            rows = found.nonzero()[0]
            position[rows] = self._landings[rows, self.time[rows]]
        return Outcome(reward, found)

    @override
    def write_features(self, features: SingleArray) -> None:
        features[...] = self._patches.take(self._position, axis=0)

    @override
    def privileged(self) -> dict[str, Array]:
        """`side` and `position` (cell number in the row's own maze)."""
        return {"side": self._side.copy(), "position": self._position - self._first_cell}

    @override
    def family_state(self) -> dict[str, Any]:
        """The position is the cell number in the row's own maze."""
        return {**super().family_state(), "position": self._position - self._first_cell}

    @override
    def set_family_state(self, state: Mapping[str, Any]) -> None:
        """Sides and goals follow from the tasks."""
        arrays = dict(state)
        position = stored_array("position", arrays.pop("position"), self._position)
        for row, cell in enumerate(position.tolist()):
            if cell not in maze_of(int(self._side[row])).free:
                raise CheckpointError(f"the stored position {cell} is no free cell of a maze of side {self._side[row]}")
        self._position = self._first_cell + position
        super().set_family_state(arrays)
        for row in self._all_rows.tolist():
            self._lay_landings(row)

    @override
    def text(self, row: int) -> str:
        first = self._first_cell[row]
        marks = {int(self._goal[row] - first): "G", int(self._position[row] - first): "A"}
        return f"{self.headline(row)}\n{maze_of(int(self._side[row])).text(marks)}"

    @override
    def frame(self, row: int) -> Image:
        """Walls dark, the agent blue, the hidden goal gold (green when just found)."""
        maze = maze_of(int(self._side[row]))
        first = int(self._first_cell[row])
        found = bool(self._trial_column[row] > 0 and self.time[row] > 0)
        return drawing.grid(
            maze.walls,
            square=int(self._goal[row]) - first,
            square_colour=drawing.GREEN if found else drawing.GOLD,
            disc=int(self._position[row]) - first,
            head=self.head(row),
        )


class GridMazeEnv(TaskEnv):
    """One row of `GridMazeVectorEnv`, which documents it."""

    metadata: dict[str, Any] = drawing.render_metadata(frames_per_second=8)
    vector_class = GridMazeVectorEnv


class PositionedAgent(ReferenceAgent):
    """Base of agents whose privileged information is their own cell, which a learner has to work out."""

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
