"""The outer loops that a config can name: how each is made, how long it runs, and how far a checkpoint got.

Training, resuming and reporting ask only these; a further algorithm is one more `OuterLoop` in `OUTER_LOOPS` and its
config model in `plastic_rl.experiment.config.AlgorithmConfig`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, ClassVar

from stable_baselines3.common.callbacks import BaseCallback

from plastic_rl.algorithms import CMAES, GridSearch, PlasticA2C, SupervisedGradient
from plastic_rl.algorithms.base import PlasticAlgorithm
from plastic_rl.engine import make_engine
from plastic_rl.envs.plugins import load_plugins, loaded_plugins
from plastic_rl.errors import ConfigError
from plastic_rl.experiment.config import CMAESConfig, ExperimentConfig, GradientConfig, GridSearchConfig
from plastic_rl.registry import Registry


class OuterLoop(ABC):
    """One algorithm, as one experiment configures it.

    Args:
        config: The experiment.

    Attributes:
        algorithm: Its class.
        unit: What training is counted in.
    """

    algorithm: ClassVar[type[PlasticAlgorithm]]
    unit: ClassVar[str] = "steps"

    def __init__(self, config: ExperimentConfig) -> None:
        self.config = config

    @abstractmethod
    def make(self, *, n_envs: int | None = None) -> PlasticAlgorithm:
        """Build it, in its environment, at its start; `n_envs` goes before the config's where there are rows."""

    @abstractmethod
    def learn(self, algorithm: Any, callback: BaseCallback, *, resumed: bool) -> None:
        """Train to the end, from the beginning or from where a checkpoint was restored."""

    @property
    @abstractmethod
    def total(self) -> int:
        """Where training ends, in `unit`s."""

    @abstractmethod
    def rows(self) -> int:
        """Rows of the largest environment that training needs."""

    @abstractmethod
    def done(self, counters: Mapping[str, Any]) -> int:
        """`unit`s done at a checkpoint, from its document `algorithm`."""

    def progress(self, algorithm: Any) -> tuple[int, int]:
        """`unit`s done, and all there will be."""
        return int(algorithm.num_timesteps), self.total

    def listen(self, algorithm: Any, say: Callable[[str], None]) -> None:  # noqa: B027 - most have no helpers
        """Let `say` be told what helpers of the algorithm report, if it has any."""

    def common(self) -> dict[str, Any]:
        """Arguments that every algorithm takes."""
        config = self.config
        return {
            "env_kwargs": config.environment.kwargs,
            "trials": config.environment.trials,
            "same_task_each_trial": config.environment.same_task_each_trial,
            "policy_kwargs": {"network": config.network},
            "seed": config.seed,
            "device": config.device,
        }


class GradientLoop(OuterLoop):
    """An algorithm that backpropagates through lifetimes, for a number of steps."""

    @property
    def settings(self) -> GradientConfig:
        """Its part of the config."""
        assert isinstance(self.config.algorithm, GradientConfig)
        return self.config.algorithm

    def make(self, *, n_envs: int | None = None) -> PlasticAlgorithm:
        """See `OuterLoop.make`."""
        own = self.settings
        others = {"name", "total_timesteps", "n_envs"}
        # Not dumped: schedules stay what they are.
        settings: dict[str, Any] = {name: getattr(own, name) for name in type(own).model_fields if name not in others}
        environment, rows = self.config.environment.id, n_envs or own.n_envs
        make: Callable[..., PlasticAlgorithm] = self.algorithm
        return make(self.config.policy, environment, n_envs=rows, **self.common(), **settings)

    def learn(self, algorithm: Any, callback: BaseCallback, *, resumed: bool) -> None:
        """See `OuterLoop.learn`."""
        remaining = self.total - algorithm.num_timesteps
        if remaining > 0:
            interval = self.config.logging.interval
            algorithm.learn(remaining, callback=callback, log_interval=interval, reset_num_timesteps=not resumed)

    @property
    def total(self) -> int:
        """Steps asked for."""
        return self.settings.total_timesteps

    def rows(self) -> int:
        """See `OuterLoop.rows`."""
        return self.settings.n_envs

    def done(self, counters: Mapping[str, Any]) -> int:
        """See `OuterLoop.done`."""
        return int(counters["num_timesteps"])

    def progress(self, algorithm: Any) -> tuple[int, int]:
        """See `OuterLoop.progress`."""
        # Whole rollouts: the last one may go beyond the steps asked for.
        rollout = algorithm.n_steps * algorithm.n_envs
        return int(algorithm.num_timesteps), -(-self.total // rollout) * rollout


class A2CLoop(GradientLoop):
    """`PlasticA2C`."""

    algorithm = PlasticA2C


class SupervisedGradientLoop(GradientLoop):
    """`SupervisedGradient`."""

    algorithm = SupervisedGradient


class CMAESLoop(OuterLoop):
    """`CMAES`, for a number of generations."""

    algorithm = CMAES
    unit = "generations"

    @property
    def settings(self) -> CMAESConfig:
        """Its part of the config."""
        assert isinstance(self.config.algorithm, CMAESConfig)
        return self.config.algorithm

    def make(self, *, n_envs: int | None = None) -> CMAES:
        """See `OuterLoop.make`."""
        own = self.settings
        settings = own.model_dump(exclude={"name", "generations", "engine"})
        engine = make_engine(**own.engine.model_dump(), prepare=partial(load_plugins, loaded_plugins()))
        return CMAES(self.config.policy, self.config.environment.id, engine=engine, **self.common(), **settings)

    def listen(self, algorithm: Any, say: Callable[[str], None]) -> None:
        """See `OuterLoop.listen`."""
        algorithm.engine.say = say

    def learn(self, algorithm: Any, callback: BaseCallback, *, resumed: bool) -> None:
        """See `OuterLoop.learn`."""
        remaining = self.total - algorithm.iterations
        if remaining > 0:
            algorithm.learn(
                generations=remaining,
                callback=callback,
                log_interval=self.config.logging.interval,
                reset_num_timesteps=not resumed,
            )

    @property
    def total(self) -> int:
        """Generations asked for."""
        return self.settings.generations

    def rows(self) -> int:
        """See `OuterLoop.rows`."""
        own = self.settings
        largest = own.population_size if own.restarts == "none" else own.individuals_per_chunk
        return min(own.individuals_per_chunk, largest) * own.lifetimes

    def done(self, counters: Mapping[str, Any]) -> int:
        """See `OuterLoop.done`."""
        return int(counters["iterations"])

    def progress(self, algorithm: Any) -> tuple[int, int]:
        """See `OuterLoop.progress`."""
        return int(algorithm.iterations), self.total


class GridSearchLoop(OuterLoop):
    """`GridSearch`, for all its candidates."""

    algorithm = GridSearch
    unit = "candidates"

    @property
    def settings(self) -> GridSearchConfig:
        """Its part of the config."""
        assert isinstance(self.config.algorithm, GridSearchConfig)
        return self.config.algorithm

    def make(self, *, n_envs: int | None = None) -> GridSearch:
        """See `OuterLoop.make`."""
        if self.config.checkpoint.interval != 1 or self.config.evaluation.valid_tasks < 1:
            raise ConfigError(
                "a grid search scores every candidate on valid: set checkpoint.interval to 1 and "
                "evaluation.valid_tasks to 1 or more, got "
                f"{self.config.checkpoint.interval} and {self.config.evaluation.valid_tasks}."
            )
        return GridSearch(self.config.policy, self.config.environment.id, grid=self.settings.grid, **self.common())

    def learn(self, algorithm: Any, callback: BaseCallback, *, resumed: bool) -> None:
        """See `OuterLoop.learn`."""
        if algorithm.iterations < self.total:
            interval = self.config.logging.interval
            algorithm.learn(callback=callback, log_interval=interval, reset_num_timesteps=not resumed)

    @property
    def total(self) -> int:
        """Candidates of the grid."""
        return math.prod(len(values) for values in self.settings.grid.values())

    def rows(self) -> int:
        """See `OuterLoop.rows`."""
        return 1

    def done(self, counters: Mapping[str, Any]) -> int:
        """See `OuterLoop.done`."""
        return int(counters["iterations"])


OUTER_LOOPS: Registry[type[OuterLoop]] = Registry("algorithm")
OUTER_LOOPS.register("a2c", A2CLoop)
OUTER_LOOPS.register("cma_es", CMAESLoop)
OUTER_LOOPS.register("grid_search", GridSearchLoop)
OUTER_LOOPS.register("supervised_gradient", SupervisedGradientLoop)


def outer_loop(config: ExperimentConfig) -> OuterLoop:
    """Return the outer loop of an experiment."""
    return OUTER_LOOPS[config.algorithm.name](config)
