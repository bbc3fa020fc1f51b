"""Environments: the built-in task families, and any other Gymnasium environment as a lifetime.

`make_vector` is the door for training and evaluation. A family is a subclass of `TaskVectorEnv`, written once and
vectorised; `TaskEnv` is its scalar form. `Lifetime` and `ScalarVectorEnv` do the same for any scalar environment.
Data flow: task source -> environment -> observation with feedback -> agent -> action -> environment.
"""

from __future__ import annotations

from plastic_rl.envs.bernoulli_bandit import BernoulliBanditEnv, BernoulliBanditVectorEnv
from plastic_rl.envs.classification import (
    ClassificationEnv,
    ClassificationVectorEnv,
    SupervisedClassificationEnv,
    SupervisedClassificationVectorEnv,
)
from plastic_rl.envs.grid_maze import GridMazeEnv, GridMazeVectorEnv
from plastic_rl.envs.lifetime import Lifetime
from plastic_rl.envs.make import make_vector
from plastic_rl.envs.plugins import load_entry_point_plugins, load_plugin
from plastic_rl.envs.reversal_bandit import ReversalBanditEnv, ReversalBanditVectorEnv
from plastic_rl.envs.row_vector_env import RowOptions, RowVectorEnv
from plastic_rl.envs.scalar_vector_env import ScalarVectorEnv
from plastic_rl.envs.swapped_cartpole import SwappedCartPoleEnv, SwappedCartPoleVectorEnv
from plastic_rl.envs.task_env import TaskEnv
from plastic_rl.envs.task_vector_env import Outcome, TaskVectorEnv

__all__ = [
    "BernoulliBanditEnv",
    "BernoulliBanditVectorEnv",
    "ClassificationEnv",
    "ClassificationVectorEnv",
    "GridMazeEnv",
    "GridMazeVectorEnv",
    "Lifetime",
    "Outcome",
    "ReversalBanditEnv",
    "ReversalBanditVectorEnv",
    "RowOptions",
    "RowVectorEnv",
    "ScalarVectorEnv",
    "SupervisedClassificationEnv",
    "SupervisedClassificationVectorEnv",
    "SwappedCartPoleEnv",
    "SwappedCartPoleVectorEnv",
    "TaskEnv",
    "TaskVectorEnv",
    "load_entry_point_plugins",
    "load_plugin",
    "make_vector",
]
