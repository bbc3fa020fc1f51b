"""What every task distribution keeps to, and what the built-in ones draw."""

from __future__ import annotations

import copy
import json
import pickle
from pathlib import Path

import numpy as np
import pytest

import plastic_rl
from plastic_rl.envs import DISTRIBUTIONS, distribution_for, load_plugin, make_vector
from plastic_rl.errors import SpaceError, TaskError, UnknownNameError
from plastic_rl.families.bernoulli_bandit import BernoulliBanditTasks
from plastic_rl.families.grid_maze import GridMazeTasks, Maze, maze_of

for _file in sorted((Path(__file__).resolve().parents[2] / "envs").glob("*.py")):
    load_plugin(str(_file))

every_distribution = pytest.mark.parametrize("env_id", [*DISTRIBUTIONS, "CartPole-v1"])


@every_distribution
def test_a_task_depends_on_split_and_index_alone(env_id):
    first, second = distribution_for(env_id), distribution_for(env_id)
    for split in first.splits:
        forwards = [first.task(split, index) for index in (0, 1, 2, 10**12)]
        backwards = [second.task(split, index) for index in (10**12, 2, 1, 0)]
        assert forwards == backwards[::-1]
        assert first.tasks(split, 1, 3) == forwards[1:3]
        assert [(task.split, task.index) for task in forwards] == [(split, index) for index in (0, 1, 2, 10**12)]
        assert all(task.family == first.family for task in forwards)


@every_distribution
def test_splits_are_disjoint_by_seed(env_id):
    distribution = distribution_for(env_id)
    seeds = [task.seed for split in distribution.splits for task in distribution.tasks(split, 0, 300)]
    assert len(set(seeds)) == 300 * len(distribution.splits)
    assert set(distribution.splits) >= {"train", "valid", "test"}


@every_distribution
def test_tasks_are_frozen_plain_and_copyable(env_id):
    task = distribution_for(env_id).task("test", 3)
    json.dumps(dict(task.params))
    assert copy.deepcopy(task) == task == pickle.loads(pickle.dumps(task))
    with pytest.raises(AttributeError):
        task.seed = 1
    with pytest.raises(TypeError):
        task.params["new"] = 1


@every_distribution
def test_unknown_splits_and_negative_indices_are_refused(env_id):
    distribution = distribution_for(env_id)
    with pytest.raises(UnknownNameError, match="Did you mean 'train'"):
        distribution.task("trian", 0)
    with pytest.raises(TaskError, match="0 or more, got -1"):
        distribution.task("test", -1)


@every_distribution
def test_reference_agents_act_for_any_number_of_rows_and_repeat_themselves(env_id):
    import gymnasium

    distribution = distribution_for(env_id)
    width = plastic_rl.make_vector(env_id, 1).single_observation_space.shape[0]
    space = plastic_rl.make_vector(env_id, 1).single_action_space
    agents = distribution.reference_agents("test")
    assert "random" in agents
    assert distribution.limit_of("test") in {"none", *agents}
    for agent in agents.values():
        if agent.needs_env:
            with pytest.raises(TaskError, match="attach"):
                agent.predict(np.zeros((3, width), dtype=np.float32))
            continue
        played = []
        for _ in range(2):
            agent.begin(distribution.tasks("test", 0, 3), seed=4)
            state, start, actions = None, np.ones(3, dtype=bool), []
            observation = np.zeros((3, width), dtype=np.float32)
            for _ in range(3):
                action, state = agent.predict(observation, state, start)
                start = np.zeros(3, dtype=bool)
                actions.append(action)
            played.append(np.array(actions))
        np.testing.assert_array_equal(*played)
        assert all(action in space for action in played[0][0])
        if agent.needs_task:
            with pytest.raises(TaskError, match="began with 3 tasks"):
                agent.predict(np.zeros((4, width), dtype=np.float32))
        with pytest.raises(SpaceError, match="flat observations"):
            agent.predict(np.zeros(width, dtype=np.float32))
    assert isinstance(gymnasium.spec(env_id).id, str)


def test_bandit_probabilities():
    distribution = BernoulliBanditTasks(arms=3)
    drawn = {
        split: np.array([task.params["probabilities"] for task in distribution.tasks(split, 0, 3000)])
        for split in distribution.splits
    }
    for split in ("train", "valid", "test"):
        assert drawn[split].shape == (3000, 3)
        assert drawn[split].mean() == pytest.approx(0.5, abs=4 * (1 / 12 / 9000) ** 0.5)
        assert drawn[split].var() == pytest.approx(1 / 12, rel=0.04)
    # Beta(2, 2): mean 1/2, variance 1/20.
    assert drawn["shift"].mean() == pytest.approx(0.5, abs=4 * (1 / 20 / 9000) ** 0.5)
    assert drawn["shift"].var() == pytest.approx(1 / 20, rel=0.05)
    with pytest.raises(TaskError, match="2 or more arms"):
        BernoulliBanditTasks(arms=1)


def test_maze_geometry():
    maze = Maze(9)
    assert maze.free.size == 41
    assert maze.centre == 40
    assert not maze.walls[4, 4]
    assert maze.walls[[0, 2, 4, 8], [5, 2, 2, 0]].all()
    assert maze.patches[maze.centre].tolist() == [0] * 9
    assert maze.patches[10].tolist() == [1, 1, 1, 1, 0, 0, 1, 0, 1]
    # North of the first free cell is wall, south of it free; two corners are twelve steps apart.
    assert maze.next_cell[10].tolist() == [10, 19, 10, 11]
    assert maze.distances[10, 70] == 12
    assert maze.distances[10, 10] == 0
    assert maze.distances[0, 10] == -1
    assert Maze(11).free.size == 9 * 9 - 4 * 4
    assert Maze(5).free.size == 9


def test_maze_distances_equal_breadth_first_search():
    maze = Maze(13)
    for source in (maze.centre, int(maze.free[0]), int(maze.free[17])):
        found = {source: 0}
        queue = [source]
        for cell in queue:
            for neighbour in maze.next_cell[cell].tolist():
                if neighbour not in found:
                    found[neighbour] = found[cell] + 1
                    queue.append(neighbour)
        assert found == {cell: maze.distances[source, cell] for cell in maze.free.tolist()}


def test_maze_goals_and_sides():
    distribution = GridMazeTasks(side=9)
    assert distribution.splits == ("train", "valid", "test", "shift")
    goals = [task.params["goal"] for task in distribution.tasks("train", 0, 2000)]
    free = set(maze_of(9).free.tolist()) - {40}
    assert set(goals) == free
    counts = np.unique(goals, return_counts=True)[1]
    assert ((counts - 50) ** 2 / 50).sum() < 80  # chi-squared with 39 degrees of freedom: 80 is beyond .9999
    shifted = distribution.tasks("shift", 0, 500)
    assert {task.params["side"] for task in shifted} == {7, 11}
    for task in shifted:
        assert task.params["goal"] in set(maze_of(task.params["side"]).free.tolist())
        assert task.params["goal"] != maze_of(task.params["side"]).centre
    assert {task.params["side"] for task in GridMazeTasks(side=5).tasks("shift", 0, 50)} == {7}


@pytest.mark.parametrize("bad", [{"wall_penalty": -1.0}, {"wall_penalty": float("nan")}, {"steps": 0}])
def test_impossible_maze_arguments_are_refused(bad):
    with pytest.raises(TaskError, match=r"wall_penalty, a cost, of 0 or more, got steps=(200|0), wall_penalty="):
        make_vector("plastic_rl/GridMaze-v0", 2, env_kwargs=bad)


def test_maze_holdout_is_disjoint_by_parameter():
    distribution = GridMazeTasks(side=9, holdout=0.25)
    assert distribution.splits == ("train", "valid", "test", "shift", "holdout")
    held = {task.params["goal"] for task in distribution.tasks("holdout", 0, 500)}
    assert len(held) == 10
    for split in ("train", "valid", "test"):
        kept = {task.params["goal"] for task in distribution.tasks(split, 0, 1000)}
        assert len(kept) == 30
        assert not kept & held
    assert {task.params["side"] for task in distribution.tasks("holdout", 0, 20)} == {9}
    with pytest.raises(TaskError, match="holdout needs 20 goal cells or more; a maze of side 5 has 8"):
        GridMazeTasks(side=5, holdout=0.2)
    with pytest.raises(TaskError, match="share of the goal cells"):
        GridMazeTasks(holdout=1.0)


@pytest.mark.parametrize("side", [4, 3, 8])
def test_impossible_sides(side):
    with pytest.raises(TaskError, match=f"odd and 5 or more, got {side}"):
        Maze(side)
