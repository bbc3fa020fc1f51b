"""Scalar environments stepped one after the other in this process, with tasks and lifetimes."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Unpack

import gymnasium
import numpy as np
from gymnasium import spaces

from plastic_rl.arrays import Array, BoolArray, IntArray, SingleArray
from plastic_rl.envs.actions import ActionCodec
from plastic_rl.envs.catalog import SeedTasks, distribution_for
from plastic_rl.envs.lifetime import CONTRACT, Lifetime, refuse_trials
from plastic_rl.envs.task import Task
from plastic_rl.envs.vector_env import RowOptions, RowVectorEnv, StepResult, stored_array
from plastic_rl.errors import (
    CheckpointError,
    ConfigError,
    EnvironmentFaultError,
    NonFiniteError,
    SpaceError,
    damage_is_refused,
)
from plastic_rl.feedback import FeedbackLayout

_WITHOUT_SPEC = "an environment without a spec"


class ScalarVectorEnv(RowVectorEnv):
    """Any scalar Gymnasium environments as the rows of a vector environment.

    Each is wrapped in `Lifetime` unless its observation holds feedback already. A row's k-th lifetime begins with
    `env.reset(seed=..., options={"task": task})`, the seed following from the row's own and k; where no distribution is
    known, the task is the seed (`SeedTasks`) and there are no options.

    Args:
        envs: The rows, B of them, with equal spaces.
        trials: Inner episodes in a lifetime (see `Lifetime`).
        same_task_each_trial: See `Lifetime`; None: true where tasks are reset seeds.
        options: See `RowOptions`; without a distribution, that of the environment's id (else tasks are reset seeds).

    Raises:
        SpaceError: If the spaces are unsupported, or differ between rows.

    >>> envs = ScalarVectorEnv([gymnasium.make("CartPole-v1") for _ in range(3)])
    >>> envs.reset(seed=0)[0].shape  # 4 features, 2 actions, reward, trial_start, t/T
    (3, 9)
    """

    def __init__(
        self,
        envs: Sequence[gymnasium.Env[Any, Any]],
        *,
        trials: int = 1,
        same_task_each_trial: bool | None = None,
        **options: Unpack[RowOptions],
    ) -> None:
        if not envs:
            raise ValueError("a vector environment needs 1 or more environments")
        if "feedback" in envs[0].metadata:
            refuse_trials(str(envs[0]), trials, same_task_each_trial)
        spec = envs[0].spec
        distribution = options.get("distribution")
        if distribution is None:
            distribution = distribution_for(spec.id, _own_keywords(spec.kwargs)) if spec else SeedTasks(_WITHOUT_SPEC)
        if same_task_each_trial is None:
            same_task_each_trial = isinstance(distribution, SeedTasks)
        self.envs = [env if "feedback" in env.metadata else Lifetime(env, trials, same_task_each_trial) for env in envs]
        first = self.envs[0]
        observation_space = first.observation_space
        if not isinstance(observation_space, spaces.Box):
            raise SpaceError(f"a lifetime's observation must be a flat Box, got {observation_space}")
        for env in self.envs[1:]:
            if env.observation_space != observation_space or env.action_space != first.action_space:
                raise SpaceError(
                    f"all rows must have equal spaces, got {env.observation_space} and {env.action_space} beside "
                    f"{observation_space} and {first.action_space}"
                )
        single = trials == 1
        super().__init__(
            len(envs),
            observation_space=observation_space,
            codec=ActionCodec(first.action_space),
            feedback=FeedbackLayout.from_dict(first.metadata["feedback"]),
            distribution=distribution,
            lifetime_steps=first.metadata.get("lifetime_steps") if single else None,
            steps_per_trial=first.metadata.get("steps_per_trial") if single else None,
            options=options,
        )
        self.metadata = {**first.metadata, **self.metadata}
        self.render_mode = envs[0].render_mode
        self._name = str(envs[0]) if spec is None else spec.id
        self._bounds = (observation_space.low, observation_space.high)
        self._warned = False
        self._time: IntArray = np.zeros(self.num_envs, dtype=np.int64)
        self._observations: SingleArray = np.zeros((self.num_envs, *(observation_space.shape or ())), dtype=np.float32)

    def _reset_seed(self, row: int) -> int:
        """Seed of the row's present lifetime: the row's own in its first one, derived from it in later ones."""
        lifetime = int(self._lifetimes[row])
        if lifetime == 0:
            return self._seeds[row]
        sequence = np.random.SeedSequence(self._seeds[row], spawn_key=(lifetime,))
        return int(sequence.generate_state(1, np.uint32)[0])

    def _begin_rows(self, rows: IntArray, tasks: Sequence[Task], generators: Sequence[np.random.Generator]) -> None:
        for row, task in zip(rows.tolist(), tasks, strict=True):
            self._time[row] = 0
            with self._naming(row):
                if "reset_seed" in task.params:
                    self._observations[row], _ = self.envs[row].reset(seed=int(task.seed))
                else:
                    options = {"task": task}
                    self._observations[row], _ = self.envs[row].reset(seed=self._reset_seed(row), options=options)
        self._warn_of_bounds()

    @contextmanager
    def _naming(self, row: int) -> Iterator[None]:
        """Within this context whatever the environment of `row` raises is an `EnvironmentFaultError` that names it."""
        try:
            yield
        except (SpaceError, NonFiniteError, ConfigError):
            raise
        except Exception as error:
            # Foreign code can raise anything.
            what = str(error) if isinstance(error, EnvironmentFaultError) else f"{type(error).__name__}: {error}"
            expected = CONTRACT.format(space=getattr(self.envs[row], "env", self.envs[row]).observation_space)
            raise EnvironmentFaultError(
                f"{self._name} broke down in row {row}, step {self._time[row]} of its lifetime: {what}. Expected: "
                f"{expected}. (plastic-rl --debug VERB shows the traceback.)"
            ) from error

    def _warn_of_bounds(self) -> None:
        """Say once that observations lie outside the declared space; many environments have such."""
        low, high = self._bounds
        if self._warned:
            return
        outside = (self._observations < low) | (self._observations > high)
        if outside.any():
            self._warned = True
            row, column = np.argwhere(outside)[0]
            warnings.warn(
                f"{self._name} gives observations outside its declared bounds (e.g. "
                f"{self._observations[row, column]:g} in column {column}, declared from {low[column]:g} to "
                f"{high[column]:g}); they stay as they are",
                stacklevel=2,
            )

    def _advance(self, actions: Array, idle: BoolArray | None) -> StepResult:
        reward = np.zeros(self.num_envs)
        terminated = np.zeros(self.num_envs, dtype=np.bool_)
        truncated = np.zeros(self.num_envs, dtype=np.bool_)
        trial_end = np.zeros(self.num_envs, dtype=np.bool_)
        names = ("expected_reward", *self.metadata.get("measures", {}))
        values = {name: np.zeros(self.num_envs) for name in names}
        known = {name: np.zeros(self.num_envs, dtype=np.bool_) for name in names}
        for row, env in enumerate(self.envs):
            if idle is not None and idle[row]:
                continue
            action = self._codec.inner(actions[row])
            self._time[row] += 1
            with self._naming(row):
                self._observations[row], reward[row], terminated[row], truncated[row], info = env.step(action)
                for name in info.keys() & values.keys():
                    values[name][row], known[name][row] = info[name], True
            trial_end[row] = info.get("trial_end", False)
        self._warn_of_bounds()
        infos: dict[str, Array] = {"trial_end": trial_end}
        for name in names:
            if known[name].any():
                infos |= {name: values[name], f"_{name}": known[name]}
        return StepResult(reward, terminated, truncated, infos)

    def _observe(self) -> SingleArray:
        return self._observations

    def render(self) -> tuple[Any, ...]:
        """Return what each environment's own `render` returns."""
        return tuple(env.render() for env in self.envs)

    def close_extras(self, **kwargs: Any) -> None:
        """Close every environment."""
        for env in self.envs:
            env.close()

    def get_state(self) -> dict[str, Any]:
        """Return seeds and counters; the inside of a foreign environment cannot be stored (`restarts` is true)."""
        return {"restarts": True, "seeds": list(self._seeds), "lifetimes": self._lifetimes.copy()}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Start the lifetimes after those that `get_state` saw, and warn that they were not continued.

        `observe()` then gives their first observations.

        Raises:
            CheckpointError: If the state is of another number of rows, or is no such state.
        """
        with damage_is_refused("the stored state does not fit these environments"):
            if len(state["lifetimes"]) != self.num_envs:
                raise CheckpointError(f"the environment state has {len(state['lifetimes'])} rows, not {self.num_envs}")
            for row, seed in zip(self._all_rows.tolist(), state["seeds"], strict=True):
                self._key_row(row, int(seed))
            self._lifetimes[:] = stored_array("lifetimes", state["lifetimes"], self._lifetimes)
            self._lifetimes += 1
            self._tasks = [self._source.task(row, int(k)) for row, k in enumerate(self._lifetimes)]
        self._start(self._all_rows, None)
        warnings.warn(
            "a foreign environment cannot be continued in mid-lifetime: all rows start their next lifetime",
            stacklevel=2,
        )


def _own_keywords(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """What `gymnasium.make` recorded, without what every environment takes."""
    return {name: value for name, value in kwargs.items() if name != "render_mode"}
