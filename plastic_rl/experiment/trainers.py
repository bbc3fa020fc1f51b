"""How an experiment is trained: how its algorithm is made, for how long it learns, and how far a checkpoint got.

Training, resuming and reporting ask only these, for any algorithm in `ALGORITHMS` and for candidates.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from plastic_rl.algorithms import ALGORITHMS, PlasticAlgorithm
from plastic_rl.checkpoint import count_in
from plastic_rl.experiment.candidates import count_of
from plastic_rl.experiment.config import ExperimentConfig


def class_of(config: ExperimentConfig) -> type[PlasticAlgorithm]:
    """The class of the experiment's algorithm."""
    return ALGORITHMS[config.algorithm.name]


def make(config: ExperimentConfig, *, n_envs: int | None = None) -> PlasticAlgorithm:
    """Build the experiment's algorithm, in its environment, at its start.

    Args:
        config: The experiment.
        n_envs: Goes before the config's, where the algorithm has rows of its own.
    """
    cls, environment = class_of(config), config.environment
    # Not dumped: schedules and the like stay what they are.
    own = {name: getattr(config.algorithm, name) for name in type(config.algorithm).model_fields}
    own = {name: value for name, value in own.items() if name not in {"name", cls.budget}}
    if n_envs is not None and "n_envs" in own:
        own["n_envs"] = n_envs
    return cls(
        config.policy,
        environment.id,
        env_kwargs=environment.kwargs,
        trials=environment.trials,
        same_task_each_trial=environment.same_task_each_trial,
        policy_kwargs={"network": config.network},
        seed=config.seed,
        device=config.device,
        **own,
    )


def learn(config: ExperimentConfig, algorithm: Any, callback: Any, *, resumed: bool) -> None:
    """Train to the end, from the beginning or from where a checkpoint was restored."""
    remaining = total(config) - getattr(algorithm, algorithm.counter)
    if remaining > 0:
        algorithm.learn(
            **{algorithm.budget: remaining},
            callback=callback,
            log_interval=config.logging.interval,
            reset_num_timesteps=not resumed,
        )


def listen(algorithm: Any, say: Callable[[str], None]) -> None:
    """Let `say` be told what helpers of the algorithm report, if it has any."""
    if hasattr(algorithm, "engine"):
        algorithm.engine.say = say


def name_of(config: ExperimentConfig) -> str:
    """What trains: an algorithm by its name, or candidates."""
    return "candidates" if config.candidates else str(config.algorithm.name)


def unit(config: ExperimentConfig) -> str:
    """What training is counted in."""
    return "candidates" if config.candidates else class_of(config).unit


def total(config: ExperimentConfig) -> int:
    """Where training ends, in `unit`s."""
    return count_of(config) if config.candidates else int(getattr(config.algorithm, class_of(config).budget))


def done(config: ExperimentConfig, counters: Mapping[str, Any]) -> int:
    """`unit`s done at a checkpoint, from its document `algorithm`."""
    return count_in(counters, "candidates" if config.candidates else class_of(config).counter)


def largest_rows(config: ExperimentConfig) -> int:
    """Rows of the largest environment that training needs."""
    return 1 if config.candidates else class_of(config).largest_rows(config.algorithm)
