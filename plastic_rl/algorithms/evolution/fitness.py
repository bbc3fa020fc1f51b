"""Fitness of individuals: lifetimes of a whole chunk of a population, lived side by side in one environment.

A `GenerationSpec` is one generation's tasks, noise and seeds, the same for every individual; a `FitnessEvaluator` lets
a chunk of individuals live by it. Rows of the environment run over individuals first: row `p B + b` is lifetime `b` of
individual `p`. All randomness follows from the spec, so that results do not depend on where a chunk is evaluated.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from plastic_rl._native import Core
from plastic_rl.algorithms.evolution.genome import Genome
from plastic_rl.arrays import BoolArray, FloatArray
from plastic_rl.envs import first_task
from plastic_rl.envs.vector_env import RowVectorEnv
from plastic_rl.feedback import FeedbackLayout
from plastic_rl.policies import PlasticPolicy
from plastic_rl.rollout import Acted, PolicyActor, TaskRows, finite_state, lifetimes

Statistic = Literal["mean", "late_half", "worst_quartile"]

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
class GenerationSpec:
    """What the individuals of one generation live, the same for all.

    Attributes:
        seed: Of the run; runs with other seeds meet other tasks.
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
class PopulationChunk:
    """One piece of work: some individuals of a generation, and what they live.

    Attributes:
        spec: The generation's.
        first: Number of the first individual.
        genes: `(P, N)`.
    """

    spec: GenerationSpec
    first: int
    genes: FloatArray

    def named(self, row: int) -> str:
        """Name the individual and the lifetime of a row."""
        spec = self.spec
        individual, lifetime = divmod(row, spec.lifetimes)
        return (
            f"individual {self.first + individual} in generation {spec.generation} (seed {spec.seed}, train task "
            f"{spec.tasks[lifetime]})"
        )


@dataclass(frozen=True)
class Returns:
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
        """Fitness of each individual, `(P,)`: what was earned in a lifetime, on average (see `CMAES`).

        An individual whose network became NaN or infinite has the worst fitness of those whose did not, less 1 (there
        must be one).
        """
        if statistic == "late_half":
            earned = self.late
        elif statistic == "worst_quartile":
            earned = np.sort(self.reward, axis=1)[:, : -(-self.reward.shape[1] // 4)]
        else:
            earned = self.reward
        fitness = earned.mean(1)
        return np.asarray(np.where(self.usable, fitness, fitness[self.usable].min() - 1))


class FitnessEvaluator:
    """Lets chunks of individuals live; callable, so that an engine can map it over chunks.

    It makes its environment and policy when first called, and keeps them for chunks of the same size; only the plain
    data are pickled for worker processes.

    Args:
        make_rows: Makes an environment of so many rows, without autoreset.
        make_policy: Makes the policy of an environment's spaces and feedback.
        genome: What the genes of individuals stand for.
        fixed: Parameters that do not evolve, by name.
        deterministic: Take the most probable actions instead of sampling.
        device: Where the network runs.
        core: That of the policy which evolves; workers follow it to torch, and choose their level by themselves.
    """

    def __init__(
        self,
        make_rows: Callable[[int], RowVectorEnv],
        make_policy: Callable[..., PlasticPolicy],
        genome: Genome,
        fixed: Mapping[str, npt.NDArray[Any]],
        *,
        deterministic: bool,
        device: str,
        core: Core,
    ) -> None:
        self.make_rows, self.make_policy, self.genome, self.fixed = make_rows, make_policy, genome, dict(fixed)
        self.deterministic, self.device, self.core = deterministic, device, core
        self._envs: dict[int, RowVectorEnv] = {}
        self._policy: PlasticPolicy | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_envs": {}, "_policy": None}

    def close(self) -> None:
        """Close the environment."""
        for env in self._envs.values():
            env.close()
        self._envs = {}

    def __call__(self, chunk: PopulationChunk) -> Returns:
        """Let the individuals live.

        Raises:
            NonFiniteError: If the environment gives a reward or an observation that is NaN or infinite.
            RunError: If a lifetime does not end within `plastic_rl.rollout.MAX_STEPS` steps.
        """
        count = len(chunk.genes) * chunk.spec.lifetimes
        # A population that is no multiple of the chunk has chunks of two sizes in every generation.
        if count not in self._envs:
            self._envs[count] = self.make_rows(count)
        env = self._envs[count]
        if self._policy is None:
            self._policy = self.make_policy(
                env.single_observation_space,
                env.single_action_space,
                feedback=FeedbackLayout.from_dict(env.metadata["feedback"]),
                steps_per_trial=env.metadata.get("steps_per_trial"),
            ).to(self.device)
            self._policy.set_training_mode(False)
            if self.core.level is None:
                self._policy.network.core = self.core
        with torch.inference_mode(), _one_thread():
            return _live(env, self._policy, self._parameters(chunk.genes), chunk, self.deterministic)

    def _parameters(self, genes: FloatArray) -> dict[str, Tensor]:
        """Every parameter with a leading `P`."""
        shared = {name: torch.from_numpy(value).to(self.device) for name, value in self.fixed.items()}
        fixed = {name: value.expand(len(genes), *value.shape) for name, value in shared.items()}
        return fixed | {name: value.to(self.device) for name, value in self.genome.parameters(genes).items()}


def _live(
    env: RowVectorEnv, policy: PlasticPolicy, params: dict[str, Tensor], chunk: PopulationChunk, deterministic: bool
) -> Returns:
    """What each lifetime earned."""
    spec = chunk.spec
    shape = (env.num_envs // spec.lifetimes, spec.lifetimes)
    generator = spec.agent_generator()
    newborn = policy.network.initial_state(spec.lifetimes, generator)
    state = {name: entry.to(policy.device).expand(*shape[:1], *entry.shape) for name, entry in newborn.items()}
    tasks = [env.distribution.task("train", index) for index in spec.tasks]
    rows = TaskRows(env, tasks * shape[0], spec.environment_seeds() * shape[0], chunk.named)
    horizon = env.metadata.get("lifetime_steps")
    noise = noise_ahead(policy, shape, horizon or _BLOCK, generator)
    actor = PolicyActor(policy, params, (lambda _: None) if deterministic else noise, shape, True)
    finite = np.ones(env.num_envs, dtype=np.bool_)

    def rest_where_not_finite(acted: Acted) -> None:
        if acted.finite is not None:
            finite[rows.alive & ~acted.finite] = False
            rows.rest(~acted.finite)

    rewards: list[FloatArray] = []
    score = np.zeros(env.num_envs)
    steps = np.zeros(env.num_envs, dtype=np.int64)
    for step in lifetimes(rows, actor, state, before=rest_where_not_finite):
        outcome = step.outcome
        rewards.append(outcome.reward)
        score += outcome.expected
        steps += outcome.counted
        if np.count_nonzero(outcome.ended):
            finite[outcome.ended] = finite_state(step.acted.state, torch.from_numpy(outcome.ended).reshape(shape))
    earned = np.stack(rewards)
    late = np.arange(len(rewards))[:, None] >= steps // 2
    return Returns(
        # Rows that rest earn 0.
        reward=earned.sum(0).reshape(shape),
        late=np.where(late, earned, 0.0).sum(0).reshape(shape),
        score=score.reshape(shape),
        steps=steps.reshape(shape),
        finite=finite.reshape(shape),
    )


def noise_ahead(
    policy: PlasticPolicy, shape: tuple[int, int], block: int, generator: torch.Generator
) -> Callable[[int], Tensor]:
    """Noise of the actions, drawn in blocks of steps: `(P, B, noise_size)` a step, the same for all individuals."""
    drawn = torch.zeros(0)

    def noise(step: int) -> Tensor:
        nonlocal drawn
        if step % block == 0:
            drawn = policy.distribution.draw_noise((block, shape[1]), generator).to(policy.device)
        return drawn[step % block].expand(*shape, -1)

    return noise


def evaluate_population(
    evaluator: FitnessEvaluator, spec: GenerationSpec, genes: FloatArray, individuals_per_chunk: int, engine: Any
) -> Returns:
    """Let a population `(P, N)` live a generation, in chunks that are the same for every engine."""
    chunks = [
        PopulationChunk(spec, first, genes[first : first + individuals_per_chunk])
        for first in range(0, len(genes), individuals_per_chunk)
    ]
    pieces = engine.map(evaluator, chunks)
    return Returns(*(np.concatenate([getattr(piece, one.name) for piece in pieces]) for one in fields(Returns)))
