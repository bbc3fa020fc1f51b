"""Which task distribution belongs to which environment id.

Built-in families are here from the start, by name (`plastic_rl.BUILT_IN_DISTRIBUTIONS`); a plugin adds its own with
`register_distribution`. An id without an entry gets `SeedTasks`: each task is a seed for the environment's reset.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, cast

import gymnasium
import numpy as np
from gymnasium.envs.registration import load_env_creator
from typing_extensions import override

from plastic_rl import BUILT_IN_DISTRIBUTIONS
from plastic_rl.envs.task import Params, RandomAgent, ReferenceAgent, Task, TaskDistribution
from plastic_rl.errors import ConfigError, PlasticRLError, UnknownNameError, nearest
from plastic_rl.registry import Registry

DistributionFactory = Callable[..., TaskDistribution]


class _Distributions(Registry[DistributionFactory | str]):
    """Factories by environment id; one that was registered as an entry point is imported when it is asked for."""

    def __getitem__(self, name: str) -> DistributionFactory:
        factory = super().__getitem__(name)
        return cast("DistributionFactory", load_env_creator(factory)) if isinstance(factory, str) else factory


DISTRIBUTIONS = _Distributions("task distribution")
for _env_id, _entry_point in BUILT_IN_DISTRIBUTIONS.items():
    DISTRIBUTIONS.register(_env_id, _entry_point)
register_distribution = DISTRIBUTIONS.register
"""Make a factory, called with the environment's own keyword arguments, the task distribution of an environment id."""


def distribution_for(env_id: str, env_kwargs: Mapping[str, Any] | None = None) -> TaskDistribution:
    """Return the task distribution of an environment as it is made with `env_kwargs`.

    Raises:
        UnknownNameError: If no such environment is registered.
        ConfigError: If the distribution takes no such keyword, or no such value.

    >>> distribution_for("CartPole-v1").task("train", 3).params["reset_seed"]
    9
    """
    kwargs = {**spec_of(env_id).kwargs, **(env_kwargs or {})}
    if env_id not in DISTRIBUTIONS:
        return SeedTasks(env_id, kwargs)
    factory = DISTRIBUTIONS[env_id]
    check_arguments(f"the task distribution of {env_id}", factory, kwargs)
    try:
        return factory(**kwargs)
    except PlasticRLError:
        raise
    except (TypeError, ValueError, LookupError, ArithmeticError) as error:
        # Values come from a config unchecked: a text for a number fails wherever it is first used.
        raise ConfigError(f"{env_id} has no tasks with the arguments {kwargs}: {error}") from error


def spec_of(env_id: str) -> gymnasium.envs.registration.EnvSpec:
    """Return the Gymnasium spec of `env_id`, or raise `UnknownNameError` with the nearest registered id."""
    try:
        return gymnasium.spec(env_id)
    except gymnasium.error.Error:
        close = nearest(env_id, gymnasium.registry)
        known = [name for name in gymnasium.registry if name.startswith("plastic_rl/")]
        hint = "Any registered Gymnasium id works too; ids of your own come with --plugin."
        raise UnknownNameError("environment", env_id, {*known, *([close] if close else [])}, hint) from None


def check_arguments(what: str, target: Callable[..., Any], kwargs: Mapping[str, Any]) -> None:
    """Raise `ConfigError` where `target` takes no such keyword, or wants a whole number and does not get one."""
    check_keywords(what, target, kwargs)
    for name, parameter in inspect.signature(target).parameters.items():
        value = kwargs.get(name, 0)
        whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
        if parameter.annotation in {int, "int"} and not whole:
            raise ConfigError(f"{what}: {name} must be a whole number, got {value!r}")


def check_keywords(what: str, target: Callable[..., Any], kwargs: Mapping[str, Any]) -> None:
    """Raise `ConfigError`, with the nearest valid name, where `target` does not take one of `kwargs`.

    >>> check_keywords("the maze", lambda side: None, {"sid": 9})
    Traceback (most recent call last):
        ...
    plastic_rl.errors.ConfigError: the maze takes no keyword 'sid' (did you mean 'side'?). Valid: side.
    """
    parameters = inspect.signature(target).parameters
    unknown = [name for name in kwargs if name not in parameters]
    if not unknown or any(each.kind is each.VAR_KEYWORD for each in parameters.values()):
        return
    near = {name: nearest(name, parameters) for name in unknown}
    listed = ", ".join(f"{name!r}" + (f" (did you mean {close!r}?)" if close else "") for name, close in near.items())
    raise ConfigError(f"{what} takes no keyword {listed}. Valid: {', '.join(parameters) or 'none'}.")


class SeedTasks(TaskDistribution):
    """Each task is a seed for the environment's reset; no two splits share one, and there is no limit.

    >>> tasks = SeedTasks("CartPole-v1")
    >>> [tasks.task(split, 1).params["reset_seed"] for split in tasks.splits]
    [3, 4, 5]
    """

    def __init__(self, env_id: str, env_kwargs: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        self.family = env_id
        self._env_kwargs = dict(env_kwargs or {})

    @override
    def task(self, split: str, index: int) -> Task:
        task = super().task(split, index)
        # Environments may take seeds of 32 bits only; splits stay disjoint.
        seed = index % (2**32 // len(self.splits)) * len(self.splits) + self.splits.index(split)
        return replace(task, seed=seed, params={"reset_seed": seed})

    @override
    def sample_params(self, generator: np.random.Generator, split: str) -> Params:
        """None: `task` counts the seeds, so that splits are disjoint."""
        return {}

    @override
    def reference_agents(self, split: str) -> dict[str, ReferenceAgent]:
        env = gymnasium.make(self.family, **self._env_kwargs)
        env.close()
        return {"random": RandomAgent(env.action_space)}
