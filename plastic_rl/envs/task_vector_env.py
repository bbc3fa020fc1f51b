"""The base class of natively vectorised task families.

A family subclasses `TaskVectorEnv` and writes four small vectorised hooks; everything that families share is here and
in `RowVectorEnv`: feedback columns, horizon, tasks, seeds, autoreset, info, state, rendering by row.
"""

from __future__ import annotations

import inspect
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
from gymnasium import spaces
from gymnasium.error import ResetNeeded
from gymnasium.vector import AutoresetMode
from typing_extensions import override

from plastic_rl.arrays import Array, BoolArray, FloatArray, Image, IntArray, SingleArray
from plastic_rl.envs import drawing
from plastic_rl.envs.actions import ActionCodec
from plastic_rl.envs.catalog import check_arguments
from plastic_rl.envs.lifetime import lifetime_space
from plastic_rl.envs.row_env import RowEnv
from plastic_rl.envs.task import Task, TaskDistribution
from plastic_rl.envs.vector_env import RowOptions, RowVectorEnv, StepResult, stored_array
from plastic_rl.errors import CheckpointError, ConfigError
from plastic_rl.feedback import FeedbackLayout

MAX_STEPS = 100_000
"""Longest lifetime: several times what any published task has, and a moment's work to draw ahead."""
MAX_NUMBERS = 2**28
"""Most steps of all rows: 2 GiB for each array that has an entry for every one of them."""


def check_size(num_envs: int, steps: int) -> None:
    """Raise `ConfigError` where lifetimes of `steps` steps in `num_envs` rows need more noise than is drawn ahead."""
    if steps > MAX_STEPS or steps * num_envs > MAX_NUMBERS:
        raise ConfigError(
            f"steps = {steps:,} in each of {num_envs:,} rows is too much: the noise of whole lifetimes is drawn "
            f"ahead. Valid are up to {MAX_STEPS:,} steps, and {MAX_NUMBERS:,} steps in all rows together"
        )


class Outcome(NamedTuple):
    """What one step of a family brings, for all rows.

    Attributes:
        reward: `(B,)`.
        trial_end: `(B,)` bool: the trial is over with this step.
        expected_reward: `(B,)`, the mean of `reward` given action and task, where the family knows it.
        ended: `(B,)` bool: the lifetime is over before its horizon (families of variable length).
        measures: What the family's `metadata["measures"]` names, `(B,)` each; NaN in rows that have none now.
    """

    reward: FloatArray
    trial_end: BoolArray
    expected_reward: FloatArray | None = None
    ended: BoolArray | None = None
    measures: Mapping[str, FloatArray] | None = None


TasksT = TypeVar("TasksT", bound=TaskDistribution)


class TaskVectorEnv(RowVectorEnv, Generic[TasksT]):
    """A task family, all rows in NumPy at once.

    The observation is `[features, previous action, previous reward, trial_start, t/T]`, float32, clipped to finite
    bounds. A lifetime takes `steps` steps and is then `terminated`; nothing is ever truncated.

    A subclass names its `tasks_class`, whose arguments are its own: its constructor takes them, and `RowOptions`, as
    `**arguments`, has them made into the distribution by `tasks_and_options`, and reads sizes from that. It calls
    `super().__init__`, then allocates arrays with one row per lifetime, names those that change in `state_arrays`, and
    implements `begin_rows`, `transition` and, where there are features, `write_features`. In hooks it may read
    `self.distribution`, and `self.time (B,)`, the number of steps that each row has lived.

    Args:
        num_envs: Number of rows, `B`.
        distribution: The family's distribution.
        action_space: Of one row.
        steps: Horizon of a lifetime, `T`.
        feature_low: Lowest value of each family feature, `(F,)`.
        feature_high: Highest value of each family feature, `(F,)`.
        reward_range: Bounds of the reward column (the observed reward is clipped to them, the real one is not).
        steps_per_trial: Length of every trial, None where it varies.
        label_size: Columns K of the label, in supervised environments; the family writes `_label_columns`.
        label_low: Their lowest value: 0 for one-hot labels, -1 for bits; the highest is 1.
        options: See `RowOptions`.

    Raises:
        ConfigError: If lifetimes are too long, or too many, for their noise to be drawn ahead.
    """

    metadata: dict[str, Any] = drawing.render_metadata(frames_per_second=4)
    tasks_class: type[TasksT]
    """The family's distribution, which declares the arguments of both."""
    distribution: TasksT
    state_arrays: ClassVar[tuple[str, ...]] = ()
    """Names of the attributes, arrays with leading `B`, that hold a row's life beside its task and time."""

    __signature__: ClassVar[inspect.Signature]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Let the signature of the class show the arguments of its distribution."""
        super().__init_subclass__(**kwargs)
        if cls.__parameters__:  # type: ignore[attr-defined]  # a base of several families
            return
        rows = inspect.Parameter("num_envs", inspect.Parameter.POSITIONAL_OR_KEYWORD, default=1, annotation=int)
        own = inspect.signature(cls.tasks_class).parameters.values()
        options = inspect.Parameter("options", inspect.Parameter.VAR_KEYWORD, annotation=RowOptions)
        shared = [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in own]
        cls.__signature__ = inspect.Signature([rows, *shared, options])

    @classmethod
    def tasks_and_options(cls, arguments: Mapping[str, Any]) -> tuple[TasksT, RowOptions]:
        """Divide a constructor's `arguments`: the distribution, given or made of its own arguments, and `RowOptions`.

        Raises:
            ConfigError: If the distribution takes no such argument, is of another family, or is given beside arguments.
        """
        own = {name: value for name, value in arguments.items() if name not in RowOptions.__annotations__}
        options: Any = {name: value for name, value in arguments.items() if name not in own}
        check_arguments(cls.__name__, cls.tasks_class, own)
        tasks = options.pop("distribution", None)
        if tasks is None:
            return cls.tasks_class(**own), options
        if not isinstance(tasks, cls.tasks_class):
            raise ConfigError(
                f"{cls.__name__} needs {cls.tasks_class.__name__} or a subclass, got {type(tasks).__name__}"
            )
        if own:
            raise ConfigError(
                f"{cls.__name__} has its arguments from the distribution that it is given; leave {', '.join(own)} away"
            )
        return tasks, options

    def __init__(
        self,
        num_envs: int,
        *,
        distribution: TasksT,
        action_space: spaces.Space[Any],
        steps: int,
        feature_low: npt.ArrayLike = (),
        feature_high: npt.ArrayLike = (),
        reward_range: tuple[float, float] = (0.0, 1.0),
        steps_per_trial: int | None = None,
        label_size: int = 0,
        label_low: float = 0.0,
        options: RowOptions,
    ) -> None:
        if steps < 1:
            raise ValueError(f"steps must be 1 or more, got {steps}")
        check_size(num_envs, steps)
        codec = ActionCodec(action_space)
        lows, highs = (np.asarray(bound, dtype=np.float32) for bound in (feature_low, feature_high))
        feedback = FeedbackLayout.after(lows.size, codec.size, label_size)
        super().__init__(
            num_envs,
            observation_space=lifetime_space(lows, highs, codec, reward_range, label_size, label_low),
            codec=codec,
            feedback=feedback,
            distribution=distribution,
            lifetime_steps=steps,
            steps_per_trial=steps_per_trial,
            options=options,
        )
        self.steps = steps
        self.time: IntArray = np.zeros(num_envs, dtype=np.int64)
        self.returns: FloatArray = np.zeros(num_envs)
        # NumPy works with arrays without axes quicker than with numbers, which it must turn into such first.
        self._lowest_reward, self._highest_reward = np.array(reward_range[0], np.float32), np.array(reward_range[1])
        self._one, self._horizon = np.array(1), np.array(steps)
        self._shares: SingleArray = (np.arange(steps + 1) / steps).astype(np.float32)
        self._buffer: SingleArray = np.zeros((num_envs, feedback.stop), dtype=np.float32)
        self._features = self._buffer[:, : feedback.start]
        self._action_columns = self._buffer[:, slice(*feedback.action)]
        self._reward_column = self._buffer[:, feedback.reward[0]]
        self._trial_column = self._buffer[:, feedback.trial_start[0]]
        self._time_column = self._buffer[:, feedback.time[0]]
        self._label_columns = self._buffer[:, slice(*feedback.label)] if feedback.label else None

    # The hooks of a family ----------------------------------------------------------------------------------------

    @abstractmethod
    def begin_rows(self, rows: IntArray, tasks: Sequence[Task], generators: Sequence[np.random.Generator]) -> None:
        """Start a lifetime in `rows (R,)`: set every array of the family there, and draw the lifetime's noise ahead.

        Args:
            rows: Which rows, `(R,)`.
            tasks: Their tasks, R of them.
            generators: Their streams of noise, R of them; draw the same amount in every lifetime.
        """

    @abstractmethod
    def transition(self, actions: Array) -> Outcome:
        """One step of all rows with `actions (B,)` or `(B, A)`; return fresh arrays."""

    def write_features(self, features: SingleArray) -> None:
        """Write what the agent sees now into `features (B, F)`, in place."""

    def privileged(self) -> dict[str, Array]:
        """What no agent observes but an upper reference may know, arrays with leading `B`."""
        return {}

    def text(self, row: int) -> str:
        """The picture of one row as text, for the render mode `"ansi"`."""
        return self.headline(row)

    def frame(self, row: int) -> Image:
        """The picture of one row `(H, W, 3)`, for the render mode `"rgb_array"`."""
        return np.zeros((8, 8, 3), dtype=np.uint8)

    def headline(self, row: int) -> str:
        """First line of a text picture."""
        return f"step {self.time[row]}/{self.steps}  return {self.returns[row]:g}"

    def head(self, row: int) -> str:
        """Line above a picture."""
        return f"{self.time[row]}/{self.steps} R {self.returns[row]:g}"

    # RowVectorEnv -------------------------------------------------------------------------------------------------

    def _begin_rows(self, rows: IntArray, tasks: Sequence[Task], generators: Sequence[np.random.Generator]) -> None:
        self.time[rows] = 0
        self.returns[rows] = 0.0
        self._buffer[rows, self.feedback.start :] = 0.0
        self._trial_column[rows] = 1.0
        self.begin_rows(rows, tasks, generators)

    def _advance(self, actions: Array, idle: BoolArray | None) -> StepResult:
        if idle is not None:
            # An idle row begins anew right after this step; until then its time must index its noise.
            self.time[idle] = 0
        reward, trial_end, expected_reward, ended, measures = self.transition(actions)
        self.time += self._one
        self.returns += reward
        self._codec.encode(actions, self._action_columns)
        self._reward_column[...] = np.minimum(reward, self._highest_reward)
        np.maximum(self._reward_column, self._lowest_reward, out=self._reward_column)
        self._trial_column[...] = trial_end
        self._time_column[...] = self._shares.take(self.time)
        terminated: BoolArray = self.time >= self._horizon
        if ended is not None:
            terminated |= ended
        info: dict[str, Array] = {"trial_end": trial_end}
        if expected_reward is not None:
            info["expected_reward"] = expected_reward
        for name, values in (measures or {}).items():
            known = ~np.isnan(values)
            info |= {name: np.where(known, values, 0.0), f"_{name}": known}
        return StepResult(reward, terminated, np.zeros(self.num_envs, dtype=np.bool_), info)

    def _observe(self) -> SingleArray:
        self.write_features(self._features)
        return self._buffer

    def render(self) -> tuple[Any, ...] | None:
        """Return one picture for each row: text for `"ansi"`, `(H, W, 3)` uint8 for `"rgb_array"`, else None."""
        if self.render_mode is None:
            return None
        if not self._tasks:
            raise ResetNeeded("call reset() before render()")
        draw = self.text if self.render_mode == "ansi" else self.frame
        return tuple(draw(row) for row in range(self.num_envs))

    # State --------------------------------------------------------------------------------------------------------

    @override
    def _row_state(self) -> dict[str, Any]:
        """Continuing from it gives the same bits as never having stopped."""
        return {
            "seeds": list(self._seeds),
            "generators": [generator.bit_generator.state for generator in self._generators],
            "lifetimes": self._lifetimes.copy(),
            "tasks": [_task_to_dict(task) for task in self._tasks],
            **{name: own.copy() for name, own in self._counters().items()},
            "family": self.family_state(),
        }

    @override
    def _restore(self, state: Mapping[str, Any]) -> None:
        self._tasks = [_task_from_dict(task) for task in state["tasks"]]
        if self._tasks:
            self._begin_rows(self._all_rows, self._tasks, self._generators)
        self._seeds = [int(seed) for _, seed in zip(self._all_rows, state["seeds"], strict=True)]
        for generator, saved in zip(self._generators, state["generators"], strict=True):
            generator.bit_generator.state = saved
        for name, own in {"lifetimes": self._lifetimes, **self._counters()}.items():
            own[...] = stored_array(name, state[name], own)
        # A row may stand at its horizon only while it waits for its reset.
        beyond = (self.time < 0) | (self.time > self.steps - ~self._over)
        if beyond.any() or self._lifetimes.min() < 0:
            raise CheckpointError(f"the stored time or lifetime is none of lifetimes of {self.steps} steps")
        self.set_family_state(state["family"])

    def _counters(self) -> dict[str, Array]:
        """The arrays of a present lifetime that every family stores, by their names in the state."""
        return {
            "over": self._over,
            "time": self.time,
            "returns": self.returns,
            "feedback": self._buffer[:, self.feedback.start :],
        }

    def family_state(self) -> dict[str, Any]:
        """Copies of all `state_arrays`, by name."""
        return {name: getattr(self, name).copy() for name in self.state_arrays}

    def set_family_state(self, state: Mapping[str, Any]) -> None:
        """Restore what `family_state` returned."""
        if set(state) != set(self.state_arrays):
            raise CheckpointError(
                f"the environment state holds {sorted(state)}, but {type(self).__name__} needs "
                f"{sorted(self.state_arrays)}: it is of another environment or version"
            )
        for name, values in state.items():
            own = getattr(self, name)
            own[...] = stored_array(name, values, own)


class ChoiceVectorEnv(TaskVectorEnv[TasksT]):
    """A family of one choice among k actions a step, drawn as a bar for each; it keeps the last one in `_last (B,)`."""

    bar_text: ClassVar[str]
    """Line of an action in a text picture, with the fields `action`, `share`, `bar` and `label`."""
    _last: IntArray

    @abstractmethod
    def bars(self, row: int) -> tuple[FloatArray, Sequence[int]]:
        """Height of each action's bar, 0 to 1, and the number that it is labelled with."""

    @override
    def text(self, row: int) -> str:
        lines = [self.headline(row)]
        for action, (share, label) in enumerate(zip(*self.bars(row), strict=True)):
            mark = ">" if action == self._last[row] else " "
            bar = drawing.text_bar(share)
            lines.append(f"{mark} {self.bar_text.format(action=action, share=share, bar=bar, label=label)}")
        return "\n".join(lines)

    @override
    def frame(self, row: int) -> Image:
        shares, labels = self.bars(row)
        paid = bool(self._reward_column[row] > 0)
        return drawing.bars(shares, [str(label) for label in labels], int(self._last[row]), paid, self.head(row))


def _task_to_dict(task: Task) -> dict[str, Any]:
    params = {name: list(value) if isinstance(value, tuple) else value for name, value in task.params.items()}
    return {"family": task.family, "split": task.split, "index": task.index, "seed": task.seed, "params": params}


def _task_from_dict(saved: Mapping[str, Any]) -> Task:
    params = {name: tuple(value) if isinstance(value, list) else value for name, value in saved["params"].items()}
    return Task(saved["family"], saved["split"], int(saved["index"]), int(saved["seed"]), params)


class TaskEnv(RowEnv):
    """One row of a `TaskVectorEnv`; a family's scalar class only names its `vector_class`.

    Args:
        render_mode: None, `"rgb_array"` or `"ansi"`.
        kwargs: Arguments of the vector class.
    """

    metadata: dict[str, Any] = drawing.render_metadata(frames_per_second=4)
    vector_class: ClassVar[type[Any]]
    """The `TaskVectorEnv` subclass of the family."""

    def __init__(self, *, render_mode: str | None = None, **kwargs: Any) -> None:
        super().__init__(self.vector_class(1, render_mode=render_mode, autoreset_mode=AutoresetMode.DISABLED, **kwargs))
