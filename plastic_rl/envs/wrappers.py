"""Changes of the task between an environment and its agent, which turn any environment into a family of tasks.

A `RowWrapper` changes what the agent sees, or what its actions do, in all rows of a vector environment at once. It
sits beneath the feedback: the agent's previous action (the one that it chose), reward, trial_start and t/T stay as they
are. A config names wrappers, `environment: {id: ID, wrappers: [{name: lesion, share: 0.25, from_trial: 10}]}`; a
plug-in adds its own to `WRAPPERS`. What a wrapper draws follows from the seed of the row's task, so that held-out tasks
hold draws that were never met.

Data flow: features of the environment -> `see`, the first wrapper first -> agent -> action -> `act`, the last wrapper
first -> environment.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import numpy as np
from gymnasium import spaces
from pydantic import Field
from typing_extensions import override

from plastic_rl.arrays import Array, BoolArray, IntArray, SingleArray
from plastic_rl.config import ConfigModel, check
from plastic_rl.config.signatures import arguments_of, model_of
from plastic_rl.envs.task import Task
from plastic_rl.errors import CheckpointError, ConfigError, UnknownNameError
from plastic_rl.registry import Registry


class RowWrapper:
    """A change of the task that begins with a trial, or a step, of each lifetime.

    A subclass declares its own arguments as keyword-only ones of its constructor, as algorithms do: `Annotated` says
    their range, a line of the class's docstring what they are; it hands on `**shared`. It overrides `see`, `act` or
    both, and `begin` where it draws something. Arrays with a row per lifetime it makes in `fit`.

    Args:
        from_trial: Trials of a lifetime that pass before it begins.
        from_step: Steps of a lifetime that pass before it begins (where both are given, both have to pass).
    """

    def __init__(
        self,
        *,
        from_trial: Annotated[int, Field(ge=0)] = 0,
        from_step: Annotated[int, Field(ge=0)] = 0,
    ) -> None:
        self.from_trial = from_trial
        self.from_step = from_step

    def fit(self, rows: int, features: int, action_space: spaces.Space[Any]) -> None:
        """Make room for `rows` rows of `features` columns and actions of `action_space`, that of one row.

        Raises:
            ConfigError: If there is nothing in them to change.
        """

    def bounds(self, low: SingleArray, high: SingleArray) -> tuple[SingleArray, SingleArray]:
        """Bounds of what the agent sees, `(F,)` each, where the environment's are `low` and `high`: the same."""
        return low, high

    def begin(self, rows: IntArray, generators: Sequence[np.random.Generator]) -> None:
        """Draw what holds for a lifetime in `rows (R,)`; each generator, R of them, follows from the row's task."""

    def see(self, features: SingleArray, begun: BoolArray) -> None:
        """Change `features (B, F)` in place, in the rows where it has `begun (B,)`."""

    def act(self, actions: Array, begun: BoolArray) -> Array:
        """What is done where the agent chose `actions (B, ..)`; the argument stays as it is."""
        return actions


class ObservationGain(RowWrapper):
    """All that the agent sees is multiplied by one number, as by an amplifier turned up or down.

    Args:
        factor: What the features are multiplied by, e.g. 8 or 0.1.
    """

    def __init__(self, *, factor: Annotated[float, Field(gt=0, le=1000)], **shared: Any) -> None:
        super().__init__(**shared)
        self.factor = np.float32(factor)

    @override
    def bounds(self, low: SingleArray, high: SingleArray) -> tuple[SingleArray, SingleArray]:
        # Before it begins, the environment's own hold. Bounds near the largest number there is become infinite.
        with np.errstate(over="ignore"):
            return np.minimum(low, self.factor * low), np.maximum(high, self.factor * high)

    @override
    def see(self, features: SingleArray, begun: BoolArray) -> None:
        np.multiply(features, self.factor, out=features, where=begun[:, None])


class Lesion(RowWrapper):
    """Some sensors, or actuators, are dead: which ones is drawn for each lifetime.

    A sensor is a column of the features; a dead one reads 0. An actuator is an action of a Discrete space: a dead one
    does what another one does, which is alive and was drawn with it. Or it is a component of a MultiDiscrete or Box
    action: a dead one stays at its option 0, or at the value of its range that is nearest to 0.

    Args:
        share: Share of them that is dead, rounded to whole ones, at least one; of Discrete actions one stays alive.
        of: What is dead: sensors or actuators.
    """

    def __init__(
        self,
        *,
        share: Annotated[float, Field(gt=0, le=1)],
        of: Literal["sensors", "actuators"] = "sensors",
        **shared: Any,
    ) -> None:
        super().__init__(**shared)
        self.share = share
        self.of = of

    @override
    def fit(self, rows: int, features: int, action_space: spaces.Space[Any]) -> None:
        number = most = features
        self._replaced = self.of == "actuators" and isinstance(action_space, spaces.Discrete)
        if isinstance(action_space, spaces.Discrete) and self._replaced:
            number, most = int(action_space.n), int(action_space.n) - 1
        elif self.of == "actuators":
            assert action_space.shape is not None
            number = most = action_space.shape[0]
        if most < 1:
            raise ConfigError(
                f"a lesion of {self.of} needs some, and this environment has "
                + ("one action" if self._replaced else "no features beside the feedback")
            )
        self._count = min(max(1, round(self.share * number)), most)
        self._dead: BoolArray = np.zeros((rows, number), dtype=np.bool_)
        self._stand_in: IntArray = np.tile(np.arange(number), (rows, 1))
        self._rest: Array = np.zeros(1, dtype=np.int64)
        if isinstance(action_space, spaces.Box):
            self._rest = np.clip(0.0, action_space.low, action_space.high)

    @override
    def bounds(self, low: SingleArray, high: SingleArray) -> tuple[SingleArray, SingleArray]:
        if self.of == "actuators":
            return low, high
        return np.minimum(low, np.float32(0.0)), np.maximum(high, np.float32(0.0))

    @override
    def begin(self, rows: IntArray, generators: Sequence[np.random.Generator]) -> None:
        number = self._dead.shape[1]
        for row, generator in zip(rows.tolist(), generators, strict=True):
            dead, alive = np.split(generator.permutation(number), [self._count])
            self._dead[row] = False
            self._dead[row, dead] = True
            if self._replaced:
                self._stand_in[row] = np.arange(number)
                self._stand_in[row, dead] = generator.choice(alive, len(dead))

    @override
    def see(self, features: SingleArray, begun: BoolArray) -> None:
        if self.of == "sensors":
            features[self._dead & begun[:, None]] = 0.0

    @override
    def act(self, actions: Array, begun: BoolArray) -> Array:
        if self.of == "sensors":
            return actions
        if self._replaced:
            return np.where(begun, self._stand_in[np.arange(len(actions)), actions], actions)
        return np.where(self._dead & begun[:, None], self._rest, actions).astype(actions.dtype)


WRAPPERS: Registry[type[RowWrapper]] = Registry("wrapper")
"""Wrappers by the name that a config gives them."""
WRAPPERS.register("lesion", Lesion)
WRAPPERS.register("observation_gain", ObservationGain)


def wrapper_model(cls: type[RowWrapper]) -> type[ConfigModel]:
    """The config model of a wrapper's arguments; those of its own stand first."""
    declared: Any = cls
    arguments = sorted(arguments_of(declared, RowWrapper).values(), key=lambda one: one.owner is RowWrapper)
    return model_of(f"{cls.__name__}Config", ConfigModel, arguments, doc=cls.__doc__)


def checked_wrappers(stated: Any) -> list[dict[str, Any]]:
    """Return wrappers as a config states them, each a name and arguments, with every default written out.

    Raises:
        ConfigError: With every problem at once.

    >>> checked_wrappers([{"name": "observation_gain", "factor": 8}])
    [{'name': 'observation_gain', 'factor': 8.0, 'from_trial': 0, 'from_step': 0}]
    >>> checked_wrappers([{"name": "observation_gian"}])
    Traceback (most recent call last):
        ...
    plastic_rl.errors.ConfigError: unknown wrapper 'observation_gian'. Did you mean 'observation_gain'? \
Valid: lesion, observation_gain.
    """
    documents, problems = [], []
    if not isinstance(stated, list | tuple):
        raise ConfigError(f"wrappers are a list, e.g. [{{name: observation_gain, factor: 8}}]; got {stated!r:.80}.")
    for one in stated:
        if not isinstance(one, Mapping) or not isinstance(one.get("name"), str):
            problems.append(
                f"a wrapper is a name and its arguments, e.g. {{name: observation_gain, factor: 8}}; got {one!r:.80}. "
                f"Valid names: {', '.join(sorted(WRAPPERS))}."
            )
            continue
        name = one["name"]
        if name not in WRAPPERS:
            problems.append(str(UnknownNameError("wrapper", name, WRAPPERS)))
            continue
        given = {key: value for key, value in one.items() if key != "name"}
        validated, found = check(wrapper_model(WRAPPERS[name]), given, prefix=[name])
        problems += found
        if validated is not None:
            documents.append({"name": name, **validated.model_dump()})
    if problems:
        raise ConfigError(" ".join(problems))
    return documents


def made_with(
    kwargs: Mapping[str, Any],
    trials: int,
    same_task_each_trial: bool | None,
    wrappers: Sequence[Mapping[str, Any]],
    equals: str = "=",
) -> str:
    """What an environment is made with beside its id, as a reader sees it; trials where there are several.

    >>> made_with({"length": 0.5}, 4, True, [{"name": "lesion", "share": 0.25}])
    'length=0.5, trials=4, same_task_each_trial=True, lesion(share=0.25)'
    """
    arguments = dict(kwargs)
    if trials > 1:
        arguments["trials"] = trials
        if same_task_each_trial is not None:
            arguments["same_task_each_trial"] = same_task_each_trial
    return ", ".join([*(f"{name}{equals}{value}" for name, value in arguments.items()), *map(wrapper_text, wrappers)])


def wrapper_text(document: Mapping[str, Any]) -> str:
    """A wrapper as a reader sees it, without what is 0.

    >>> wrapper_text({"name": "observation_gain", "factor": 8.0, "from_trial": 10, "from_step": 0})
    'observation_gain(factor=8.0, from_trial=10)'
    """
    given = ", ".join(f"{name}={value}" for name, value in document.items() if name != "name" and value != 0)
    return f"{document['name']}({given})"


class WrapperStack:
    """The wrappers of one vector environment, and how far the lifetime of each row is.

    Args:
        stated: As a config states them, the one next to the environment first.
        rows: Number of rows, `B`.
        space: Observations of the environment, of one row.
        features: Number of columns before the feedback, `F`.
        action_space: Actions of one row.

    Attributes:
        documents: What was stated, checked, with every default.
        observation_space: What the agent sees.

    Raises:
        ConfigError: If a wrapper is none, or has nothing to change here.
    """

    def __init__(
        self,
        stated: Sequence[Mapping[str, Any]],
        rows: int,
        space: spaces.Box,
        features: int,
        action_space: spaces.Space[Any],
    ) -> None:
        self.documents = checked_wrappers(stated)
        self.wrappers = [
            WRAPPERS[one["name"]](**{name: value for name, value in one.items() if name != "name"})
            for one in self.documents
        ]
        low, high = space.low.astype(np.float32), space.high.astype(np.float32)
        own = slice(0, features)
        for wrapper in self.wrappers:
            wrapper.fit(rows, features, action_space)
            low[own], high[own] = wrapper.bounds(low[own], high[own])
        self.observation_space = spaces.Box(low, high, dtype=np.float32)
        self._steps: IntArray = np.zeros(rows, dtype=np.int64)
        self._trials: IntArray = np.zeros(rows, dtype=np.int64)

    def begin(self, rows: IntArray, tasks: Sequence[Task]) -> None:
        """Start a lifetime in `rows (R,)` on `tasks`, R of them."""
        self._steps[rows] = 0
        self._trials[rows] = 0
        for place, wrapper in enumerate(self.wrappers):
            key = zlib.crc32(b"wrapper"), place
            sequences = (np.random.SeedSequence(task.seed, spawn_key=key) for task in tasks)
            wrapper.begin(rows, [np.random.Generator(np.random.PCG64(sequence)) for sequence in sequences])

    def lived(self, trial_end: BoolArray) -> None:
        """Count a step of every row, and the trials `(B,)` that ended with it."""
        self._steps += 1
        self._trials += trial_end

    def see(self, features: SingleArray) -> None:
        """Change what the agent sees, `(B, F)`, in place."""
        for wrapper in self.wrappers:
            wrapper.see(features, self._begun(wrapper))

    def act(self, actions: Array) -> Array:
        """What is done where the agent chose `actions (B, ..)`; the same array where nothing changes them."""
        for wrapper in reversed(self.wrappers):
            actions = wrapper.act(actions, self._begun(wrapper))
        return actions

    def _begun(self, wrapper: RowWrapper) -> BoolArray:
        return np.asarray((self._trials >= wrapper.from_trial) & (self._steps >= wrapper.from_step))

    def check_beginnings(self, steps: int | None, trials: int | None) -> None:
        """Refuse a wrapper that would never begin in a lifetime of so many steps and trials (None: not known).

        Raises:
            ConfigError: Naming it.
        """
        for document in self.documents:
            for key, what, number in (("from_step", "steps", steps), ("from_trial", "trials", trials)):
                if number is not None and document[key] >= number:
                    raise ConfigError(
                        f"{document['name']}.{key}: it would never begin: a lifetime here has {number:,} {what}, got "
                        f"{document[key]:,}. Valid: 0 to {number - 1:,}."
                    )

    # State --------------------------------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """What a resumed run needs beside the tasks, as plain data and arrays."""
        return {"stated": self.documents, "steps": self._steps.copy(), "trials": self._trials.copy()}

    def restore(self, state: Mapping[str, Any], tasks: Sequence[Task], *, in_midlife: bool) -> None:
        """Go on, on `tasks`, B of them, with what `state` returned; not `in_midlife`: new lifetimes begin.

        Raises:
            CheckpointError: If the state is of other wrappers, or of no lifetimes.
        """
        if list(state["stated"]) != self.documents:
            raise CheckpointError(
                f"the environment's state is one with the wrappers {state['stated']}, and these are {self.documents}"
            )
        self.begin(np.arange(len(tasks)), tasks)
        if in_midlife:
            for own, name in ((self._steps, "steps"), (self._trials, "trials")):
                values = np.asarray(state[name])
                if values.shape != own.shape or values.dtype.kind != "i" or values.min() < 0:
                    raise CheckpointError(f"the stored {name} of wrappers are none: {values!r:.80}")
                own[:] = values
