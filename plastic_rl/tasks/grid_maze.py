"""Grid mazes: their geometry, their tasks, and the agents that a learner is laid beside."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
from gymnasium import spaces

from plastic_rl.errors import TaskError
from plastic_rl.tasks.agents import BoolArray, FloatArray, IntArray, RandomAgent, SeededAgent, argmax_at_random, as_rows
from plastic_rl.tasks.base import STANDARD_SPLITS, Params, ReferenceAgent, TaskDistribution

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
        self.patches: npt.NDArray[np.float32] = np.ones((cells, 9), dtype=np.float32)
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


class PositionedAgent(SeededAgent):
    """Base of agents that know their own cell, from the environment they are attached to."""

    needs_env = True

    def __init__(self) -> None:
        super().__init__()
        self._env: Any = None

    def attach(self, env: Any) -> None:
        """See `ReferenceAgent`; `env` is the vector environment whose rows the agent acts in."""
        self._env = env.unwrapped

    def _places(self, rows: int) -> tuple[IntArray, IntArray]:
        """Side and present cell of each row, `(B,)` each.

        Raises:
            TaskError: If the agent is attached to no environment, or to one of another number of rows.
        """
        known = {} if self._env is None else self._env.privileged()
        if "position" not in known or len(known["position"]) != rows:
            raise TaskError(
                f"{type(self).__name__} must know where it is: call attach(env) with the vector environment of "
                f"{rows} rows that it acts in"
            )
        return known["side"], known["position"]

    def _towards(self, side: int, position: IntArray, target: IntArray, deterministic: bool) -> IntArray:
        """A first move `(R,)` of a shortest path from `position (R,)` to `target (R,)`."""
        maze = maze_of(side)
        nearness = -maze.distances[maze.next_cell[position], target[:, None]].astype(np.float64)
        return argmax_at_random(nearness, None if deterministic else self._generator)


class ShortestPathAgent(PositionedAgent):
    """Oracle: always goes straight to the hidden goal."""

    needs_task = True

    def predict(
        self,
        observation: npt.NDArray[Any] | dict[str, npt.NDArray[Any]],
        state: Any = None,
        episode_start: npt.NDArray[np.bool_] | None = None,
        deterministic: bool = False,
    ) -> tuple[npt.NDArray[Any], Any]:
        """See `Agent`; `deterministic` breaks ties to the lowest move."""
        rows, _ = as_rows(observation, episode_start, state)
        sides, positions = self._places(len(rows))
        goals = np.array([task.params["goal"] for task in self._known_tasks(len(rows))], dtype=np.int64)
        actions = np.zeros(len(rows), dtype=np.int64)
        for side in np.unique(sides).tolist():
            here = np.flatnonzero(sides == side)
            actions[here] = self._towards(side, positions[here], goals[here], deterministic)
        return actions, True


class SearchAgent(PositionedAgent):
    """Goes to the nearest cell it has not visited until it finds the goal, then back there by shortest paths.

    State: visited cells `(B, C)` bool, the known goal `(B,)` (-1: unknown), the cell of the last move `(B,)`.
    """

    def predict(
        self,
        observation: npt.NDArray[Any] | dict[str, npt.NDArray[Any]],
        state: Any = None,
        episode_start: npt.NDArray[np.bool_] | None = None,
        deterministic: bool = False,
    ) -> tuple[npt.NDArray[Any], Any]:
        """See `Agent`; `deterministic` breaks ties to the lowest cell and move."""
        rows, start = as_rows(observation, episode_start, state)
        sides, positions = self._places(len(rows))
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
            nearest = maze.free[argmax_at_random(unseen, None if deterministic else self._generator)]
            target = np.where(goal[here] >= 0, goal[here], nearest)
            actions[here] = self._towards(side, positions[here], target, deterministic)
            entered[here] = maze.next_cell[positions[here], actions[here]]
        return actions, {"visited": visited, "goal": goal, "entered": entered}
