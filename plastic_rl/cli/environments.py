"""What `plastic-rl envs` shows and checks."""

from __future__ import annotations

import inspect
import textwrap
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from typing import Any, NamedTuple

import gymnasium
import numpy as np
from gymnasium.envs.registration import EnvSpec
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode

from plastic_rl.arrays import Array, FloatArray
from plastic_rl.config.signatures import argument_help
from plastic_rl.envs import (
    DISTRIBUTIONS,
    Lifetime,
    RowEnv,
    ScalarVectorEnv,
    TaskVectorEnv,
    distribution_for,
    make_vector,
)
from plastic_rl.envs.catalog import spec_of
from plastic_rl.envs.make import load_creator
from plastic_rl.envs.task import Task, TaskDistribution
from plastic_rl.envs.vector_env import RowVectorEnv
from plastic_rl.envs.wrappers import WRAPPERS
from plastic_rl.errors import PlasticRLError
from plastic_rl.feedback import FeedbackLayout

_NOT_ITS_OWN = {"self", "num_envs", "render_mode"}
ROWS = 3
STEPS = 50
TASKS = 20
"""Tasks looked at for parameters that differ."""
TRIED_TASKS = 6
"""Tasks lived for an effect of those parameters."""
TRIED_STEPS = 300
TRIAL_STEPS = 2000
"""Longest trial that is waited for."""
TRIES = 4
"""Sequences of actions that each of these tasks is lived with, until one shows a difference."""


def listing(*, everything: bool) -> str:
    """Return the ids that have a task distribution, or all registered ids, one a line with a summary, and wrappers."""
    names = sorted(gymnasium.registry) if everything else sorted(DISTRIBUTIONS)
    width = max(map(len, names))
    lines = [f"{name:<{width}}  {'' if everything else _summary(name)}".rstrip() for name in names]
    if not everything:
        lines += ["", "Any other Gymnasium id works too (envs list --all): its tasks are the seeds of its reset."]
        lines += ["", "Wrappers, which change the task of any of them (environment.wrappers in a config):"]
        longest = max(map(len, WRAPPERS))
        lines += [f"{name:<{longest}}  {_first_line(each)}" for name, each in WRAPPERS.items()]
    return "\n".join(lines)


def _entry_point(spec: EnvSpec) -> Any:
    """The class or function that documents the environment: the vectorised one, where it is written so."""
    entries = [entry for entry in (spec.vector_entry_point, spec.entry_point) if entry is not None]
    creators = [load_creator(spec.id, entry) for entry in entries]
    families = [creator for creator in creators if isinstance(creator, type) and issubclass(creator, TaskVectorEnv)]
    return [*families, *reversed(creators)][0]


def _summary(env_id: str) -> str:
    return _first_line(_entry_point(spec_of(env_id)))


def _first_line(documented: Any) -> str:
    return (inspect.getdoc(documented) or "").split("\n")[0]


def description(env_id: str) -> str:
    """Return the documentation of an environment, its arguments, spaces, splits and reference agents, or of a wrapper.

    Raises:
        UnknownNameError: If it is not registered.
        SpaceError: If its spaces are not supported.
    """
    if env_id in WRAPPERS:
        return _wrapper_description(env_id)
    spec = spec_of(env_id)
    creator = _entry_point(spec)
    distribution = distribution_for(env_id)
    with closing(make_vector(env_id, 1)) as env:
        metadata, observations, actions = env.metadata, env.single_observation_space, env.single_action_space
    steps = metadata["lifetime_steps"]
    facts = {
        "observation": f"{_space(observations)} with feedback",
        "actions": str(actions),
        "lifetime": f"{steps} steps" if steps else "of varying length",
        "trial": f"{metadata['steps_per_trial']} steps" if metadata["steps_per_trial"] else "of varying length",
        "tasks": f"{distribution.family}, splits {', '.join(distribution.splits)}"
        + (" (all but shift are one task)" if distribution.single_task else ""),
        "reference agents": ", ".join(distribution.reference_agents("test")) or "none",
        "limit": distribution.limit_of("test"),
    }
    width = max(map(len, facts))
    documentation = (inspect.getdoc(creator) or "(no documentation)").partition("\nArgs:\n")[0].rstrip()
    lines = [env_id, "", documentation, "", "Arguments:", *(_arguments(creator, spec) or ["    none"]), ""]
    return "\n".join(lines + [f"{name:<{width}}  {fact}" for name, fact in facts.items()])


def _space(space: Any) -> str:
    """A space in a line: of a wide Box, whose bounds fill many, its columns and the lowest and highest bound."""
    if str(space).count("\n") == 0 or not isinstance(space, gymnasium.spaces.Box):
        return str(space)
    return f"Box({space.low.min():g}, {space.high.max():g}, {space.shape}, {space.dtype}), narrower in some columns"


def _wrapper_description(name: str) -> str:
    """The documentation of a wrapper and its arguments, with their ranges, as a config takes them."""
    from plastic_rl.cli.reference import wrapper_lines

    documentation = (inspect.getdoc(WRAPPERS[name]) or "(no documentation)").partition("\nArgs:\n")[0].rstrip()
    return "\n".join(
        [f"{name} (a wrapper)", "", documentation, "", "Arguments:", *(f"    {line}" for line in wrapper_lines(name))]
    )


def _arguments(creator: Any, spec: EnvSpec) -> list[str]:
    """A line for each argument: its default, and what its declaration says of it."""
    declared = getattr(creator, "tasks_class", creator)
    helps: dict[str, str] = {}
    for kind in reversed(inspect.getmro(declared)) if inspect.isclass(declared) else [declared]:
        helps |= argument_help(kind.__doc__)
    found = []
    for name, parameter in inspect.signature(creator).parameters.items():
        if parameter.kind in {parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL} or name in _NOT_ITS_OWN:
            continue
        default = spec.kwargs.get(name, parameter.default)
        shown = name if default is parameter.empty else f"{name}={default!r}"
        line = f"{shown}: {helps[name]}" if name in helps else shown
        found.append(textwrap.fill(line, 120, initial_indent="    ", subsequent_indent="        "))
    return found


class Check(NamedTuple):
    """What was checked, whether training needs it, the problem if there is one, and else what there was to see."""

    name: str
    required: bool
    problem: str | None
    seen: str | None


class _Tried(NamedTuple):
    """The environment that is tried out, and the wrappers around it."""

    env_id: str
    wrappers: Sequence[Mapping[str, Any]]

    def make(self, rows: int) -> RowVectorEnv:
        return make_vector(self.env_id, rows, wrappers=self.wrappers)


def checks(env_id: str, wrappers: Sequence[Mapping[str, Any]] = ()) -> Iterator[Check]:
    """Try an environment out, with wrappers around it.

    Raises:
        UnknownNameError: If it is not registered.
        ConfigError: If a wrapper is none, or has nothing to change in it.
    """
    spec_of(env_id)
    tried = _Tried(env_id, wrappers)
    if wrappers:
        tried.make(1).close()
    for name, required, check in (
        ("Gymnasium's own check of the scalar environment", True, _check_scalar),
        ("vector environment with feedback in a finite, flat observation", True, _check_vector),
        ("equal seeds give equal lifetimes", True, _check_seeds),
        (
            "tasks are the same in any order, differ between train and test, and reach the environment",
            True,
            _check_tasks,
        ),
        ("state can be stored and restored, so that a resumed run goes on in mid-lifetime", False, _check_state),
        ("two trials of one lifetime with same_task_each_trial", False, _check_trials),
    ):
        yield Check(name, required, *_outcome(check, tried))


def _outcome(check: Callable[[_Tried], str | None], tried: _Tried) -> tuple[str | None, str | None]:
    """The problem, and what was seen."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            return None, check(tried)
    except Exception as error:  # noqa: BLE001 - the environment is foreign code and may raise anything
        known = isinstance(error, PlasticRLError | AssertionError)
        return f"{error}" if known else f"{type(error).__name__}: {error}", None


def _check_scalar(tried: _Tried) -> None:
    if tried.wrappers:
        row = make_vector(tried.env_id, 1, wrappers=tried.wrappers, autoreset_mode=AutoresetMode.DISABLED)
        scalar: gymnasium.Env[Any, Any] = RowEnv(row)
    elif spec_of(tried.env_id).entry_point is None:
        return
    else:
        scalar = gymnasium.make(tried.env_id, disable_env_checker=True)
    with closing(scalar) as env, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        check_env(env.unwrapped, skip_render_check=True)


def _rollout(tried: _Tried, seed: int) -> tuple[Any, list[Any]]:
    with closing(tried.make(ROWS)) as env:
        env.action_space.seed(0)
        seen: list[Any] = [env.reset(seed=seed)[0].copy()]
        for _ in range(STEPS):
            observation, reward, terminated, truncated, _ = env.step(env.action_space.sample())
            seen += [observation.copy(), reward, terminated, truncated]
        return env, seen


def _check_vector(tried: _Tried) -> None:
    env, seen = _rollout(tried, 0)
    space = env.single_observation_space
    layout = FeedbackLayout.from_dict(env.metadata["feedback"])
    assert layout.stop == space.shape[0], (
        f"the feedback ends at column {layout.stop}, the observation at {space.shape[0]}"
    )
    for observation in seen[1::4]:
        assert observation.shape == (ROWS, *space.shape), f"observations have shape {observation.shape}"
        assert np.isfinite(observation).all(), "an observation is NaN or infinite"
        assert all(space.contains(row) for row in observation), f"an observation lies outside its space {space}"
    for reward in seen[2::4]:
        assert np.isfinite(reward).all(), "a reward is NaN or infinite"


def _check_seeds(tried: _Tried) -> None:
    first, second = _rollout(tried, 3)[1], _rollout(tried, 3)[1]
    same = all(np.array_equal(one, other) for one, other in zip(first, second, strict=True))
    assert same, "two lifetimes with the same seed and actions differ: is there randomness beside self.np_random?"


def _check_tasks(tried: _Tried) -> None:
    distribution = distribution_for(tried.env_id)
    later, earlier = distribution.task("train", 5), distribution.task("train", 2)
    assert (distribution.task("train", 2), distribution.task("train", 5)) == (earlier, later), (
        "task(split, index) depends on which tasks were asked for before"
    )
    if not distribution.single_task:
        train = {task.seed for task in distribution.tasks("train", 0, 20)}
        test = {task.seed for task in distribution.tasks("test", 0, 20)}
        assert not train & test, "train and test share tasks"
    for split in distribution.splits:
        problem = distribution.limit_problem(split)
        assert problem is None, problem
    if tried.env_id in DISTRIBUTIONS and not distribution.single_task:
        _check_effect(tried, distribution)


def _check_effect(tried: _Tried, distribution: TaskDistribution) -> None:
    """Live several tasks with the same seed and actions: something that the agent can find out has to differ."""
    different: dict[tuple[Any, ...], Task] = {}
    for task in distribution.tasks("train", 0, TASKS):
        different.setdefault(tuple(sorted(task.params.items())), task)
    tasks = list(different.values())[:TRIED_TASKS]
    if len(tasks) < 2:
        return
    for attempt in range(TRIES):
        first, *others = (_lived(tried, task, attempt) for task in tasks)
        if any(not np.array_equal(first, other, equal_nan=True) for other in others):
            return
    raise AssertionError(
        f"the task changes nothing: {len(tasks)} tasks whose parameters differ ({', '.join(tasks[0].params)}) gave the "
        'same observations and rewards. Does reset read options["task"]?'
    )


def _lived(tried: _Tried, task: Task, attempt: int) -> FloatArray:
    """Observations, rewards and expected rewards of one lifetime, up to a number of steps, as one vector."""
    with closing(tried.make(1)) as env:
        env.action_space.seed(attempt)
        seen = [env.reset(seed=attempt, options={"tasks": [task]})[0].ravel()]
        for _ in range(TRIED_STEPS):
            observation, reward, terminated, truncated, info = env.step(env.action_space.sample())
            seen.append(np.asarray(reward, np.float64))
            if terminated[0] or truncated[0]:  # what is observed now is the next lifetime, of another task
                break
            seen += [observation.ravel(), np.ravel(info.get("expected_reward", 0.0))]
        return np.concatenate(seen).astype(np.float64)


def _check_state(tried: _Tried) -> None:
    with closing(tried.make(ROWS)) as env:
        env.reset(seed=0)
        env.action_space.seed(0)
        for _ in range(5):
            env.step(env.action_space.sample())
        state = env.get_state()
        assert not state.get("restarts"), "it cannot (no get_state and set_state): a resumed run starts new lifetimes"
        actions = [env.action_space.sample() for _ in range(5)]
        first = [env.step(action)[0].copy() for action in actions]
        env.set_state(state)
        second = [env.step(action)[0].copy() for action in actions]
        assert np.array_equal(first, second), "after set_state it goes on differently"


def _check_trials(tried: _Tried) -> str:
    """Live two trials that get the same seed, with the same actions, and say what repeats."""
    with closing(make_vector(tried.env_id, 1)) as env:
        if not (isinstance(env, ScalarVectorEnv) and isinstance(env.envs[0], Lifetime)):
            return "none, since it is a lifetime already"
    with closing(make_vector(tried.env_id, 1, trials=2, same_task_each_trial=True)) as env:
        env.action_space.seed(0)
        first = env.reset(seed=0)[0][0, : env.feedback.start].copy()
        actions = [env.action_space.sample() for _ in range(TRIAL_STEPS)]
        one = _trial(env, actions)
        assert one[-1][-1], f"not seen, since the first had not ended after {TRIAL_STEPS:,} steps"
        second = env.observe()[0, : env.feedback.start].copy()
        assert np.array_equal(first, second), (
            "their first observations differ: they are not one task, since reset draws from more than its seed"
        )
        other = _trial(env, actions[: len(one)])
    if len(one) == len(other) and np.array_equal(one, other):
        return (
            f"their first observations are equal, and so are the steps of the same {len(one):,} actions: starts and "
            "noise repeat with the task, so an agent may replay a lucky path"
        )
    return (
        f"their first observations are equal, the steps of the same {len(one):,} actions are not: some noise does not "
        "follow from the seed"
    )


def _trial(env: RowVectorEnv, actions: Sequence[Array]) -> list[FloatArray]:
    """Features, reward and end of each step, up to the trial's end, where 0 stands for the features of the next."""
    steps: list[FloatArray] = []
    for action in actions:
        observation, reward, _, _, info = env.step(action)
        ended = info["trial_end"][0]
        features = observation[0, : env.feedback.start]
        steps.append(np.concatenate([np.where(ended, 0.0, features), [reward[0], ended]]))
        if ended:
            break
    return steps
