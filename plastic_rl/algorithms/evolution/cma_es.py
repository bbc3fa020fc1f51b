"""`CMAES`: evolution of a policy's parameters over whole lifetimes, without gradients.

References:
    Hansen & Ostermeier 2001, doi 10.1162/106365601750190398 (CMA-ES); Salimans et al. 2017, arXiv 1703.03864 (common
    random numbers and fresh tasks in evolving policies).

One generation: draw a population around the mean; every individual lives the same few fresh tasks, with the same noise;
the distribution moves towards the fitter ones. The agent is always the distribution's mean, never an individual that
was lucky: the policy's parameters hold the mean whenever a callback or a caller looks.
"""

from __future__ import annotations

import sys
import zlib
from collections import deque
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Annotated, Any, Self

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import AutoresetMode
from pydantic import Field
from stable_baselines3.common.callbacks import BaseCallback, ConvertCallback, ProgressBarCallback
from stable_baselines3.common.type_aliases import MaybeCallback
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor

from plastic_rl.algorithms.base import MOST_ROWS, PlasticAlgorithm, Rows
from plastic_rl.algorithms.evolution.fitness import (
    FitnessEvaluator,
    GenerationSpec,
    Returns,
    Statistic,
    evaluate_population,
)
from plastic_rl.algorithms.evolution.genome import GeneGroup, Genome
from plastic_rl.algorithms.evolution.search import Covariance, Restarts, Search
from plastic_rl.arrays import BoolArray, FloatArray
from plastic_rl.checkpoint import Checkpoint, count_in
from plastic_rl.config.signatures import NotStored, handed_on
from plastic_rl.engine import ENGINES, Engine, EngineArgument, EngineConfig
from plastic_rl.envs import make_vector
from plastic_rl.envs.plugins import load_plugins, loaded_plugins
from plastic_rl.errors import ConfigError, NonFiniteError, SpaceError, damage_is_refused
from plastic_rl.policies import PlasticPolicy


class CMAES(PlasticAlgorithm):
    """CMA-ES over whole lifetimes, without gradients; a stable-baselines3 algorithm.

    Fitness is what individuals were rewarded with in their lifetimes. It is never the expected reward, which some
    environments tell for scoring: that knows the hidden task, and no agent may learn from it.

    Args:
        env: Environment id. An environment made by `gymnasium.make` will do where its id and arguments say all of it:
            individuals live in environments that this class makes, many side by side.
        population_size: Individuals of a generation.
        lifetimes: Lifetimes of each individual in a generation, on fresh tasks (of the split `train`) that the whole
            population shares, noise and random start weights included.
        sigma: Initial step size, in units of the scales of `groups`.
        statistic: Fitness: the reward of a lifetime (mean), that of its second half (late_half), or that of the worst
            quarter of them (worst_quartile).
        evolve: Patterns of the names of the parameters that evolve, e.g. `["network.*table*"]`; None: all trainable
            ones that actions depend on. The others stay as they were drawn.
        groups: Scale and bounds of parameters by pattern of their names, e.g.
            `{network.eta: {scale: 0.1, low: 0, high: 1}}`; bounds narrow a parameter's valid range. None: no groups.
        covariance: Correlations between genes; auto: full up to 800 genes, separable (none) beyond.
        restarts: What follows when the search has converged or stagnates: ipop doubles the population, bipop
            alternates between small and large ones.
        deterministic: Individuals take their most probable actions instead of sampling.
        individuals_per_chunk: Individuals that live side by side in one process. A pool shares out chunks: let there be
            as many of them as workers, or more. The last bits of results depend on it, and on nothing else about how
            the work is divided.
        engine: Where chunks are evaluated: an `Engine`, the name of one, or its settings. Results do not depend on it.
        **shared: See `PlasticAlgorithm`.

    Raises:
        ConfigError: Also if a pattern matches no parameter.

    >>> from plastic_rl.algorithms import CMAES
    >>> agent = CMAES("PlasticPolicy", "plastic_rl/ReversalBandit-v0", population_size=4, lifetimes=2, seed=1)
    >>> agent.learn(generations=2).num_timesteps  # 2 generations of 4 individuals with 2 lifetimes of 100 steps
    1600
    """

    budget = "generations"
    unit = "generations"
    counter = "iterations"

    def __init__(
        self,
        policy: str | type[PlasticPolicy],
        env: str | gym.Env[Any, Any] | VecEnv | None,
        *,
        population_size: Annotated[int, Field(ge=4, le=MOST_ROWS)] = 20,
        lifetimes: Rows = 4,
        sigma: Annotated[float, Field(gt=0)] = 0.5,
        statistic: Statistic = "mean",
        evolve: Sequence[str] | None = None,
        groups: Mapping[str, GeneGroup] | None = None,
        covariance: Covariance = "auto",
        restarts: Restarts = "none",
        deterministic: bool = False,
        individuals_per_chunk: Annotated[int, Field(ge=1)] = 64,
        engine: Annotated[EngineArgument, NotStored] = EngineConfig(),  # noqa: B008 - frozen
        **shared: Any,
    ) -> None:
        super().__init__(policy, env, **handed_on(locals()))
        given = self.settings.engine
        if isinstance(given, EngineConfig):
            plugins = partial(load_plugins, loaded_plugins())
            given = ENGINES[given.name](workers=given.workers, address=given.address, prepare=plugins)
        self.engine: Engine = given

    # --- set-up ----------------------------------------------------------------------------------------------------

    def _rows(self) -> int:
        return int(self.settings.lifetimes)

    @classmethod
    def largest_rows(cls, settings: Any) -> int:
        """See `PlasticAlgorithm.largest_rows`."""
        chunk: int = settings.individuals_per_chunk
        largest = settings.population_size if settings.restarts == "none" else chunk
        return min(chunk, largest) * int(settings.lifetimes)

    def _adapted(self, env: Any, n_envs: int) -> Any:
        env_id, self.env_kwargs = _identity(env, self.env_kwargs)
        return super()._adapted(env_id, n_envs)

    def _setup_model(self) -> None:
        self.set_random_seed(self.seed)
        self._make_policy()
        self.begin_search()
        self.evaluator = self.make_evaluator()
        self.iterations = self.generations_begun = 0
        self.score_buffer = deque(maxlen=1)

    def begin_search(self) -> None:
        """Begin a new search around the policy's present parameters."""
        self.genome = Genome.of(self.policy, self.settings.evolve, self.settings.groups)
        assert self.seed is not None
        sequence = np.random.SeedSequence(self.seed, spawn_key=(zlib.crc32(b"search"),))
        self.search = Search(
            self.genome,
            sigma=self.settings.sigma,
            population_size=self.settings.population_size,
            covariance=self.settings.covariance,
            restarts=self.settings.restarts,
            seed=int(sequence.generate_state(1, np.uint64)[0]),
        )
        self.genome.write(self.search.mean, self.policy)

    def make_evaluator(self) -> FitnessEvaluator | None:
        """What evaluates individuals around the policy's present parameters; None without an environment."""
        if self.env is None:
            return None
        assert self.env_id is not None
        make_rows = partial(
            make_vector,
            self.env_id,
            env_kwargs=self.env_kwargs,
            trials=self.settings.trials,
            same_task_each_trial=self.settings.same_task_each_trial,
            wrappers=self.settings.wrappers,
            autoreset_mode=AutoresetMode.DISABLED,
        )
        fixed = {
            name: parameter.detach().cpu().numpy().copy()
            for name, parameter in self.policy.named_parameters()
            if name not in self.genome.names
        }
        return FitnessEvaluator(
            make_rows,
            partial(self.policy_class, **self.policy_kwargs),
            self.genome,
            fixed,
            deterministic=self.settings.deterministic,
            device=str(self.device),
            core=self.policy.network.core,
        )

    def set_env(self, env: Any, force_reset: bool = True) -> None:
        """Evolve in `env` from now on; see `PlasticAlgorithm.set_env`."""
        super().set_env(env, force_reset)
        if self.evaluator is not None:
            self.evaluator.close()
        self.evaluator = self.make_evaluator()

    def close(self) -> None:
        """Close the environments, and free the engine's workers."""
        super().close()
        self.engine.close()
        if self.evaluator is not None:
            self.evaluator.close()

    def _init_callback(self, callback: MaybeCallback, progress_bar: bool = False) -> BaseCallback:
        if progress_bar:
            given = [] if callback is None else callback if isinstance(callback, list) else [callback]
            own = [hook if isinstance(hook, BaseCallback) else ConvertCallback(hook) for hook in given]
            callback = [*own, _ProgressBar()]
        return super()._init_callback(callback)

    # --- the generation --------------------------------------------------------------------------------------------

    def learn(
        self,
        total_timesteps: int | None = None,
        callback: MaybeCallback = None,
        log_interval: int = 1,
        tb_log_name: str = "CMAES",
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
        *,
        generations: int | None = None,
    ) -> Self:
        """Evolve for `generations` more generations, or until `total_timesteps` more steps are done, in whole ones.

        As in stable-baselines3, except that a callback's `on_step` is called once a generation: its frequencies count
        generations. `num_timesteps` counts the steps of all lifetimes of all individuals.

        Args:
            total_timesteps: Steps to evolve for; None: no limit, and `generations` must be given.
            callback: As in stable-baselines3.
            log_interval: Generations between rows of the log.
            tb_log_name: Name of the run in TensorBoard.
            reset_num_timesteps: Count steps and generations from 0; the search itself goes on where it is.
            progress_bar: Show stable-baselines3's progress bar.
            generations: Generations to evolve for (None, where there are `total_timesteps`: no limit).

        Raises:
            ConfigError: If neither limit is given.
            NonFiniteError: If the environment gives a reward or observation that is NaN or infinite, or the networks of
                more than half of a generation become so; the message names individuals, generation and seed.
        """
        if total_timesteps is None and generations is None:
            raise ConfigError("learn needs total_timesteps or generations")
        self.check_environment()
        limit = sys.maxsize if total_timesteps is None else total_timesteps
        steps_before = 0 if reset_num_timesteps else self.num_timesteps
        total_timesteps, hooks = self._setup_learn(
            min(limit, sys.maxsize - steps_before), callback, reset_num_timesteps, tb_log_name, progress_bar
        )
        if generations is not None:
            # For callbacks: the steps that there will be, as far as they are known.
            generation_steps = (
                self.search.population_size * self.settings.lifetimes * (self.description.lifetime_steps or 0)
            )
            total_timesteps = min(total_timesteps, self.num_timesteps + generations * generation_steps)
        if reset_num_timesteps:
            self.iterations = 0
        last = sys.maxsize if generations is None else self.iterations + generations
        hooks.on_training_start(locals(), globals())
        while self.num_timesteps < self._total_timesteps and self.iterations < last:
            hooks.on_rollout_start()
            self.evolve_once()
            if log_interval and self.iterations % log_interval == 0:
                self.dump_logs(self.iterations)
            self._update_current_progress_remaining(self.num_timesteps, self._total_timesteps)
            hooks.update_locals(locals())
            if not hooks.on_step():
                break
            hooks.on_rollout_end()
        hooks.on_training_end()
        return self

    def evolve_once(self) -> None:
        """One generation: draw, evaluate, move the distribution; the policy then holds its new mean."""
        self.check_environment()
        assert self.evaluator is not None
        assert self.seed is not None
        spec = GenerationSpec(self.seed, self.generations_begun, self.settings.lifetimes)
        genes = self.search.ask()
        returns = evaluate_population(self.evaluator, spec, genes, self.settings.individuals_per_chunk, self.engine)
        self._check_usable(spec, genes, returns.usable)
        fitness = returns.fitness(self.settings.statistic)
        self._record(genes, returns, fitness)
        self.search.tell(fitness)
        self.genome.write(self.search.mean, self.policy)
        self.num_timesteps += int(returns.steps.sum())
        self.generations_begun += 1
        self.iterations += 1
        for name, value in self.search.statistics().items():
            self.logger.record(f"search/{name}", value)
        self.logger.record("search/restarts", self.search.run)

    def _check_usable(self, spec: GenerationSpec, genes: FloatArray, usable: BoolArray) -> None:
        """Name the individuals whose network became NaN or infinite; they rank last.

        Raises:
            NonFiniteError: If they are more than half of the generation, which then says too little.
        """
        if usable.all():
            return
        broken = np.flatnonzero(~usable)
        named = f"individual{'s' * (len(broken) > 1)} {', '.join(map(str, broken[:10]))}{', ...' * (len(broken) > 10)}"
        where = f"{named} of {len(genes)} in generation {spec.generation} (seed {spec.seed})"
        if 2 * len(broken) <= len(genes):
            self.logger.warn(f"the networks of {where} became NaN or infinite; they rank last")
            return
        largest = {name: float(value.abs().max()) for name, value in self.genome.parameters(genes[broken]).items()}
        first = sorted(largest, key=largest.__getitem__, reverse=True)[:3]
        bounds = f"algorithm.groups: {{{first[0]}: {{low: ..., high: ...}}}}"
        raise NonFiniteError(
            f"the networks of {where} became NaN or infinite: more than half, so that evolution has nothing to go by. "
            f"Their largest parameters are {', '.join(f'{name} ({largest[name]:.3g})' for name in first)}. Give what "
            f"makes them grow bounds ({bounds}), or lower algorithm.sigma"
        )

    def _record(self, genes: FloatArray, returns: Returns, fitness: FloatArray) -> None:
        usable = returns.usable
        fitness = fitness[usable]
        self.score_buffer.append(float(returns.score[usable].mean()))
        apart = (genes - genes.mean(0)) / self.genome.scale
        for name, value in (
            ("fitness/mean", fitness.mean()),
            ("fitness/best", fitness.max()),
            ("fitness/std", fitness.std()),
            ("fitness/non_finite", (~usable).sum()),
            ("rollout/ep_rew_mean", returns.reward[usable].mean()),
            ("rollout/ep_len_mean", returns.steps[usable].mean()),
            # Root mean square distance of a gene from the population's mean, in units of its scale.
            ("search/diversity", np.sqrt(np.square(apart).mean())),
            ("search/population_size", len(genes)),
        ):
            self.logger.record(name, float(value))

    # --- saving ----------------------------------------------------------------------------------------------------

    def training_tensors(self) -> dict[str, dict[str, Tensor]]:
        """See `PlasticAlgorithm.training_tensors`; going on gives the same bytes as never having stopped."""
        return {"optimizer": {name: torch.from_numpy(own) for name, own in self.search.tensors().items()}, "state": {}}

    def counters(self) -> dict[str, Any]:
        """See `PlasticAlgorithm.counters`."""
        return {
            **super().counters(),
            "generations_begun": self.generations_begun,
            "search": self.search.document(),
        }

    def set_checkpoint(self, checkpoint: Checkpoint) -> None:
        """Go on from `checkpoint`.

        A checkpoint that holds only what acts (an exported agent's) begins a new search around its parameters.

        Raises:
            CheckpointError: If the checkpoint belongs to another network, or lacks a part, or a part does not fit.
        """
        super().set_checkpoint(checkpoint)
        with damage_is_refused(f"{checkpoint.source} does not fit this {type(self).__name__}"):
            counters = checkpoint.documents["algorithm"]
            self.generations_begun = count_in(counters, "generations_begun")
            if checkpoint.tensors["optimizer"]:
                checkpoint.check_finite("optimizer")
                arrays = {name: np.asarray(tensor) for name, tensor in checkpoint.tensors["optimizer"].items()}
                self.search.restore(arrays, counters["search"])
            else:
                self.begin_search()
            self.evaluator = self.make_evaluator()


class _ProgressBar(ProgressBarCallback):
    """That of stable-baselines3, which takes each call for one step of every environment, told of whole generations."""

    def _on_step(self) -> bool:
        before = self.model._num_timesteps_at_start
        self.pbar.update(self.num_timesteps - before - self.pbar.n)
        return True


def _identity(env: Any, env_kwargs: Mapping[str, Any] | None) -> tuple[str | None, dict[str, Any]]:
    """Id and arguments from which an environment can be made again.

    Raises:
        ConfigError: If they do not say all of it.
    """
    if env is None or isinstance(env, str):
        return env, dict(env_kwargs or {})
    spec = getattr(env, "spec", None)
    if not isinstance(env, gym.Env) or spec is None or spec.additional_wrappers:
        raise ConfigError(
            f"CMAES makes its own environments, many side by side, and {env} cannot be made again from an id and "
            "arguments. Register it with gymnasium.register, wrappers included, and give its id, with env_kwargs"
        )
    if getattr(env, "render_mode", None) is not None:
        raise SpaceError("CMAES has no use for an environment that renders; give its id")
    kwargs = {name: value for name, value in spec.kwargs.items() if name != "render_mode"}
    return spec.id, {**kwargs, **(env_kwargs or {})}
