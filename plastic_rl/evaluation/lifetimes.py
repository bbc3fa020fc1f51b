"""Let an agent live one lifetime on each of a list of tasks, and keep what it scored at every step.

Tasks flow in, batches of rows run through one vectorised environment, and a `Lifetimes` table flows out. Anything
with stable-baselines3's `predict` will do as the agent.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import gymnasium
import numpy as np
import numpy.typing as npt
import torch

from plastic_rl.arrays import BoolArray, FloatArray
from plastic_rl.envs import make_vector
from plastic_rl.envs.task import Agent, ReferenceAgent, RowNoise, Task
from plastic_rl.envs.vector_env import RowVectorEnv
from plastic_rl.errors import NonFiniteError, SpaceError
from plastic_rl.evaluation.statistics import mean_of_present, ratio
from plastic_rl.feedback import FeedbackLayout
from plastic_rl.policies import PlasticPolicy
from plastic_rl.rollout import Acted, Actor, PolicyActor, PredictActor, Step, TaskRows, finite_state, lifetimes

View = Callable[[npt.NDArray[Any]], npt.NDArray[Any]]
"""Turns observations `(B, I)` of the environment into those that the agent takes: as it saw them in training."""


def freezer(agent: object) -> Callable[[], AbstractContextManager[Any]] | None:
    """The agent's `freeze_plasticity`; None where it has none, or says that nothing in it is plastic."""
    freeze: Callable[[], AbstractContextManager[Any]] | None = getattr(agent, "freeze_plasticity", None)
    return freeze if getattr(agent, "is_plastic", True) else None


class StepContext(NamedTuple):
    """Where a batch of lifetimes stands after a step, for a callback that asks the agent something on the side.

    Attributes:
        agent: Who lives them.
        env: Where, B rows.
        view: Turns observations of the environment into those that the agent takes.
        tasks: The tasks of the batch, B of them.
        first: Place of the first of them among all tasks.
        time: Steps lived, 1 or more.
        observation: What comes next, `(B, I)`, with the outcome of the last step; the last one too, after which nothing
            comes.
        state: The agent's, before it has seen `observation`; to be read at once, for who acts in place goes on with it.
    """

    agent: Agent
    env: RowVectorEnv
    view: View
    tasks: Sequence[Task]
    first: int
    time: int
    observation: npt.NDArray[Any]
    state: Any


OnStep = Callable[[StepContext], None]


@dataclass(frozen=True)
class Lifetimes:
    """What happened in `N` lifetimes of up to `T` steps.

    Attributes:
        scores: Expected reward of each action where the environment knows it, else the reward received, `(N, T)`;
            NaN after the end of a lifetime.
        rewards: Reward received, `(N, T)`; NaN after the end of a lifetime.
        trial_ends: True where a step ended a trial, `(N, T)`.
        lengths: Steps of each lifetime, `(N,)`.
        expected: Whether every score is an expected reward.
        lifetime_steps: `T` where the environment fixes it, else None.
        steps_per_trial: Steps of every trial where the environment fixes them, else None.
        measures: What the environment measures beside the reward, by name, `(N, T)`; NaN where it gave none.
    """

    scores: FloatArray
    rewards: FloatArray
    trial_ends: BoolArray
    lengths: npt.NDArray[np.int64]
    expected: bool
    lifetime_steps: int | None
    steps_per_trial: int | None
    measures: Mapping[str, FloatArray] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def totals(self) -> FloatArray:
        """Sum of the scores of each lifetime, `(N,)`."""
        return np.asarray(np.nansum(self.scores, axis=1))

    @property
    def reward_totals(self) -> FloatArray:
        """Sum of the rewards received in each lifetime, `(N,)`."""
        return np.asarray(np.nansum(self.rewards, axis=1))

    @property
    def unit(self) -> Literal["step", "trial"]:
        """In what a lifetime is told: its trials; its steps where a trial is one, or trials of fixed lifetimes differ.

        (The trials of a maze differ in length alone: each returns the goal's reward.)
        """
        return "trial" if self.lifetime_steps is None or (self.steps_per_trial or 0) > 1 else "step"

    def adaptation(self) -> FloatArray:
        """Mean score of the last tenth of each lifetime's trials minus that of the first, `(N,)`.

        Of its steps where that is the `unit`, or no lifetime has two trials. NaN in a lifetime of one trial or step.
        """
        table = self.trial_returns() if self.unit == "trial" else self.scores
        if table.shape[1] < 2:
            table = self.scores
        counts = (~np.isnan(table)).sum(1, keepdims=True)
        share = np.maximum(np.round(counts / 10), 1)
        places = np.arange(table.shape[1])
        first = np.where(places < share, table, 0.0).sum(1)
        last = np.where((places >= counts - share) & (places < counts), table, 0.0).sum(1)
        return np.where(counts > 1, (last - first)[:, None] / share, np.nan)[:, 0]

    def trial_returns(self) -> FloatArray:
        """Sum of the scores of each trial, `(N, trials)`; NaN where a lifetime has fewer trials."""
        return self._by_trial(self.scores)[0]

    def trial_means(self, values: FloatArray) -> FloatArray:
        """Mean of `values (N, T)` in each trial, `(N, trials)`; NaN where it has none."""
        return ratio(*self._by_trial(values))

    def _by_trial(self, values: FloatArray) -> tuple[FloatArray, npt.NDArray[np.intp]]:
        """Sum of `values (N, T)` in each trial, and how many there are, `(N, trials)`.

        A trial that the horizon of a fixed-length lifetime cuts short is left out; where lifetimes end by themselves,
        their end is that of a trial.
        """
        ends = self.trial_ends.copy()
        if self.lifetime_steps is None:
            ends[np.arange(len(self)), self.lengths - 1] = True
        trial_of_step: npt.NDArray[np.int64] = np.cumsum(ends, axis=1) - ends
        complete = ends.sum(1)
        trials = int(complete.max(initial=0))
        inside = (trial_of_step < complete[:, None]) & ~np.isnan(values)
        place = (np.arange(len(self))[:, None] * max(trials, 1) + trial_of_step)[inside]
        size, shape = len(self) * trials, (len(self), trials)
        sums = np.bincount(place, weights=values[inside], minlength=size)[:size].reshape(shape)
        counts = np.bincount(place, minlength=size)[:size].reshape(shape)
        return np.where(np.arange(trials) < complete[:, None], sums, np.nan), counts

    def binned(self, values: FloatArray, width: int) -> FloatArray:
        """Mean of `values (N, T)` in bins of `width` steps, `(N, ceil(T / width))`; NaN where there is none."""
        padding = -values.shape[1] % width
        padded = np.pad(values, ((0, 0), (0, padding)), constant_values=np.nan)
        return mean_of_present(padded.reshape(len(self), -1, width), axis=2)


def run_lifetimes(
    agent: Agent,
    env_id: str,
    tasks: Sequence[Task],
    *,
    env_kwargs: Mapping[str, Any] | None = None,
    trials: int = 1,
    same_task_each_trial: bool | None = None,
    wrappers: Sequence[Mapping[str, Any]] = (),
    deterministic: bool = False,
    seed: int = 0,
    agent_seed: int | None = None,
    batch_size: int = 1000,
    max_steps: int = 100_000,
    on_step: OnStep | None = None,
) -> Lifetimes:
    """Live one lifetime on each task.

    The noise of the environment on task `n` follows from `seed + n`: it is the same for every agent (as far as their
    actions leave it so) and every `batch_size`. So are start weights and sampled actions of this package's agents and
    of reference agents, which follow from `agent_seed` and `n`. Another agent samples from one stream for the whole
    batch, so that its actions depend on `batch_size`: if it has `begin(tasks, seed)`, that is called before each batch;
    one that samples from torch's global generator (any stock stable-baselines3 model) finds it seeded while it acts
    here, and left as it was afterwards; one that samples from elsewhere is deterministic only if it sees to that
    itself.

    Args:
        agent: Anything with stable-baselines3's `predict`; `view_of` says which observations it sees.
        env_id: Id of any environment that `plastic_rl.envs.make_vector` can make.
        tasks: `N` tasks, 1 or more.
        env_kwargs: Arguments of the environment.
        trials: Trials in a lifetime of an environment that has no lifetimes of its own.
        same_task_each_trial: Whether these share the lifetime's seed; None: where tasks are reset seeds (`Lifetime`).
        wrappers: Changes of the task, see `plastic_rl.envs.wrappers`.
        deterministic: Greedy instead of sampled actions.
        seed: Of the environment's noise, 0 or more.
        agent_seed: Of the agent's own stream; by default it follows from `seed`.
        batch_size: Rows that run at a time.
        max_steps: Longest lifetime allowed.
        on_step: Called after every step of a batch, as long as none of its lifetimes is over or all of them are.

    Returns:
        One row per task, in the order of `tasks`.

    Raises:
        ValueError: If there are no tasks, or `batch_size` is below 1.
        SpaceError: If the agent declares spaces that are not the environment's, with or without feedback.
        RunError: If a lifetime lasts longer than `max_steps`.
        NonFiniteError: If an action or a policy's state is NaN or infinite, or what the environment gives.

    >>> from plastic_rl.envs import distribution_for
    >>> distribution = distribution_for("plastic_rl/ReversalBandit-v0")
    >>> oracle = distribution.reference_agents("test")["oracle"]
    >>> tasks = distribution.tasks("test", 0, 3)
    >>> run_lifetimes(oracle, "plastic_rl/ReversalBandit-v0", tasks).totals.round(9).tolist()
    [80.0, 80.0, 80.0]
    """
    if not tasks:
        raise ValueError("run_lifetimes needs at least one task")
    if batch_size < 1:
        raise ValueError(f"batch_size must be 1 or more, got {batch_size}")

    def live(first: int) -> Lifetimes:
        batch = tasks[first : first + batch_size]
        # An environment per batch: a reused one would still hold the tasks of the lifetimes begun meanwhile.
        made = make_vector(
            env_id,
            len(batch),
            env_kwargs=dict(env_kwargs or {}),
            split=batch[0].split,
            trials=trials,
            same_task_each_trial=same_task_each_trial,
            wrappers=wrappers,
        )
        with closing(made) as env:
            view, metadata = view_of(agent, env_id, env), env.metadata
            rows = TaskRows(env, batch, range(seed + first, seed + first + len(batch)), max_steps=max_steps)
            own_seed = seed if agent_seed is None else agent_seed
            alive = acting(agent, view, env, batch, first=first, deterministic=deterministic, seed=own_seed)
            lengths = np.zeros(len(batch), np.int64)
            scores: list[FloatArray] = []
            rewards: list[FloatArray] = []
            trial_ends: list[BoolArray] = []
            measures: dict[str, list[FloatArray]] = {name: [] for name in metadata.get("measures", {})}
            expected = True
            with alive as (actor, state):
                for step in finite_lifetimes(rows, actor, state):
                    outcome = step.outcome
                    expected = expected and bool(outcome.known[outcome.counted].all())
                    scores.append(np.where(outcome.counted, outcome.expected, np.nan))
                    rewards.append(np.where(outcome.counted, outcome.reward, np.nan))
                    trial_ends.append(outcome.counted & outcome.trial_end)
                    lengths += outcome.counted
                    for name, kept in measures.items():
                        kept.append(outcome.measures[name])
                    if on_step is not None and rows.alive.all() == rows.alive.any():
                        lived = step.time + 1
                        on_step(
                            StepContext(agent, env, view, batch, first, lived, outcome.observation, step.acted.state)
                        )
        return Lifetimes(
            scores=np.stack(scores, 1),
            rewards=np.stack(rewards, 1),
            trial_ends=np.stack(trial_ends, 1),
            lengths=lengths,
            expected=expected,
            lifetime_steps=metadata.get("lifetime_steps"),
            steps_per_trial=metadata.get("steps_per_trial"),
            measures={name: np.stack(kept, 1) for name, kept in measures.items()},
        )

    return _concatenate([live(first) for first in range(0, len(tasks), batch_size)])


@contextmanager
def acting(
    agent: Agent,
    view: View,
    env: RowVectorEnv,
    tasks: Sequence[Task],
    *,
    first: int = 0,
    deterministic: bool = False,
    seed: int = 0,
) -> Iterator[tuple[Actor, Any]]:
    """Let an agent act in a batch of lifetimes, within this context.

    Args:
        agent: As in `run_lifetimes`.
        view: From `view_of`.
        env: Of B rows.
        tasks: Of the rows, B of them.
        first: Place of the first among all tasks.
        deterministic: Greedy instead of sampled actions.
        seed: Of the agent's own streams, 0 or more; they are unrelated to the environment's of the same seed.

    Yields:
        Who acts, and the state that it begins with.
    """
    policy = getattr(agent, "policy", agent)
    if isinstance(policy, PlasticPolicy):
        noise = RowNoise(seed, range(first, first + len(tasks)))
        with torch.no_grad():
            state = policy.network.initial_state(len(tasks), torch.Generator())
            if policy.network.draws_key:
                state["key"] = torch.from_numpy(noise.keys())
            state = {name: entry.to(policy.device) for name, entry in state.items()}
            distribution, params = policy.distribution, policy.parameters_by_name()

            def draw(_: int) -> torch.Tensor | None:
                if deterministic:
                    return None
                drawn = noise.draw(distribution.noise_kind, distribution.noise_size)
                return torch.from_numpy(drawn).to(policy.device, torch.float32)

            yield PolicyActor(policy, params, draw, (len(tasks),), checked=True, view=view), state
        return
    actor = PredictActor(agent, view, deterministic)
    if isinstance(agent, ReferenceAgent):
        agent.attach(env)
        agent.begin(tasks, seed, first)
        yield actor, None
        return
    sequence = np.random.SeedSequence(seed, spawn_key=(zlib.crc32(b"agent"), first))
    batch_seed = int(sequence.generate_state(1, np.uint64)[0] >> 1)
    begin = getattr(agent, "begin", None)
    if begin is not None:
        begin(tasks, batch_seed)
        yield actor, None
    else:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(batch_seed)
            yield actor, None


def finite_lifetimes(rows: TaskRows, actor: Actor, state: Any) -> Iterator[Step]:
    """As `plastic_rl.rollout.lifetimes`, looking at every action, and at the state with which a lifetime ends.

    Raises:
        NonFiniteError: If one of them is NaN or infinite.
    """
    time = 0

    def refuse(broken: BoolArray) -> None:
        if broken.any():
            raise NonFiniteError(
                f"the agent became NaN or infinite after {time} steps on {rows.name(int(np.flatnonzero(broken)[0]))} "
                f"({int(broken.sum())} of {len(broken)} lifetimes), so that its scores would mean nothing. Bound what "
                "grows in its network (a clip, ranges of its parameters) and train it again"
            )

    def check(acted: Acted) -> None:
        if acted.finite is not None:
            refuse(rows.alive & ~acted.finite)

    for step in lifetimes(rows, actor, state, before=check):
        time = step.time + 1
        ended = step.outcome.ended
        if ended.any() and isinstance(actor, PolicyActor):
            broken = np.zeros_like(ended)
            broken[ended] = ~finite_state(step.acted.state, torch.from_numpy(ended))
            refuse(broken)
        yield step


def _concatenate(batches: Sequence[Lifetimes]) -> Lifetimes:
    steps = max(batch.scores.shape[1] for batch in batches)

    def pad(tables: Sequence[npt.NDArray[Any]], fill: float | bool) -> npt.NDArray[Any]:
        widths = [((0, 0), (0, steps - table.shape[1])) for table in tables]
        return np.concatenate(
            [np.pad(table, width, constant_values=fill) for table, width in zip(tables, widths, strict=True)]
        )

    return Lifetimes(
        scores=pad([batch.scores for batch in batches], np.nan),
        rewards=pad([batch.rewards for batch in batches], np.nan),
        trial_ends=pad([batch.trial_ends for batch in batches], False),
        lengths=np.concatenate([batch.lengths for batch in batches]),
        expected=all(batch.expected for batch in batches),
        lifetime_steps=batches[0].lifetime_steps,
        steps_per_trial=batches[0].steps_per_trial,
        measures={name: pad([batch.measures[name] for batch in batches], np.nan) for name in batches[0].measures},
    )


def view_of(agent: object, env_id: str, env: gymnasium.vector.VectorEnv[Any, Any, Any]) -> View:
    """Say how the agent sees the environment, after comparing the spaces it declares, if it does.

    An agent trained behind stable-baselines3's VecNormalize sees observations normalised by its training statistics,
    which stay as they are; feedback is exempt as it was in training. An agent whose observation space is that of the
    plain environment (a stock stable-baselines3 model) sees the features without the feedback columns.

    Args:
        agent: With or without `observation_space`, `action_space` and `get_vec_normalize_env`.
        env_id: For the message.
        env: From `plastic_rl.envs.make_vector`.

    Raises:
        SpaceError: If the observation's shape or the action space differs.
    """
    layout = FeedbackLayout.from_dict(env.metadata["feedback"])
    declared, wanted = getattr(agent, "observation_space", None), env.single_observation_space
    plain = declared is not None and declared.shape == (layout.start,)
    if declared is not None and not plain and declared.shape != wanted.shape:
        raise _misfit("observation", declared, wanted, env_id)
    actions, taken = getattr(agent, "action_space", None), env.single_action_space
    boxes = isinstance(actions, gymnasium.spaces.Box) and isinstance(taken, gymnasium.spaces.Box)
    if actions is not None and actions != taken and not (boxes and actions.shape == taken.shape):
        raise _misfit("action", actions, taken, env_id)
    features = slice(0, layout.start)
    lookup = getattr(agent, "get_vec_normalize_env", None)
    normalised: Any = None if lookup is None else lookup()
    if normalised is None or not normalised.norm_obs:
        return (lambda observation: observation[:, features]) if plain else (lambda observation: observation)
    if plain:
        return lambda observation: np.asarray(normalised.normalize_obs(observation[:, features]))
    if normalised.observation_space.shape == (layout.stop,):
        return lambda observation: np.asarray(normalised.normalize_obs(observation))
    bounds: Any = wanted if declared is None else declared

    def see(observation: npt.NDArray[Any]) -> npt.NDArray[Any]:
        # The feedback was put around VecNormalize, and what came out kept within the declared space.
        shown = observation.copy()
        shown[:, features] = normalised.normalize_obs(observation[:, features])
        kept: npt.NDArray[Any] = np.clip(shown, bounds.low, bounds.high)
        return kept

    return see


def _misfit(name: str, declared: gymnasium.Space[Any], wanted: gymnasium.Space[Any], env_id: str) -> SpaceError:
    return SpaceError(
        f"the agent's {name} space ({_short(declared)}) does not fit {env_id}, which has {_short(wanted)}. "
        "Evaluate it on an environment of the kind (and arguments) that it was trained on; rules that do not "
        "depend on sizes can be carried over: plastic-rl evaluate ... --carry-over."
    )


def _short(space: gymnasium.Space[Any]) -> str:
    if isinstance(space, gymnasium.spaces.Box) and len(space.shape) == 1:
        return f"{space.shape[0]} columns"
    return str(space)
