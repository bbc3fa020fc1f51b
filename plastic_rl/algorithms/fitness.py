"""Fitness of individuals: lifetimes of a whole chunk of a population, lived side by side in one environment.

An `Exam` is one generation's tasks, noise and seeds, the same for every individual; `Examiner` lets a chunk of
individuals sit it. Rows of the environment run over individuals first: row `p B + b` is lifetime `b` of individual `p`.
All randomness follows from the exam, so that results do not depend on where a chunk is examined.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from gymnasium.vector import AutoresetMode
from torch import Tensor

from plastic_rl.algorithms.genome import Genome
from plastic_rl.arrays import BoolArray, FloatArray
from plastic_rl.envs import first_task, make_vector
from plastic_rl.envs.vector_env import RowVectorEnv
from plastic_rl.errors import NonFiniteError, RunError
from plastic_rl.feedback import FeedbackLayout
from plastic_rl.policies import PlasticPolicy

Statistic = Literal["mean", "late_half", "worst_quartile"]

MAX_STEPS = 100_000
"""Longest lifetime: an individual that never comes to its end would stop everything."""
_BLOCK = 256
"""Steps that noise is drawn ahead for, where lifetimes have no fixed length."""


@contextmanager
def _one_thread() -> Iterator[None]:
    """Sums of floats depend on the number of threads in their last bits; chunks have one in every engine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@dataclass(frozen=True)
class Exam:
    """What the individuals of one generation live, the same for all.

    Attributes:
        seed: Of the run; runs with other seeds sit other exams.
        generation: Which generation, from 0.
        lifetimes: Lifetimes of each individual, `B`; each is on a task of its own that no generation before has met.
    """

    seed: int
    generation: int
    lifetimes: int

    @property
    def tasks(self) -> range:
        """Indices of the tasks in the split `train`, B of them."""
        start = first_task(self.seed) + self.generation * self.lifetimes
        return range(start, start + self.lifetimes)

    def environment_seeds(self) -> list[int]:
        """Seeds of the environment's noise in each of the B lifetimes."""
        return [int(word) for word in self._sequence("environment").generate_state(self.lifetimes, np.uint32)]

    def agent_generator(self) -> torch.Generator:
        """The stream of start weights and of the noise in actions."""
        seed = int(self._sequence("agent").generate_state(1, np.uint64)[0] >> np.uint64(1))
        return torch.Generator().manual_seed(seed)

    def _sequence(self, stream: str) -> np.random.SeedSequence:
        return np.random.SeedSequence(self.seed, spawn_key=(zlib.crc32(stream.encode()), self.generation))


@dataclass(frozen=True)
class Sitting:
    """One piece of work: some individuals of a generation, and the exam that they sit.

    Attributes:
        exam: The generation's.
        first: Number of the first individual.
        genes: `(P, N)`.
    """

    exam: Exam
    first: int
    genes: FloatArray


@dataclass(frozen=True)
class Marks:
    """What `P` individuals earned in `B` lifetimes each, all `(P, B)`.

    Attributes:
        reward: Sum of the reward of a lifetime.
        late: Sum of the reward of its second half.
        score: Sum of the expected reward where the environment knows it, else of the reward; for reports only.
        steps: Length of the lifetime.
        finite: Whether the network was finite all through it. One that is not rests from then on.
    """

    reward: FloatArray
    late: FloatArray
    score: FloatArray
    steps: npt.NDArray[np.int64]
    finite: BoolArray

    @property
    def usable(self) -> BoolArray:
        """Individuals whose network was finite in all their lifetimes, `(P,)`."""
        return np.asarray(self.finite.all(1))

    def fitness(self, statistic: Statistic) -> FloatArray:
        """Fitness of each individual, `(P,)`: what was earned in a lifetime, on average.

        From the rewards that the agent received. The expected reward, where an environment tells it, knows the hidden
        task: it may score agents, not train them. An individual whose network became NaN or infinite has the worst
        fitness of those whose did not, less 1 (there must be one).

        Args:
            statistic: `"mean"`: over all lifetimes; `"late_half"`: the same, of their second halves alone, when there
                was time to learn; `"worst_quartile"`: over the worst quarter of the lifetimes.
        """
        if statistic == "late_half":
            earned = self.late
        elif statistic == "worst_quartile":
            earned = np.sort(self.reward, axis=1)[:, : -(-self.reward.shape[1] // 4)]
        else:
            earned = self.reward
        fitness = earned.mean(1)
        return np.asarray(np.where(self.usable, fitness, fitness[self.usable].min() - 1))

    @classmethod
    def joined(cls, pieces: list[Marks]) -> Marks:
        """Put the marks of a population's chunks one below the other."""
        return cls(*(np.concatenate([getattr(piece, name) for piece in pieces]) for name in cls.__annotations__))


@dataclass(frozen=True)
class Setting:
    """Where and with which policy individuals live: plain data that a worker process can be sent.

    Attributes:
        env_id: Id of the environment.
        env_kwargs: Its arguments.
        trials: Trials in a lifetime of an environment that has no lifetimes of its own.
        policy: The policy's class.
        policy_kwargs: Its arguments.
        deterministic: Take the most probable actions instead of sampling.
        device: Where the network runs.
    """

    env_id: str
    env_kwargs: Mapping[str, Any]
    trials: int
    policy: type[PlasticPolicy]
    policy_kwargs: Mapping[str, Any]
    deterministic: bool = False
    device: str = "cpu"


class Examiner:
    """Lets chunks of individuals sit their exams; callable, so that an engine can map it over sittings.

    It makes its environment and policy when first called, and keeps them for chunks of the same size; only the plain
    data are pickled for worker processes.

    Args:
        setting: Where individuals live.
        genome: What their genes stand for.
        fixed: Parameters that do not evolve, by name.
    """

    def __init__(self, setting: Setting, genome: Genome, fixed: Mapping[str, npt.NDArray[Any]]) -> None:
        self.setting, self.genome, self.fixed = setting, genome, dict(fixed)
        self._envs: dict[int, RowVectorEnv] = {}
        self._policy: PlasticPolicy | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_envs": {}, "_policy": None}

    def close(self) -> None:
        """Close the environment."""
        for env in self._envs.values():
            env.close()
        self._envs = {}

    def __call__(self, sitting: Sitting) -> Marks:
        """Let the individuals live.

        Raises:
            NonFiniteError: If the environment gives a reward or an observation that is NaN or infinite.
            RunError: If a lifetime does not end within `MAX_STEPS` steps.
        """
        population, lifetimes = len(sitting.genes), sitting.exam.lifetimes
        env = self._environment(population * lifetimes)
        policy = self._policy_for(env)
        with torch.inference_mode(), _one_thread():
            return _live(env, policy, self._parameters(sitting.genes), sitting, self.setting.deterministic)

    def _environment(self, rows: int) -> RowVectorEnv:
        # A population that is no multiple of the chunk has chunks of two sizes in every generation.
        if rows not in self._envs:
            setting = self.setting
            self._envs[rows] = make_vector(
                setting.env_id,
                rows,
                env_kwargs=dict(setting.env_kwargs),
                trials=setting.trials,
                autoreset_mode=AutoresetMode.DISABLED,
            )
        return self._envs[rows]

    def _policy_for(self, env: RowVectorEnv) -> PlasticPolicy:
        if self._policy is None:
            self._policy = self.setting.policy(
                env.single_observation_space,
                env.single_action_space,
                feedback=FeedbackLayout.from_dict(env.metadata["feedback"]),
                steps_per_trial=env.metadata.get("steps_per_trial"),
                **self.setting.policy_kwargs,
            ).to(self.setting.device)
            self._policy.set_training_mode(False)
        return self._policy

    def _parameters(self, genes: FloatArray) -> dict[str, Tensor]:
        """Every parameter with a leading `P`."""
        device = self.setting.device
        shared = {name: torch.from_numpy(value).to(device) for name, value in self.fixed.items()}
        fixed = {name: value.expand(len(genes), *value.shape) for name, value in shared.items()}
        return fixed | {name: value.to(device) for name, value in self.genome.parameters(genes).items()}


def _live(
    env: RowVectorEnv, policy: PlasticPolicy, params: dict[str, Tensor], sitting: Sitting, deterministic: bool
) -> Marks:
    """What each lifetime earned."""
    exam, lifetimes = sitting.exam, sitting.exam.lifetimes
    population = env.num_envs // lifetimes
    shape = (population, lifetimes)
    device = policy.device
    params = policy.prepared(params)
    generator = exam.agent_generator()
    newborn = policy.network.initial_state(lifetimes, generator)
    state = {name: entry.to(device).expand(population, *entry.shape) for name, entry in newborn.items()}
    tasks = [env.distribution.task("train", index) for index in exam.tasks]
    options = {"tasks": tasks * population, "row_seeds": exam.environment_seeds() * population, "rest": True}
    observations, _ = env.reset(options=options)
    horizon = env.metadata.get("lifetime_steps")
    noises = _NoiseAhead(policy, lifetimes, horizon or _BLOCK, generator)
    start = torch.ones(shape, dtype=torch.bool, device=device)
    alive = np.ones(env.num_envs, dtype=np.bool_)
    finite = np.ones(env.num_envs, dtype=np.bool_)
    rewards: list[FloatArray] = []
    score = np.zeros(env.num_envs)
    steps = np.zeros(env.num_envs, dtype=np.int64)
    while alive.any():
        if len(rewards) == MAX_STEPS:
            raise RunError(
                f"{int(alive.sum())} of {env.num_envs} lifetimes had not ended after {MAX_STEPS} steps; give the "
                "environment a time limit"
            )
        _check_given("an observation", observations, alive, sitting, len(rewards))
        shown = torch.from_numpy(observations).to(device).reshape(*shape, -1)
        noise = None if deterministic else noises(len(rewards)).to(device).expand(population, -1, -1)
        features, state = policy.features(params, shown, state, start)
        head = policy.head(params, features)
        actions = policy.choose(params, head, noise)
        if not rewards:
            start = torch.zeros_like(start)
        well = _well(head, actions).cpu().numpy().reshape(-1)
        if not well.all():
            actions[torch.from_numpy(~well).to(device).reshape(shape)] = 0
            env.rest(~well)
            finite &= well | ~alive
            alive &= well
        chosen = policy.distribution.to_environment(actions.flatten(0, 1)).cpu().numpy()
        observations, reward, terminated, truncated, info = env.step(chosen)
        _check_given("a reward", reward, alive, sitting, len(rewards))
        rewards.append(reward)
        score += np.where(info["_expected_reward"], info["expected_reward"], reward) if _KNOWN in info else reward
        steps += alive
        ended = alive & (terminated | truncated)
        if ended.any():
            finite[ended] = _finite_state(state, torch.from_numpy(ended).to(device).reshape(shape))
        alive &= ~ended
    earned = np.stack(rewards)
    late = np.arange(len(rewards))[:, None] >= steps // 2
    return Marks(
        # Rows that rest earn 0.
        reward=earned.sum(0).reshape(shape),
        late=np.where(late, earned, 0.0).sum(0).reshape(shape),
        score=score.reshape(shape),
        steps=steps.reshape(shape),
        finite=finite.reshape(shape),
    )


def _well(head: Tensor, actions: Tensor) -> Tensor:
    """Where what the network answers can be acted on, `(P, B)`: NaN would act like any number, and might win."""
    # Minus infinity is the logit of an action that is never taken.
    well = (head < math.inf).all(-1)
    return well & actions.isfinite().all(-1) if actions.is_floating_point() else well


def _finite_state(state: Mapping[str, Tensor], rows: Tensor) -> BoolArray:
    """Whether all that the network carries along is finite, for the `rows (P, B)` that are true."""
    count = int(rows.sum())
    finite = torch.ones(count, dtype=torch.bool, device=rows.device)
    for entry in state.values():
        if entry.is_floating_point():
            finite &= entry[rows].isfinite().reshape(count, -1).all(1)
    return np.asarray(finite.cpu().numpy())


def _check_given(what: str, values: npt.NDArray[Any], alive: BoolArray, sitting: Sitting, step: int) -> None:
    """Refuse `values (P B, ..)` that the environment gave to living rows, if they are NaN or infinite.

    Raises:
        NonFiniteError: Naming the individual, the generation, the task and the seeds.
    """
    if np.isfinite(values).all():
        return
    bad = alive & ~np.isfinite(values.reshape(len(alive), -1)).all(1)
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        exam = sitting.exam
        individual, lifetime = divmod(row, exam.lifetimes)
        entries = values[row].reshape(-1)
        raise NonFiniteError(
            f"the environment gave {what} of {entries[~np.isfinite(entries)][0]} at step {step} to individual "
            f"{sitting.first + individual} in generation {exam.generation} (seed {exam.seed}, train task "
            f"{exam.tasks[lifetime]}, environment seed {exam.environment_seeds()[lifetime]}); look at the environment, "
            "not at the agent"
        )


_KNOWN = "expected_reward"


class _NoiseAhead:
    """Noise of the actions, drawn in blocks of steps: `(B, noise_size)` a step, the same for all individuals."""

    def __init__(self, policy: PlasticPolicy, lifetimes: int, block: int, generator: torch.Generator) -> None:
        self.policy, self.lifetimes, self.block, self.generator = policy, lifetimes, block, generator
        self.drawn = torch.zeros(0)

    def __call__(self, step: int) -> Tensor:
        place = step % self.block
        if place == 0:
            shape = (self.block, self.lifetimes)
            self.drawn = self.policy.distribution.draw_noise(shape, self.generator)
        return self.drawn[place]


def examine(examiner: Examiner, exam: Exam, genes: FloatArray, individuals_per_chunk: int, engine: Any) -> Marks:
    """Let a population `(P, N)` sit an exam, in chunks that are the same for every engine."""
    chunks = [
        Sitting(exam, first, genes[first : first + individuals_per_chunk])
        for first in range(0, len(genes), individuals_per_chunk)
    ]
    return Marks.joined(engine.map(examiner, chunks))
