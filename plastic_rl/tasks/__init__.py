"""Tasks: what they are, how they are dealt out, and what hand-made agents reach on them.

`distribution_for(env_id, env_kwargs)` is the door; families of users come in through `register_distribution`.
NumPy only; nothing here steps an environment.
"""

from __future__ import annotations

from plastic_rl.tasks.agents import RandomAgent, SeededAgent, as_rows
from plastic_rl.tasks.base import STANDARD_SPLITS, Agent, Params, ReferenceAgent, Task, TaskDistribution, number_of
from plastic_rl.tasks.bernoulli_bandit import BernoulliBanditTasks
from plastic_rl.tasks.catalog import DISTRIBUTIONS, distribution_for, register_distribution
from plastic_rl.tasks.classification import ClassificationTasks, SupervisedClassificationTasks
from plastic_rl.tasks.grid_maze import GridMazeTasks
from plastic_rl.tasks.reversal_bandit import ReversalBanditTasks
from plastic_rl.tasks.seeds import SeedTasks
from plastic_rl.tasks.source import TaskSource, first_task
from plastic_rl.tasks.swapped_cartpole import SwappedCartPoleTasks

for _env_id, _factory in (
    ("plastic_rl/BernoulliBandit-v0", BernoulliBanditTasks),
    ("plastic_rl/ReversalBandit-v0", ReversalBanditTasks),
    ("plastic_rl/GridMaze-v0", GridMazeTasks),
    ("plastic_rl/SwappedCartPole-v0", SwappedCartPoleTasks),
    ("plastic_rl/Classification-v0", ClassificationTasks),
    ("plastic_rl/SupervisedClassification-v0", SupervisedClassificationTasks),
):
    register_distribution(_env_id, _factory)

__all__ = [
    "DISTRIBUTIONS",
    "STANDARD_SPLITS",
    "Agent",
    "BernoulliBanditTasks",
    "ClassificationTasks",
    "GridMazeTasks",
    "Params",
    "RandomAgent",
    "ReferenceAgent",
    "ReversalBanditTasks",
    "SeedTasks",
    "SeededAgent",
    "SupervisedClassificationTasks",
    "SwappedCartPoleTasks",
    "Task",
    "TaskDistribution",
    "TaskSource",
    "as_rows",
    "distribution_for",
    "first_task",
    "number_of",
    "register_distribution",
]
