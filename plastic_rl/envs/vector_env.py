"""What every vector environment of plastic_rl shares, however its rows are stepped.

A row is one agent's life. This class deals out tasks and seeds, starts lifetimes, resets rows in the three modes of
Gymnasium, applies wrappers, and composes `info`; a subclass says what a lifetime's start and one step do
(`_begin_rows`, `_advance`, `_observe`). Data flow of a step: actions -> wrappers -> `_advance` -> ended rows ->
`_begin_rows` -> `_observe` -> wrappers.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypedDict, TypeVar

import numpy as np
import numpy.typing as npt
from gymnasium import spaces
from gymnasium.error import ResetNeeded
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from plastic_rl.arrays import Array, BoolArray, FloatArray, IntArray, SingleArray
from plastic_rl.envs.actions import ActionCodec
from plastic_rl.envs.task import Task, TaskDistribution
from plastic_rl.errors import CheckpointError, TaskError, damage_is_refused
from plastic_rl.feedback import FeedbackLayout

if TYPE_CHECKING:
    from plastic_rl.envs.wrappers import WrapperStack


class RowOptions(TypedDict, total=False):
    """Keyword arguments that every vector environment of plastic_rl takes.

    Row i takes, for its k-th lifetime, the task of index `task_start + i + k * num_envs`, wrapping at `task_stop`.

    Attributes:
        distribution: Where tasks come from; None for the family's own.
        split: Split of the tasks, `"train"` by default.
        task_start: Index of the first task, 0 by default.
        task_stop: One past the last task (then they repeat); None by default: no end.
        autoreset_mode: What happens after a lifetime ended; NEXT_STEP by default, as in Gymnasium.
        render_mode: None, `"rgb_array"` or `"ansi"`.
        wrappers: Changes of the task beneath the feedback, as a config states them, the one next to the environment
            first: a name in `plastic_rl.envs.wrappers.WRAPPERS` and arguments each. None by default.
    """

    distribution: TaskDistribution | None
    split: str
    task_start: int
    task_stop: int | None
    autoreset_mode: AutoresetMode
    render_mode: str | None
    wrappers: Sequence[Mapping[str, Any]]


class StepResult(NamedTuple):
    """One step of all rows; `info` holds arrays `(B,)`, with a mask `_name` where not every row has the value."""

    reward: FloatArray
    terminated: BoolArray
    truncated: BoolArray
    info: dict[str, Array]


class RowVectorEnv(VectorEnv[SingleArray, Array, Array], ABC):
    """Base of all vector environments here, of `num_envs` rows; subclass `TaskVectorEnv` to write a family.

    `observation_space` is that of one row, a flat float32 Box; `lifetime_steps` and `steps_per_trial` are None where
    they vary.
    """

    def __init__(
        self,
        num_envs: int,
        *,
        observation_space: spaces.Box,
        codec: ActionCodec,
        feedback: FeedbackLayout,
        distribution: TaskDistribution,
        lifetime_steps: int | None,
        steps_per_trial: int | None,
        options: RowOptions,
    ) -> None:
        if num_envs < 1:
            raise ValueError(f"num_envs must be 1 or more, got {num_envs}")
        self.num_envs = num_envs
        self._wrappers: WrapperStack | None = None
        if options.get("wrappers"):
            from plastic_rl.envs.wrappers import WrapperStack

            wrappers = WrapperStack(options["wrappers"], num_envs, observation_space, feedback.start, codec.space)
            # A trial takes a step at the least.
            trials = -(-lifetime_steps // (steps_per_trial or 1)) if lifetime_steps else None
            wrappers.check_beginnings(lifetime_steps, trials)
            observation_space = wrappers.observation_space
            self._wrappers = wrappers
        self.single_observation_space = observation_space
        self.single_action_space = codec.space
        self.observation_space = batch_space(observation_space, num_envs)
        self.action_space = batch_space(codec.space, num_envs)
        self.feedback = feedback
        self.distribution = distribution
        self.autoreset_mode = AutoresetMode(options.get("autoreset_mode", AutoresetMode.NEXT_STEP))
        self.render_mode = options.get("render_mode")
        self.metadata = {
            **type(self).metadata,
            "feedback": feedback.to_dict(),
            "lifetime_steps": lifetime_steps,
            "steps_per_trial": steps_per_trial,
            "autoreset_mode": self.autoreset_mode,
        }
        self._codec = codec
        self._split = options.get("split", "train")
        self._task_start, self._task_stop = options.get("task_start", 0), options.get("task_stop")
        distribution.check_split(self._split)
        if self._task_start < 0 or (self._task_stop is not None and self._task_stop <= self._task_start):
            raise TaskError(
                f"tasks {self._task_start} to {self._task_stop} are no range: start must be 0 or more, stop larger "
                "(or None)"
            )
        self._all_rows = np.arange(num_envs)
        self._every_row = np.ones(num_envs, dtype=np.bool_)
        self._seeds: list[int] = [0] * num_envs
        self._generators = [np.random.Generator(np.random.PCG64(0)) for _ in range(num_envs)]
        self._lifetimes = np.zeros(num_envs, dtype=np.int64)
        self._tasks: list[Task] = []
        self._over = np.zeros(num_envs, dtype=np.bool_)
        self._resting = False

    @property
    def tasks(self) -> Sequence[Task]:
        """The task that each row is living, hidden from the agent."""
        return tuple(self._tasks)

    # What a subclass says ------------------------------------------------------------------------------------------

    @abstractmethod
    def _begin_rows(self, rows: IntArray, tasks: Sequence[Task], generators: Sequence[np.random.Generator]) -> None:
        """Start a lifetime in each of `rows (R,)`, on its task, with its stream of noise."""

    @abstractmethod
    def _advance(self, actions: Array, idle: BoolArray | None) -> StepResult:
        """Step all rows; what happens in `idle` rows is thrown away (None: no row is idle)."""

    @abstractmethod
    def _observe(self) -> SingleArray:
        """Return the present observations `(B, I)`; the caller copies them."""

    # Gymnasium ----------------------------------------------------------------------------------------------------

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[SingleArray, dict[str, Any]]:
        """Start new lifetimes in all rows, or in some.

        Args:
            seed: Keys row i by `seed + i` and deals the tasks out from the first one; None goes on.
            options: `"reset_mask"`, `(B,)` bool: which rows; `"tasks"`: a task for each of the B rows (None: the
                next); `"row_seeds"`: a key for each of the B rows instead of `seed + i` (rows of equal keys and
                tasks live with equal noise, as a population does on common tasks); `"rest"`, bool: rows whose lifetime
                is over rest until the next `reset`, whatever the autoreset mode: their steps count for nothing, and
                what they show means nothing.

        Returns:
            Observations `(B, I)`; `info["task"] (B,)` with the mask `info["_task"]`.

        Raises:
            TaskError: If `tasks` or `row_seeds` has another length than B.
        """
        super().reset(seed=seed)
        options = options or {}
        rows = self._rows_to_reset(options.get("reset_mask"))
        first = not self._tasks
        keys = options.get("row_seeds")
        if keys is None and (first or seed is not None):
            start = int(self.np_random.integers(2**62)) if seed is None else seed
            keys = range(start, start + self.num_envs)
        if keys is not None and len(keys) != self.num_envs:
            raise TaskError(f"options['row_seeds'] must hold {self.num_envs} seeds, one for each row, got {len(keys)}")
        _check_tasks(options.get("tasks"), self.num_envs)
        if keys is None:
            self._lifetimes[rows] += 1
        else:
            self._lifetimes[rows] = 0
            for row in rows.tolist():
                self._key_row(row, int(keys[row]))
        self._resting = bool(options.get("rest", False))
        if first:
            self._tasks = [self._task(row, 0) for row in range(self.num_envs)]
        info = self._start(rows, options.get("tasks"))
        return self._observed(), info

    def step(self, actions: Array) -> tuple[SingleArray, Array, Array, Array, dict[str, Any]]:
        """Step every row.

        Args:
            actions: `(B,)` int for Discrete, `(B, A)` for MultiDiscrete, MultiBinary and Box.

        Returns:
            Observations `(B, I)`, rewards `(B,)` float64, terminations and truncations `(B,)` bool, and info:
            `trial_end`, `expected_reward` where the family knows it, and at a lifetime's start `task`. All three belong
            to this step even in a row that SAME_STEP has reset; that row's `final_obs` and `final_info` are there too.

        Raises:
            ResetNeeded: Before the first reset, or (autoreset DISABLED) in a row whose lifetime is over.
        """
        if not self._tasks:
            raise ResetNeeded("call reset() before the first step()")
        checked = self._codec.check(actions, self.num_envs)
        idle = self._over if np.count_nonzero(self._over) else None
        if idle is not None and self.autoreset_mode is AutoresetMode.DISABLED and not self._resting:
            raise ResetNeeded(
                f"the lifetimes of rows {np.flatnonzero(idle).tolist()} are over; "
                'call reset(options={"reset_mask": ...}) for them first (autoreset is disabled)'
            )
        done = self.as_done(checked)
        reward, terminated, truncated, info = self._advance(done, idle)
        if self._wrappers is not None:
            self._wrappers.lived(info["trial_end"])
        if done is not checked:
            # The agent's previous action is the one that it chose.
            self._codec.encode(checked, self._observe()[:, slice(*self.feedback.action)])
        live = self._every_row if idle is None else ~idle
        names = [name for name in info if name[0] != "_"]
        for name in names:
            mask = info.get(f"_{name}")
            info[f"_{name}"] = live.copy() if mask is None else mask & live
        if idle is not None:
            for values in (reward, terminated, truncated, *(info[name] for name in names)):
                values[idle] = 0
            if not self._resting:
                rows = np.flatnonzero(idle)
                self._lifetimes[rows] += 1
                info.update(self._start(rows, None))
        self._over = terminated | truncated
        if idle is not None and self._resting:
            self._over |= idle
        observations = self._observed()
        if self.autoreset_mode is AutoresetMode.SAME_STEP and not self._resting and np.count_nonzero(self._over):
            info.update(self._start_in_same_step(observations, info))
            observations = self._observed()
        return observations, reward, terminated, truncated, info

    def rest(self, rows: BoolArray) -> None:
        """End the lifetimes of `rows (B,)` where they are, after a `reset` with the option `"rest"` (see there)."""
        if not self._resting:
            raise ResetNeeded('rows rest only after reset(options={"rest": True})')
        self._over |= rows

    def observe(self) -> SingleArray:
        """Return a copy of the present observations `(B, I)`, as the last `reset` or `step` gave them."""
        if not self._tasks:
            raise ResetNeeded("call reset() before observe()")
        return self._observed()

    def as_seen(self, features: SingleArray) -> SingleArray:
        """What the agent would see now of the environment's `features (B, F)`: a copy."""
        seen = features.copy()
        if self._wrappers is not None:
            self._wrappers.see(seen)
        return seen

    def as_done(self, actions: Array) -> Array:
        """What would be done now where the agent chose `actions (B, ..)`."""
        return actions if self._wrappers is None else self._wrappers.act(actions)

    def _observed(self) -> SingleArray:
        """A copy of the present observations `(B, I)`, as the agent sees them."""
        observations = self._observe().copy()
        if self._wrappers is not None:
            self._wrappers.see(observations[:, : self.feedback.start])
        return observations

    # Lifetimes ----------------------------------------------------------------------------------------------------

    def _task(self, row: int, lifetime: int) -> Task:
        """The task that `row` takes from the distribution for its lifetime number `lifetime`."""
        offset = row + lifetime * self.num_envs
        if self._task_stop is not None:
            offset %= self._task_stop - self._task_start
        return self.distribution.task(self._split, self._task_start + offset)

    def _key_row(self, row: int, seed: int) -> None:
        self._seeds[row] = seed
        self._generators[row] = np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed)))

    def _rows_to_reset(self, mask: Any) -> IntArray:
        if mask is None:
            return self._all_rows
        mask = np.asarray(mask)
        if mask.shape != (self.num_envs,) or mask.dtype != np.bool_ or not mask.any():
            raise ValueError(
                f"options['reset_mask'] must be a bool array of shape ({self.num_envs},) with at least one True, "
                f"got {mask!r}"
            )
        if not self._tasks and not mask.all():
            raise ResetNeeded("the first reset must start all rows, without a reset_mask")
        return np.flatnonzero(mask)

    def _start(self, rows: IntArray, tasks: Sequence[Task | None] | None) -> dict[str, Any]:
        """Begin the present lifetime number of `rows`; return the info of their start."""
        for row in rows.tolist():
            given = None if tasks is None else tasks[row]
            self._tasks[row] = self._task(row, int(self._lifetimes[row])) if given is None else given
        dealt = [self._tasks[row] for row in rows]
        self._begin_rows(rows, dealt, [self._generators[row] for row in rows])
        if self._wrappers is not None:
            self._wrappers.begin(rows, dealt)
        self._over[rows] = False
        return {"task": self._spread(rows, dealt), "_task": np.isin(self._all_rows, rows)}

    def _spread(self, rows: IntArray, values: Sequence[Any]) -> Array:
        """An object array `(B,)` of `values`, R of them, in `rows (R,)`, and None in the others."""
        objects = np.full(self.num_envs, None, dtype=object)
        for row, value in zip(rows.tolist(), values, strict=True):
            objects[row] = value
        return objects

    def _start_in_same_step(self, observations: SingleArray, info: Mapping[str, Any]) -> dict[str, Any]:
        """Begin the next lifetime of all rows that are over; return `final_obs`, `final_info` and the start's info."""
        over = self._over.copy()
        rows = np.flatnonzero(over)
        final_task = self._spread(rows, [self._tasks[row] for row in rows])
        final_info: dict[str, Any] = {"task": final_task, "_task": over.copy()}
        for name in (name for name in info if name[0] != "_" and name != "task"):
            final_info[name] = info[name].copy()
            final_info[f"_{name}"] = info[f"_{name}"] & over
        self._lifetimes[rows] += 1
        final_obs = self._spread(rows, [observations[row].copy() for row in rows])
        final = {"final_obs": final_obs, "final_info": final_info}
        return {**self._start(rows, None), **final, "_final_obs": over, "_final_info": over.copy()}

    # State --------------------------------------------------------------------------------------------------------

    def get_state(self) -> dict[str, Any]:
        """Return all that a resumed run needs: plain scalars, strings, lists, dicts and NumPy arrays."""
        state = self._row_state()
        return state if self._wrappers is None else {**state, "wrappers": self._wrappers.state()}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Continue from what `get_state` of an environment with equal arguments returned.

        Raises:
            CheckpointError: If the state is of another number of rows or another environment, or is no such state.
        """
        with damage_is_refused(f"the stored state does not fit {type(self).__name__}"):
            if len(state["lifetimes"]) != self.num_envs:
                raise CheckpointError(f"the environment state has {len(state['lifetimes'])} rows, not {self.num_envs}")
            self._restore(state)
            wrappers = state.get("wrappers")
            if self._wrappers is not None and wrappers is not None:
                self._wrappers.restore(wrappers, self._tasks, in_midlife=not state.get("restarts", False))
            elif self._wrappers is not None or wrappers is not None:
                raise CheckpointError(
                    f"the environment's state is one {'without' if wrappers is None else 'with'} wrappers, and this "
                    f"environment has {'some' if wrappers is None else 'none'}"
                )

    @abstractmethod
    def _row_state(self) -> dict[str, Any]:
        """What `get_state` returns, but for the wrappers."""

    @abstractmethod
    def _restore(self, state: Mapping[str, Any]) -> None:
        """Set all that `get_state` saw; whatever fails in it says that the state does not fit."""


def number_of_this_step(info: Mapping[str, Any], key: str, ended: BoolArray, rows: int) -> tuple[BoolArray, FloatArray]:
    """Read a number per row from the `info` of a step, whatever the autoreset mode.

    With SAME_STEP, rows that `ended (B,)` with this step keep theirs in `final_info`: what stands in `info` is of their
    reset. Returns which rows have it, and their values (0 elsewhere), both `(B,)`.

    >>> info = {"gain": np.array([1.0, 0.0]), "_gain": np.array([True, False])}
    >>> info["final_info"] = {"gain": np.array([0.0, 3.0]), "_gain": np.array([False, True])}
    >>> number_of_this_step(info, "gain", np.array([False, True]), 2)
    (array([ True,  True]), array([1., 3.]))
    """
    known = np.zeros(rows, np.bool_)
    values = np.zeros(rows, np.float64)
    for source, eligible in ((info, None), (info.get("final_info"), ended)):
        if source is not None and isinstance(source, Mapping) and key in source:
            given = source.get(f"_{key}")
            present = np.ones(rows, np.bool_) if given is None else np.asarray(given, np.bool_)
            if eligible is not None:
                present = present & eligible
            np.copyto(values, np.asarray(source[key]), where=present, casting="unsafe")
            known |= present
    return known, values


Number = TypeVar("Number", bound=np.generic)


def stored_array(name: str, value: Any, like: npt.NDArray[Number]) -> npt.NDArray[Number]:
    """Return `value` as a fresh array of the type and shape of `like`; `CheckpointError` where it is of others.

    >>> stored_array("time", [3, 4], np.zeros(2, dtype=np.int64)).tolist()
    [3, 4]
    """
    array = np.asarray(value)
    if array.shape != like.shape or array.dtype.kind != like.dtype.kind:
        raise CheckpointError(
            f"the stored {name!r} must be {like.dtype} of shape {like.shape}, got {array.dtype} of shape {array.shape}"
        )
    return array.astype(like.dtype)


def _check_tasks(tasks: Sequence[Any] | None, rows: int) -> None:
    if tasks is not None and len(tasks) != rows:
        raise TaskError(f"options['tasks'] must hold {rows} tasks, one for each row, got {len(tasks)}")
