"""The one loop over steps of many lifetimes: an `Actor` acts in `Rows`, one step of all rows at a time.

Data flow of a step: observation -> actor -> actions -> rows -> `StepOutcome`, whose observation is acted on next.
`steps` yields each step after it was taken; who iterates keeps what it needs and says when to stop: collecting for A2C,
the fitness of a population, evaluation and video are all such loops. No algorithm is imported here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from plastic_rl.arrays import Array, BoolArray, FloatArray
from plastic_rl.envs.task import Agent, Task
from plastic_rl.envs.vector_env import RowVectorEnv
from plastic_rl.errors import NonFiniteError, RunError
from plastic_rl.networks.acting import ActsInPlace
from plastic_rl.networks.native import MOST_PROBABLE, OUTPUTS, SAMPLES
from plastic_rl.policies import PlasticPolicy
from plastic_rl.policies.distributions import Categorical
from plastic_rl.policies.policy import ArrayHead

MAX_STEPS = 100_000
"""Longest lifetime: one that never comes to its end would stop everything."""


class Acted(NamedTuple):
    """What an actor does in one step.

    Attributes:
        actions: `(B, ..)`, as the environment takes them.
        state: The actor's, after it has seen the observation; of who acts in place, good until the next step.
        sampled: The actions as they were drawn, tensor or array, before they were fitted to the environment; None where
            not kept.
        finite: Where what the actor's network computed is finite, `(B,)`; None: everywhere, or not looked at.
    """

    actions: Array
    state: Any
    sampled: Any = None
    finite: BoolArray | None = None


class Actor(Protocol):
    """Who acts in all rows at once; what it carries along goes in and comes out."""

    def act(self, time: int, observation: Array, starts: BoolArray, state: Any) -> Acted:
        """Choose actions.

        Args:
            time: Steps taken before this one.
            observation: `(B, I)`.
            starts: Where a lifetime starts with this observation, `(B,)`.
            state: From the step before; at first what `steps` was given.
        """
        ...


@dataclass(slots=True)
class StepOutcome:
    """What a step of all rows brought.

    Attributes:
        observation: What comes next, `(B, I)`; the first of a new lifetime where rows start anew by themselves.
        starts: Where a lifetime starts with it, `(B,)`.
        reward: `(B,)`.
        expected: Expected reward where the environment knows it, else the reward, `(B,)` float64.
        known: Where it does, `(B,)`.
        ended: Where the lifetime is over with this step, `(B,)`.
        counted: Where this was a step of a lifetime at all, `(B,)`: not in rows that rest or only reset.
        trial_end: Where it ended a trial, `(B,)`.
        measures: What the environment measures beside the reward, by name, `(B,)`; NaN where it gave none.
    """

    observation: Array
    starts: BoolArray
    reward: Array
    expected: FloatArray
    known: BoolArray
    ended: BoolArray
    counted: BoolArray
    trial_end: BoolArray
    measures: Mapping[str, FloatArray] = field(default_factory=dict)


class Rows(Protocol):
    """Lifetimes lived side by side."""

    def present(self) -> tuple[Array, BoolArray]:
        """The observations `(B, I)` to act on now, and where a lifetime starts with them, `(B,)`."""
        ...

    def step(self, actions: Array) -> StepOutcome:
        """Take a step in every row."""
        ...


class Step(NamedTuple):
    """One step of all rows.

    Attributes:
        time: Steps taken before it.
        observation: What was acted on, `(B, I)`.
        starts: Where a lifetime started with it, `(B,)`.
        acted: What the actor did.
        outcome: What came of it.
    """

    time: int
    observation: Array
    starts: BoolArray
    acted: Acted
    outcome: StepOutcome


def steps(
    rows: Rows, actor: Actor, state: Any = None, *, before: Callable[[Acted], None] | None = None
) -> Iterator[Step]:
    """Act without end, or as long as it is iterated.

    Args:
        rows: Where.
        actor: Who.
        state: The actor's at the start.
        before: Called with what the actor is about to do.
    """
    observation, starts = rows.present()
    time = 0
    while True:
        acted = actor.act(time, observation, starts, state)
        if before is not None:
            before(acted)
        outcome = rows.step(acted.actions)
        yield Step(time, observation, starts, acted, outcome)
        observation, starts, state = outcome.observation, outcome.starts, acted.state
        time += 1


def lifetimes(
    rows: TaskRows, actor: Actor, state: Any = None, *, before: Callable[[Acted], None] | None = None
) -> Iterator[Step]:
    """As `steps`, to the end of the last lifetime.

    Raises:
        RunError: If lifetimes do not end within `rows.max_steps` steps.
        NonFiniteError: If the environment gives an observation or a reward that is NaN or infinite.
    """
    for step in steps(rows, actor, state, before=before):
        yield step
        if not np.count_nonzero(rows.alive):
            return
        if step.time + 1 == rows.max_steps:
            raise RunError(
                f"{int(rows.alive.sum())} of {len(rows.alive)} lifetimes had not ended after {rows.max_steps} steps; "
                "give the environment a time limit"
            )


# --- rows ------------------------------------------------------------------------------------------------------------


@dataclass
class TaskRows:
    """One lifetime on each of B tasks, in an environment of this package; a row whose lifetime is over rests.

    Args:
        env: Of B rows.
        tasks: B of them.
        seeds: Keys of the rows' noise, B of them.
        named: Names a row in messages; by default by its task.
        max_steps: Longest lifetime.

    Attributes:
        alive: Rows whose lifetime is not over, `(B,)`.
    """

    env: RowVectorEnv
    tasks: Sequence[Task]
    seeds: Sequence[int]
    named: Callable[[int], str] | None = None
    max_steps: int = MAX_STEPS
    alive: BoolArray = field(init=False)
    _time: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        self._nowhere = np.zeros(self.env.num_envs, dtype=np.bool_)
        self._measures = tuple(self.env.metadata.get("measures", ()))
        options = {"tasks": list(self.tasks), "row_seeds": list(self.seeds), "rest": True}
        self._observation, _ = self.env.reset(options=options)
        self.alive = np.ones(self.env.num_envs, dtype=np.bool_)
        self._check("an observation", self._observation)

    def present(self) -> tuple[Array, BoolArray]:
        """See `Rows`: newborn lifetimes."""
        return self._observation, np.ones(self.env.num_envs, dtype=np.bool_)

    def rest(self, rows: BoolArray) -> None:
        """End the lifetimes of `rows (B,)` before their next step."""
        self.env.rest(rows)
        self.alive &= ~rows

    def step(self, actions: Array) -> StepOutcome:
        """See `Rows`."""
        observation, reward, terminated, truncated, info = self.env.step(actions)
        counted = self.alive
        self._time += 1
        self._check("a reward", reward)
        self._check("an observation", observation)
        known = info.get("_expected_reward", self._nowhere)
        ended = counted & (terminated | truncated)
        self.alive = counted & ~ended
        return StepOutcome(
            observation=observation,
            starts=self._nowhere,
            reward=reward,
            expected=np.where(known, info["expected_reward"], reward) if np.count_nonzero(known) else reward,
            known=known,
            ended=ended,
            counted=counted,
            trial_end=info["_trial_end"] & (info["trial_end"] > 0),
            measures={name: self._measured(name, info) for name in self._measures},
        )

    def _measured(self, name: str, info: Mapping[str, Array]) -> FloatArray:
        if name not in info:
            return np.full(len(self.alive), np.nan)
        return np.where(info[f"_{name}"], info[name], np.nan)

    def name(self, row: int) -> str:
        """Name a row in a message."""
        return self.named(row) if self.named else f"task {self.tasks[row].index} of {self.tasks[row].split}"

    def _check(self, what: str, values: Array) -> None:
        if np.count_nonzero(np.isfinite(values)) == values.size:
            return
        bad = self.alive & ~np.isfinite(values.reshape(len(self.alive), -1)).all(1)
        for row in np.flatnonzero(bad)[:1].tolist():
            entries = values[row].reshape(-1)
            raise NonFiniteError(
                f"the environment gave {what} of {entries[~np.isfinite(entries)][0]} after {self._time} steps to "
                f"{self.name(row)} (environment seed {self.seeds[row]}); look at the environment, not at the agent"
            )


# --- actors ----------------------------------------------------------------------------------------------------------


@dataclass
class PolicyActor:
    """A policy, or a population of them, that acts by given parameters.

    Attributes:
        policy: The policy.
        params: Its parameters by name, with a leading `P` where there is a population.
        noise: Noise of the actions at a step, `(.., B, noise_size)`; None for the most probable actions.
        shape: `(B,)`, or `(P, B)` with a population, whose rows run over individuals first.
        checked: Whether to look for what is not finite; such rows then take a valid action.
        view: Turns observations of the environment into those that the policy takes; None: they are.
        steps: How many of the last steps a network on the native core keeps.
        recorded: Who acts there, with what it keeps for `unroll`; None where the network does not, or before a step.
    """

    policy: PlasticPolicy
    params: Mapping[str, Tensor]
    noise: Callable[[int], Tensor | None]
    shape: tuple[int, ...]
    checked: bool = False
    view: Callable[[Array], Array] | None = None
    steps: int = 32
    recorded: ActsInPlace | None = field(init=False, default=None)
    _device: torch.device = field(init=False)
    _array_head: ArrayHead | None = field(init=False)

    def __post_init__(self) -> None:
        self._device = self.policy.device
        self.params = self.policy.prepared(self.params)
        alone = len(self.shape) == 1
        self._array_head = self.policy.array_head(self.params, self.shape[0]) if alone else None

    def seen(self, observation: Array, starts: BoolArray) -> tuple[Tensor, Tensor]:
        """Observations and starts as the policy takes them, `(.., B, I)` and `(.., B)`."""
        if self.view is not None:
            observation = self.view(observation)
        shown, begins = torch.from_numpy(observation), torch.from_numpy(starts)
        if self._device.type != "cpu" or shown.dtype is not torch.float32:
            shown, begins = shown.to(self._device, torch.float32), begins.to(self._device)
        if len(self.shape) > 1:
            shown, begins = shown.reshape(*self.shape, -1), begins.reshape(self.shape)
        return shown, begins

    def act(self, time: int, observation: Array, starts: BoolArray, state: Any) -> Acted:
        """See `Actor`."""
        policy, acting, noise = self.policy, self.recorded, self.noise(time)
        if time == 0 or (acting is not None and state is not acting):
            acting = self.recorded = policy.acting(self.params, state, self.shape, self.steps)
        if acting is not None:
            return self._act_natively(
                acting, observation if self.view is None else self.view(observation), starts, noise
            )
        shown, begins = self.seen(observation, starts)
        features, state = policy.features(self.params, shown, state, begins)
        if self._array_head is not None:
            logits = self._array_head(features)
            if not self.checked or float(logits.max()) < math.inf:
                chosen = self._array_head.choose(logits, noise)
                return Acted(chosen, state, chosen)
        return self._chosen(policy.head(self.params, features), state, noise)

    def _act_natively(self, acting: ActsInPlace, observation: Array, starts: BoolArray, noise: Tensor | None) -> Acted:
        """Act on the native core, which also chooses among the actions of one Discrete space."""
        choice = OUTPUTS
        if acting.has_head and type(self.policy.distribution) is Categorical:
            choice = MOST_PROBABLE if noise is None else SAMPLES
        uniform = None if noise is None or choice == OUTPUTS else noise.numpy().reshape(-1)
        well = acting.step(observation, starts, choice, uniform)
        if choice != OUTPUTS and (well or not self.checked):
            chosen = acting.actions.copy()
            return Acted(chosen, acting, chosen)
        head = acting.outputs if acting.has_head else self.policy.head(self.params, acting.features)
        return self._chosen(head, acting, noise)

    def _chosen(self, head: Tensor, state: Any, noise: Tensor | None) -> Acted:
        """What is done by the action distribution's parameters `(.., B, H)`."""
        policy = self.policy
        actions = policy.choose(self.params, head, noise)
        finite = None
        if self.checked and not _all_well(head, actions):
            well = _well(head, actions)
            actions[~well] = 0
            finite = well.cpu().numpy().reshape(-1)
        flat = actions if len(self.shape) == 1 else actions.flatten(0, 1)
        return Acted(policy.distribution.to_environment(flat).cpu().numpy(), state, actions, finite)


def _all_well(head: Tensor, actions: Tensor) -> bool:
    """Whether `_well` is true everywhere, by what one number tells: the largest is NaN where one is."""
    largest = torch.maximum(head.max(), actions.abs().max()) if actions.is_floating_point() else head.max()
    return float(largest) < math.inf


def _well(head: Tensor, actions: Tensor) -> Tensor:
    """Where what the network answers can be acted on, `(.., B)`: NaN would act like any number, and might win."""
    # Minus infinity is the logit of an action that is never taken.
    well = (head < math.inf).all(-1)
    return well & actions.isfinite().all(-1) if actions.is_floating_point() else well


def finite_state(state: Mapping[str, Tensor], rows: Tensor) -> npt.NDArray[np.bool_]:
    """Whether all that networks carry along is finite, for each of the `rows (.., B)` that are true."""
    count = int(rows.sum())
    finite = torch.ones(count, dtype=torch.bool)
    for entry in state.values():
        if not entry.is_floating_point():
            continue
        where = rows.to(entry.device)
        if rows.dim() == 2 and entry.stride(0) == 0:
            # Weights that all individuals have are looked at once.
            well = entry[0].isfinite().reshape(rows.shape[1], -1).all(1).expand(rows.shape)[where]
        else:
            well = entry[where].isfinite().reshape(count, -1).all(1)
        finite &= well.cpu()
    return np.asarray(finite.numpy())


@dataclass
class PredictActor:
    """Anything with stable-baselines3's `predict`.

    Attributes:
        agent: The agent.
        view: Turns observations of the environment into those that the agent takes.
        deterministic: Greedy instead of sampled actions.
    """

    agent: Agent
    view: Callable[[Array], Array]
    deterministic: bool

    def act(self, time: int, observation: Array, starts: BoolArray, state: Any) -> Acted:
        """See `Actor`."""
        # A copy: stock recurrent models of stable-baselines3's kind change the array that they are given.
        actions, state = self.agent.predict(self.view(observation), state, starts.copy(), self.deterministic)
        actions = np.asarray(actions)
        finite = np.isfinite(actions.reshape(len(actions), -1)).all(1) if actions.dtype.kind == "f" else None
        return Acted(actions, state, None, None if finite is None else np.asarray(finite))
