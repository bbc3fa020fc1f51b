"""The one door to environments for training and evaluation."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping
from typing import Any

import gymnasium
from gymnasium.envs.registration import load_env_creator
from gymnasium.vector import AutoresetMode

from plastic_rl.envs.catalog import check_keywords, distribution_for, keywords_of, spec_of
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
    autoreset_mode: AutoresetMode = AutoresetMode.SAME_STEP,
    render_mode: str | None = None,
) -> RowVectorEnv:
    """Make a vector environment of lifetimes from any registered id: built in, of a plugin, or foreign.

    Subclasses of `TaskVectorEnv` run natively vectorised; every other id is made `num_envs` times, wrapped in
    `Lifetime`, and stepped in this process. The observation is always a flat float32 Box with feedback.
    `metadata` holds `feedback` (as `FeedbackLayout.to_dict`), `lifetime_steps` and `steps_per_trial` (None where they
    vary), `autoreset_mode`, `render_modes` and `render_fps`.

    Args:
        env_id: A Gymnasium id.
        num_envs: Number of rows, `B`.
        env_kwargs: The environment's own keyword arguments.
        split: Split of the tasks.
        task_start: Index of the first task.
        task_stop: One past the last task (then they repeat); None: no end.
        trials: Inner episodes in a lifetime, for environments that are no lifetimes by themselves.
        same_task_each_trial: Whether these share the lifetime's seed; None: where tasks are reset seeds (`Lifetime`).
        autoreset_mode: What happens after a lifetime ended.
        render_mode: As the environment knows them.

    Raises:
        UnknownNameError: If no such environment or split exists.
        ConfigError: If the environment takes no such keyword, render mode or number of trials.
        SpaceError: If its spaces are unsupported.
        TaskError: If the range of tasks is empty.

    >>> envs = make_vector("plastic_rl/BernoulliBandit-v0", 4, env_kwargs={"arms": 2})
    >>> envs.reset(seed=0)[0].tolist()[0]
    [0.0, 0.0, 0.0, 1.0, 0.0]
    """
    spec = spec_of(env_id)
    kwargs = {**spec.kwargs, **(env_kwargs or {})}
    native = _native_class(spec)
    if native is None and spec.entry_point is None:
        raise ConfigError(
            f"{env_id} has a vector_entry_point that is no TaskVectorEnv, and no entry_point; subclass "
            "plastic_rl.envs.TaskVectorEnv, or register a scalar environment too"
        )
    creator = native or load_creator(env_id, spec.entry_point)
    check_keywords(env_id, _keywords(env_id, creator, kwargs), kwargs)
    _check_render_mode(env_id, creator, render_mode)
    options: RowOptions = {
        "distribution": distribution_for(env_id, env_kwargs),
        "split": split,
        "task_start": task_start,
        "task_stop": task_stop,
        "autoreset_mode": autoreset_mode,
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


def _native_class(spec: gymnasium.envs.registration.EnvSpec) -> Any:
    """The `TaskVectorEnv` subclass behind an id, or None."""
    entry = spec.vector_entry_point
    if entry is None:
        return None
    creator = load_creator(spec.id, entry)
    return creator if isinstance(creator, type) and issubclass(creator, TaskVectorEnv) else None


def load_creator(env_id: str, entry: Any) -> Any:
    """Return the class or function behind an entry point of `env_id`.

    Raises:
        ConfigError: If it needs a package that is not installed.
    """
    try:
        return entry if callable(entry) else load_env_creator(str(entry))
    except (ImportError, gymnasium.error.DependencyNotInstalled) as missing:
        raise ConfigError(f"{env_id} needs a package that is not installed: {missing}") from missing


def _keywords(env_id: str, creator: Any, kwargs: Mapping[str, Any]) -> list[str] | None:
    """What may stand in `env_kwargs`, None for anything."""
    reserved = sorted(set(kwargs) & {*RowOptions.__annotations__, "num_envs"})
    if reserved:
        raise ConfigError(f"{', '.join(reserved)}: give this to make_vector itself, not in the env_kwargs of {env_id}")
    if not (isinstance(creator, type) and issubclass(creator, TaskVectorEnv)):
        return keywords_of(creator)
    # The `**options` of a family are the reserved names alone, so that its own keywords are those written out.
    parameters = inspect.signature(creator).parameters.values()
    return [parameter.name for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY] or None


def _check_render_mode(env_id: str, creator: Any, render_mode: str | None) -> None:
    modes = getattr(creator, "metadata", {}).get("render_modes")
    if render_mode is not None and modes is not None and render_mode not in modes:
        raise ConfigError(f"{env_id} has no render mode {render_mode!r}. Valid: {', '.join(modes) or 'none'}.")


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
