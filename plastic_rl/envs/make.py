"""The one door to environments for training and evaluation."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium
from gymnasium.envs.registration import load_env_creator
from gymnasium.vector import AutoresetMode

from plastic_rl.envs.catalog import check_keywords, distribution_for, spec_of
from plastic_rl.envs.lifetime import refuse_trials
from plastic_rl.envs.scalar_vector_env import ScalarVectorEnv
from plastic_rl.envs.task_vector_env import TaskVectorEnv
from plastic_rl.envs.vector_env import RowOptions, RowVectorEnv
from plastic_rl.errors import ConfigError, SpaceError


def make_vector(
    env_id: str,
    num_envs: int,
    *,
    env_kwargs: Mapping[str, Any] | None = None,
    split: str = "train",
    task_start: int = 0,
    task_stop: int | None = None,
    trials: int = 1,
    same_task_each_trial: bool | None = None,
    wrappers: Sequence[Mapping[str, Any]] = (),
    autoreset_mode: AutoresetMode = AutoresetMode.SAME_STEP,
    render_mode: str | None = None,
) -> RowVectorEnv:
    """Make a vector environment of lifetimes from any registered id: built in, of a plugin, or foreign.

    Subclasses of `TaskVectorEnv` run natively vectorised; every other id is made `num_envs` times, wrapped in
    `Lifetime`, and stepped in this process. The observation is always a flat float32 Box with feedback.

    Args:
        env_id: A Gymnasium id.
        num_envs: Number of rows, `B`.
        env_kwargs: The environment's own keyword arguments.
        split: Split of the tasks; see `RowOptions` for this and the other options.
        task_start: Index of the first task.
        task_stop: One past the last task, or None.
        trials: Inner episodes in a lifetime, for environments that are no lifetimes by themselves (see `Lifetime`).
        same_task_each_trial: Whether these share the lifetime's seed; None: where tasks are reset seeds.
        wrappers: Changes of the task beneath the feedback, see `RowOptions`.
        autoreset_mode: What happens after a lifetime ended.
        render_mode: As the environment knows them.

    Raises:
        UnknownNameError: If no such environment or split exists.
        ConfigError: If the environment takes no such keyword, render mode, number of trials or wrapper.
        SpaceError: If its spaces are unsupported.
        TaskError: If the range of tasks is empty.

    >>> envs = make_vector("plastic_rl/BernoulliBandit-v0", 4, env_kwargs={"arms": 2})
    >>> envs.reset(seed=0)[0].tolist()[0]
    [0.0, 0.0, 0.0, 1.0, 0.0]
    """
    spec = spec_of(env_id)
    kwargs = {**spec.kwargs, **(env_kwargs or {})}
    creator = None if spec.vector_entry_point is None else load_creator(env_id, spec.vector_entry_point)
    native: Any = creator if isinstance(creator, type) and issubclass(creator, TaskVectorEnv) else None
    if native is None and spec.entry_point is None:
        raise ConfigError(
            f"{env_id} has a vector_entry_point that is no TaskVectorEnv, and no entry_point; subclass "
            "plastic_rl.envs.TaskVectorEnv, or register a scalar environment too"
        )
    creator = native or load_creator(env_id, spec.entry_point)
    reserved = sorted(set(kwargs) & {*RowOptions.__annotations__, "num_envs"})
    if reserved:
        raise ConfigError(f"{', '.join(reserved)}: give this to make_vector itself, not in the env_kwargs of {env_id}")
    check_keywords(env_id, creator if native is None else native.tasks_class, kwargs)
    modes = getattr(creator, "metadata", {}).get("render_modes")
    if render_mode is not None and modes is not None and render_mode not in modes:
        raise ConfigError(f"{env_id} has no render mode {render_mode!r}. Valid: {', '.join(modes) or 'none'}.")
    options: RowOptions = {
        "distribution": distribution_for(env_id, env_kwargs),
        "split": split,
        "task_start": task_start,
        "task_stop": task_stop,
        "autoreset_mode": autoreset_mode,
        "wrappers": wrappers,
    }
    if native is None:
        return ScalarVectorEnv(
            [_make_scalar(env_id, env_kwargs, render_mode) for _ in range(num_envs)],
            trials=trials,
            same_task_each_trial=same_task_each_trial,
            **options,
        )
    refuse_trials(env_id, trials, same_task_each_trial)
    env: TaskVectorEnv[Any] = native(num_envs, render_mode=render_mode, **options)
    env.spec = copy.deepcopy(spec)
    env.spec.kwargs = dict(kwargs)
    return env


def load_creator(env_id: str, entry: Any) -> Any:
    """Return what is behind an entry point of `env_id`, or raise `ConfigError` where a package for it is missing."""
    try:
        return entry if callable(entry) else load_env_creator(str(entry))
    except (ImportError, gymnasium.error.DependencyNotInstalled) as missing:
        raise ConfigError(f"{env_id} needs a package that is not installed: {missing}") from missing


def _make_scalar(env_id: str, env_kwargs: Mapping[str, Any] | None, render_mode: str | None) -> gymnasium.Env[Any, Any]:
    try:
        # Not every constructor takes a render mode.
        mode: dict[str, Any] = {} if render_mode is None else {"render_mode": render_mode}
        return gymnasium.make(env_id, **mode, **(env_kwargs or {}))
    except gymnasium.error.DependencyNotInstalled as missing:
        raise ConfigError(f"{env_id} needs a package that is not installed: {missing}") from missing
    except AttributeError as broken:
        raise SpaceError(f"{env_id} is no complete Gymnasium environment: {broken}") from broken
    except (TypeError, ValueError, LookupError, ArithmeticError, gymnasium.error.Error) as refused:
        raise ConfigError(
            f"{env_id} cannot be made with {dict(env_kwargs or {})}: {type(refused).__name__}: {refused}"
        ) from refused
