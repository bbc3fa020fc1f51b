"""Scalar environments stepped one after the other in this process, with tasks and lifetimes."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Unpack

import gymnasium
import numpy as np
from gymnasium import spaces
from typing_extensions import override

from plastic_rl.arrays import Array, BoolArray, IntArray, SingleArray
from plastic_rl.envs.actions import ActionCodec
from plastic_rl.envs.catalog import SeedTasks, distribution_for
from plastic_rl.envs.lifetime import Lifetime, refuse_trials
from plastic_rl.envs.task import Task
from plastic_rl.envs.vector_env import RowOptions, RowVectorEnv, StepResult, stored_array
from plastic_rl.errors import ConfigError, EnvironmentFaultError, NonFiniteError, SpaceError
from plastic_rl.feedback import FeedbackLayout


class ScalarVectorEnv(RowVectorEnv):
    """Any scalar Gymnasium environments as the rows of a vector environment.

    Each is wrapped in `Lifetime` unless its observation holds feedback already. A row's k-th lifetime begins with
    `env.reset(seed=..., options={"task": task})`, the seed following from the row's own and k; where no distribution is
    known, the task is the seed (`SeedTasks`) and there are no options.

    Args:
        envs: The rows, B of them, with equal spaces.
        trials: Inner episodes in a lifetime (see `Lifetime`).
        same_task_each_trial: See `Lifetime`.
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
            # `gymnasium.make` recorded the keywords, the render mode among them.
            own = {} if spec is None else {name: each for name, each in spec.kwargs.items() if name != "render_mode"}
            distribution = distribution_for(spec.id, own) if spec else SeedTasks("an environment without a spec")
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
        if self._wrappers is not None and not single:
            self._wrappers.check_beginnings(None, trials)
        elif self._wrappers is not None and isinstance(first, Lifetime) and self.metadata["steps_per_trial"] is None:
            self._warn_of_one_trial(self._wrappers.documents)
        self.metadata = {**first.metadata, **self.metadata}
        self.render_mode = envs[0].render_mode
        self._name = str(envs[0]) if spec is None else spec.id
        self._bounds = observation_space.low, observation_space.high
        self._warned = False
        self._time: IntArray = np.zeros(self.num_envs, dtype=np.int64)
        self._observations: SingleArray = np.zeros((self.num_envs, *(observation_space.shape or ())), dtype=np.float32)

    def _begin_rows(self, rows: IntArray, tasks: Sequence[Task], generators: Sequence[np.random.Generator]) -> None:
        for row, task in zip(rows.tolist(), tasks, strict=True):
            self._time[row] = 0
            seed, lifetime = self._seeds[row], int(self._lifetimes[row])
            options: dict[str, Any] | None = {"task": task}
            if "reset_seed" in task.params:
                seed, options = int(task.seed), None
            elif lifetime > 0:
                sequence = np.random.SeedSequence(seed, spawn_key=(lifetime,))
                seed = int(sequence.generate_state(1, np.uint32)[0])
            with self._naming(row):
                self._observations[row], _ = self.envs[row].reset(seed=seed, options=options)
        self._warn_of_bounds()

    def _warn_of_one_trial(self, wrappers: Sequence[Mapping[str, Any]]) -> None:
        for each in wrappers:
            if each["from_trial"] > 0:
                warnings.warn(
                    f"{each['name']} begins after {each['from_trial']} trials of a lifetime, and here a lifetime is "
                    'one trial unless the environment tells more by info["trial_end"]: give `trials`, or from_step',
                    stacklevel=4,
                )

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
            space = getattr(self.envs[row], "env", self.envs[row]).observation_space
            raise EnvironmentFaultError(
                f"{self._name} broke down in row {row}, step {self._time[row]} of its lifetime: {what}. Expected: "
                "reset returns (observation, info), and step (observation, reward, terminated, truncated, info): an "
                f"observation of {space}, a reward that is one number, and a mapping as info. (plastic-rl --debug VERB "
                "shows the traceback.)"
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
        terminated, truncated, trial_end = np.zeros((3, self.num_envs), dtype=np.bool_)
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

    @override
    def _row_state(self) -> dict[str, Any]:
        """Seeds and counters; the inside of a foreign environment cannot be stored (`restarts` is true)."""
        return {"restarts": True, "seeds": list(self._seeds), "lifetimes": self._lifetimes.copy()}

    @override
    def _restore(self, state: Mapping[str, Any]) -> None:
        """Start the lifetimes after those that `get_state` saw, and warn that they were not continued."""
        for row, seed in zip(self._all_rows.tolist(), state["seeds"], strict=True):
            self._key_row(row, int(seed))
        self._lifetimes[:] = stored_array("lifetimes", state["lifetimes"], self._lifetimes) + 1
        self._tasks = [self._task(row, int(k)) for row, k in enumerate(self._lifetimes)]
        self._start(self._all_rows, None)
        warnings.warn(
            "a foreign environment cannot be continued in mid-lifetime: all rows start their next lifetime",
            stacklevel=3,
        )
