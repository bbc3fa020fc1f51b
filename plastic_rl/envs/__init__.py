"""Environments and their tasks: what a task family is made of, and any other Gymnasium environment as a lifetime.

`make_vector` is the door for training and evaluation, `distribution_for` that to the tasks of an environment. A family
is a subclass of `TaskVectorEnv`, written once and vectorised, and of `TaskDistribution`; the built-in ones are in
`plastic_rl.families`. `Lifetime` and `ScalarVectorEnv` do the same for any scalar environment; `wrappers` (imported
where they are used) change what an agent sees and does in either. NumPy only.
Data flow: task distribution -> environment -> observation with feedback -> agent -> action -> environment.
"""

from __future__ import annotations

from plastic_rl.envs.catalog import DISTRIBUTIONS, SeedTasks, distribution_for, register_distribution
from plastic_rl.envs.lifetime import Lifetime
from plastic_rl.envs.make import make_vector
from plastic_rl.envs.plugins import load_entry_point_plugins, load_plugin
from plastic_rl.envs.row_env import RowEnv
from plastic_rl.envs.scalar_vector_env import ScalarVectorEnv
from plastic_rl.envs.task import (
    STANDARD_SPLITS,
    Agent,
    Params,
    RandomAgent,
    ReferenceAgent,
    Task,
    TaskDistribution,
    first_task,
    number_of,
)
from plastic_rl.envs.task_vector_env import Outcome, TaskEnv, TaskVectorEnv
from plastic_rl.envs.vector_env import RowOptions, RowVectorEnv

__all__ = [
    "DISTRIBUTIONS",
    "STANDARD_SPLITS",
    "Agent",
    "Lifetime",
    "Outcome",
    "Params",
    "RandomAgent",
    "ReferenceAgent",
    "RowEnv",
    "RowOptions",
    "RowVectorEnv",
    "ScalarVectorEnv",
    "SeedTasks",
    "Task",
    "TaskDistribution",
    "TaskEnv",
    "TaskVectorEnv",
    "distribution_for",
    "first_task",
    "load_entry_point_plugins",
    "load_plugin",
    "make_vector",
    "number_of",
    "register_distribution",
]
