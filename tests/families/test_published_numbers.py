"""The reference agents reach the numbers that they are known to reach.

Totals are of expected reward, over tasks shared by all agents. Their Monte Carlo error is made small by control
variates: what a task is worth by itself (its best arm, its mean arm, its number of switches) has a known mean, and the
part of a total that follows it linearly is taken out. A published number has an error of its own, that of about 1,000
lifetimes with the spread of ours, and is given to one decimal.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pytest

from plastic_rl.envs import ReferenceAgent, Task, distribution_for, make_vector

PUBLISHED_LIFETIMES = 1000
BANDIT, REVERSAL, MAZE = "plastic_rl/BernoulliBandit-v0", "plastic_rl/ReversalBandit-v0", "plastic_rl/GridMaze-v0"


class Score(NamedTuple):
    """Mean total, its standard error, and the standard error that 1,000 plain lifetimes would have."""

    mean: float
    error: float
    published_error: float

    def is_near(self, number: float, given_error: float = 0.0) -> bool:
        """Within four standard errors of a number known to `given_error`."""
        return abs(self.mean - number) < 4 * np.hypot(self.error, given_error)

    def is_near_published(self, number: float) -> bool:
        """Within three standard errors of a published number, or its rounding."""
        return abs(self.mean - number) < 3 * np.hypot(self.error, self.published_error) + 0.05


def totals(env_id: str, env_kwargs: dict[str, Any], agent: ReferenceAgent, split: str, tasks: list[Task]) -> Any:
    """Total expected reward of each lifetime, `(N,)`."""
    env = make_vector(env_id, len(tasks), env_kwargs=env_kwargs, split=split)
    agent.begin(tasks, seed=1)
    agent.attach(env)
    observations, _ = env.reset(seed=11, options={"tasks": tasks})
    state, start = None, np.ones(len(tasks), dtype=np.bool_)
    total = np.zeros(len(tasks))
    for _ in range(env.metadata["lifetime_steps"]):
        actions, state = agent.predict(observations, state, start)
        start = np.zeros(len(tasks), dtype=np.bool_)
        observations, rewards, terminated, _, info = env.step(actions)
        total += info.get("expected_reward", rewards)
    assert terminated.all()
    return total


def adjusted(total: npt.NDArray[np.float64], centred: list[npt.NDArray[np.float64]]) -> Score:
    """The mean of `total (N,)`, with control variates `centred` (each `(N,)`, of known mean 0)."""
    design = np.stack([np.ones_like(total), *centred], axis=1)
    coefficients, *_ = np.linalg.lstsq(design, total, rcond=None)
    residual = total - design @ coefficients
    return Score(
        float(coefficients[0]), float(residual.std() / len(total) ** 0.5), float(total.std() / PUBLISHED_LIFETIMES**0.5)
    )


def bandit_scores(steps: int, arms: int, number: int, names: set[str], split: str = "test") -> dict[str, Score]:
    """Scores of the named agents on uniform arms."""
    kwargs = {"arms": arms, "steps": steps}
    distribution = distribution_for(BANDIT, kwargs)
    tasks = distribution.tasks(split, 0, number)
    arms_of = np.array([task.params["probabilities"] for task in tasks], dtype=np.float64)
    best = arms_of.max(axis=1)
    controls = [
        best - arms / (arms + 1),
        best**2 - arms / (arms + 2),
        arms_of.mean(axis=1) - 1 / 2,
        (arms_of**2).mean(axis=1) - 1 / 3,
    ]
    agents = distribution.reference_agents(split)
    return {name: adjusted(totals(BANDIT, kwargs, agents[name], split, tasks), controls) for name in names}


# n, k: random, Thompson, UCB1 (tuned), limit and its error, oracle
TABLE = {
    (10, 5): (5.0, 5.7, 6.7, 6.660, 0.0, 8.33),
    (10, 10): (5.0, 5.5, 6.7, 6.714, 0.0, 9.09),
    (10, 50): (5.1, 5.2, 6.6, 6.714, 0.0, 9.80),
    (100, 5): (49.9, 74.7, 78.0, 78.65, 0.04, 83.33),
    (100, 10): (49.9, 76.7, 82.4, 83.76, 0.04, 90.91),
    (100, 50): (49.8, 64.5, 84.3, 85.56, 0.05, 98.04),
    (500, 5): (249.8, 402.0, 405.8, 408.8, 0.4, 416.7),
    (500, 10): (249.0, 429.5, 437.1, 442.3, 0.3, 454.5),
    (500, 50): (249.6, 427.2, 457.6, 465.5, 0.3, 490.2),
}


@pytest.mark.parametrize(
    ("steps", "arms"), [pytest.param(n, k, marks=[pytest.mark.slow] if n == 500 else []) for n, k in TABLE]
)
def test_bernoulli_bandits(steps, arms):
    random, thompson, ucb, limit, limit_error, oracle = TABLE[steps, arms]
    number = {10: 4000, 100: 1500, 500: 400}[steps]
    scores = bandit_scores(steps, arms, number, {"random", "thompson", "ucb1_tuned", "index", "oracle"})
    assert scores["random"].is_near(steps / 2)
    assert scores["random"].is_near_published(random)
    assert scores["thompson"].is_near_published(thompson)
    assert scores["ucb1_tuned"].is_near_published(ucb)
    # The last digit that the table gives is its rounding.
    assert scores["index"].is_near(limit, given_error=max(limit_error, 0.0005))
    assert scores["oracle"].mean == pytest.approx(steps * arms / (arms + 1), abs=1e-9 * steps)
    assert round(steps * arms / (arms + 1), 1) == pytest.approx(oracle, abs=0.05)
    assert scores["random"].mean < scores["thompson"].mean < scores["ucb1_tuned"].mean < scores["oracle"].mean
    assert distribution_for(BANDIT, {"arms": arms, "steps": steps}).limit_of("test") == "index"


@pytest.mark.parametrize(
    ("steps", "bayes", "thompson"), [(10, 6.0218, 5.71), (50, 31.9967, 31.15), (100, 64.9184, 63.83)]
)
def test_two_arms(steps, bayes, thompson):
    scores = bandit_scores(steps, 2, 4000, {"random", "thompson", "bayes", "oracle"})
    assert scores["bayes"].is_near(bayes)
    assert scores["thompson"].is_near(thompson, given_error=0.005)
    assert scores["random"].is_near(steps / 2)
    assert scores["oracle"].mean == pytest.approx(steps * 2 / 3, abs=1e-9 * steps)
    assert distribution_for(BANDIT, {"arms": 2, "steps": steps}).limit_of("test") == "bayes"


@pytest.mark.parametrize(("p_good", "bayes"), [(0.8, 74.07), (0.9, 85.10)])
def test_reversal_bandit(p_good, bayes):
    from plastic_rl.families.reversal_bandit import good_arms

    kwargs = {"p_good": p_good}
    distribution = distribution_for(REVERSAL, kwargs)
    tasks = distribution.tasks("test", 0, 6000)
    switches = np.array([np.count_nonzero(np.diff(good_arms(task, 100))) for task in tasks], dtype=np.float64)
    controls = [switches - 99 * 0.02, (switches == 0) - 0.98**99]
    agents = distribution.reference_agents("test")
    scores = {
        name: adjusted(totals(REVERSAL, kwargs, agent, "test", tasks), controls) for name, agent in agents.items()
    }
    assert scores["bayes"].is_near(bayes, given_error=0.005)
    assert scores["oracle"].mean == pytest.approx(100 * p_good, abs=1e-9)
    assert scores["random"].is_near(50.0)
    if p_good == 0.8:
        assert scores["win_stay_lose_shift"].is_near(67.1, given_error=0.05)


def test_reversal_bandit_on_the_shift_split_switches_more_often():
    from plastic_rl.families.reversal_bandit import good_arms

    distribution = distribution_for(REVERSAL)
    tasks = distribution.tasks("shift", 0, 4000)
    assert {task.params["hazard"] for task in tasks} == {0.05}
    switches = [np.count_nonzero(np.diff(good_arms(task, 100))) for task in tasks]
    assert np.mean(switches) == pytest.approx(99 * 0.05, abs=4 * (99 * 0.05 * 0.95 / 4000) ** 0.5)
    assert np.mean([good_arms(task, 100)[0] for task in tasks]) == pytest.approx(0.5, abs=4 * 0.5 / 4000**0.5)
    agents = distribution.reference_agents("shift")
    kwargs: dict[str, Any] = {}
    informed = totals(REVERSAL, kwargs, agents["bayes"], "shift", tasks).mean()
    uninformed = totals(REVERSAL, kwargs, distribution.reference_agents("test")["bayes"], "shift", tasks).mean()
    assert 80 > informed > uninformed + 0.2 > 65


def maze_path_cost(side: int) -> float:
    """Expected reward of the oracle in 200 steps, exactly: dynamic programming over the steps left, for each goal."""
    from plastic_rl.families.grid_maze import maze_of

    maze = maze_of(side)
    goals = [goal for goal in maze.free.tolist() if goal != maze.centre]
    results = []
    for goal in goals:
        others = maze.free[maze.free != goal]
        distances = maze.distances[others, goal]
        restart = np.zeros(201)
        for left in range(1, 201):
            reach = distances[distances <= left]
            restart[left] = ((10.0 + restart[left - reach]).sum()) / others.size
        first = int(maze.distances[maze.centre, goal])
        results.append(10.0 + restart[200 - first])
    return float(np.mean(results))


@pytest.mark.parametrize(
    ("side", "oracle", "search", "random"), [(9, 416.2, 377, 15), (11, 324.2, 269, 8), (13, 269.6, 200, 6)]
)
def test_grid_maze(side, oracle, search, random):
    from plastic_rl.families.grid_maze import maze_of

    exact = maze_path_cost(side)
    kwargs = {"side": side}
    distribution = distribution_for(MAZE, kwargs)
    assert distribution.limit_of("test") == "oracle"
    tasks = distribution.tasks("test", 0, 2000)
    maze = maze_of(side)
    goals = np.array([task.params["goal"] for task in tasks], dtype=np.int64)
    every_goal = maze.free[maze.free != maze.centre]
    # What a goal is worth follows from how far it lies from everywhere and from the centre.
    far = maze.distances[:, goals][maze.free].mean(axis=0)
    near_centre = maze.distances[maze.centre, goals].astype(np.float64)
    controls = [
        far - maze.distances[np.ix_(maze.free, every_goal)].mean(),
        1 / far - (1 / maze.distances[np.ix_(maze.free, every_goal)].mean(axis=0)).mean(),
        near_centre - maze.distances[maze.centre, every_goal].mean(),
    ]
    agents = distribution.reference_agents("test")
    scores = {name: adjusted(totals(MAZE, kwargs, agent, "test", tasks), controls) for name, agent in agents.items()}
    assert scores["oracle"].is_near(exact)
    assert exact == pytest.approx(oracle, abs=0.6)
    assert scores["search"].is_near(search, given_error=0.5)
    assert scores["random"].is_near(random, given_error=0.25)


def test_grid_maze_limits_of_a_split_that_holds_goals_out_are_its_own():
    kwargs = {"side": 9, "holdout": 0.25}
    distribution = distribution_for(MAZE, kwargs)
    for split in ("test", "holdout", "shift"):
        tasks = distribution.tasks(split, 0, 300)
        agents = distribution.reference_agents(split)
        oracle, search = (totals(MAZE, kwargs, agents[name], split, tasks).mean() for name in ("oracle", "search"))
        assert 350 < search + 20 < oracle < 480
