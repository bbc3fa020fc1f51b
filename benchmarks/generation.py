"""A generation of CMA-ES: on a plastic policy, beside a loop over individuals; and on rule tables.

The loop is what one would first write: every individual lives every lifetime in a scalar Gymnasium environment, with
the network of Backpropamine (Miconi et al. 2019, eq. 3) in NumPy, which is quicker than torch for a single row. Both
versions draw and update with the same `cma` search, and its time counts in both.

    y_t = tanh(U o_t + b + (W0 + alpha * F_t) y_{t-1});  M_t = tanh(w_m . y_t + b_m)
    F <- clip(F + M_t y_t y_{t-1}^T, -1, 1);             action ~ softmax(V y_t + c)
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt
import torch

from benchmarks.measure import Rows, Run, cores, on, timed, two_cores
from benchmarks.settings import GenerationSetting, Sizes
from plastic_rl.algorithms import CMAES
from plastic_rl.algorithms.evolution.fitness import GenerationSpec
from plastic_rl.algorithms.evolution.genome import Genome
from plastic_rl.envs import make_vector
from plastic_rl.experiment import ExperimentConfig, load_experiment, make_algorithm

BANDIT = "plastic_rl/ReversalBandit-v0"
LOOP = "loop"


def evolution(setting: GenerationSetting) -> CMAES:
    """plastic_rl's algorithm, in this process."""
    return CMAES(
        "PlasticPolicy",
        BANDIT,
        env_kwargs={"steps": setting.steps},
        population_size=setting.population,
        lifetimes=setting.lifetimes,
        individuals_per_chunk=setting.population,
        policy_kwargs={
            "network": {"kind": "plastic_rnn", "rule": "backpropamine_simple", "hidden_size": setting.hidden}
        },
        seed=0,
        device="cpu",
    )


class Individual:
    """A Backpropamine policy in NumPy, for one environment.

    Args:
        genome: What the genes stand for.
        genes: `(N,)`.
    """

    def __init__(self, genome: Genome, genes: npt.NDArray[np.float64]) -> None:
        named = {name.removeprefix("network."): value.numpy() for name, value in genome.parameters(genes).items()}
        self.u, self.b, self.w = named["input_weight"], named["input_bias"], named["recurrent_weight"]
        self.alpha = named["alpha"]
        self.modulator_weight, self.modulator_bias = named["modulator_weight"].ravel(), named["modulator_bias"].ravel()
        self.v, self.c = named["action_head.weight"], named["action_head.bias"]
        self.birth()

    def birth(self) -> None:
        """Begin a lifetime."""
        self.y = np.zeros(len(self.b), dtype=np.float32)
        self.trace = np.zeros(self.w.shape, dtype=np.float32)

    def preferences(self, observation: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """One step: logits of the actions."""
        before = self.y
        self.y = np.tanh(self.u @ observation + self.b + (self.w + self.alpha * self.trace) @ before)
        modulator = np.tanh(self.modulator_weight @ self.y + self.modulator_bias[0])
        self.trace = np.clip(self.trace + modulator * np.outer(self.y, before), -1.0, 1.0)
        return np.asarray(self.v @ self.y + self.c)


def live(individual: Individual, env: gymnasium.Env[Any, Any], task: Any, seed: int, noise: list[float]) -> float:
    """One lifetime; the sum of its rewards."""
    individual.birth()
    observation, _ = env.reset(seed=seed, options={"task": task})
    total, ended, step = 0.0, False, 0
    while not ended:
        logits = individual.preferences(observation)
        weights = np.exp(logits - logits.max())
        action = int((weights.cumsum()[:-1] <= noise[step] * weights.sum()).sum())
        observation, reward, terminated, truncated, _ = env.step(action)
        total += float(reward)
        ended = terminated or truncated
        step += 1
    return total


def loop_generation(setting: GenerationSetting) -> Run:
    """A function that does one generation as a loop."""
    algorithm = evolution(setting)
    env = gymnasium.make(BANDIT, steps=setting.steps).unwrapped
    distribution = make_vector(BANDIT, 1, env_kwargs=algorithm.env_kwargs).distribution
    generations = iter(range(10**9))

    def generation() -> None:
        exam = GenerationSpec(0, next(generations), setting.lifetimes)
        genes = algorithm.search.ask()
        noise = torch.rand((setting.lifetimes, setting.steps), generator=exam.agent_generator()).tolist()
        tasks = [distribution.task("train", index) for index in exam.tasks]
        seeds = exam.environment_seeds()
        fitness = []
        for own in genes:
            individual = Individual(algorithm.genome, own)
            lives = zip(tasks, seeds, noise, strict=True)
            fitness.append(np.mean([live(individual, env, *life) for life in lives]))
        algorithm.search.tell(np.array(fitness))

    return generation


def batched_generation(setting: GenerationSetting) -> Run:
    """A function that does one generation as plastic_rl does."""
    algorithm = evolution(setting)
    algorithm.learn(generations=0)
    return algorithm.evolve_once


def alone(setting: GenerationSetting) -> dict[str, Run]:
    """Parts of a generation by themselves: the search, and the environment under random actions."""
    algorithm = evolution(setting)
    generator = np.random.default_rng(0)

    def search() -> None:
        algorithm.search.ask()
        algorithm.search.tell(generator.random(setting.population))

    rows = setting.population * setting.lifetimes
    env = make_vector(BANDIT, rows, env_kwargs=algorithm.env_kwargs)
    exam = GenerationSpec(0, 0, setting.lifetimes)
    tasks = [env.distribution.task("train", index) for index in exam.tasks] * setting.population
    seeds = exam.environment_seeds() * setting.population
    actions = generator.integers(0, 2, size=(setting.steps, rows))

    def environment() -> None:
        env.reset(options={"tasks": tasks, "row_seeds": seeds, "rest": True})
        for row in actions:
            env.step(row)

    return {"ask_and_tell": search, "environment": environment}


def generation(sizes: Sizes, rounds: int) -> Iterator[Rows]:
    """`generation/VERSION`, with the covariance that is taken for so many genes; and its parts by themselves."""
    setting = sizes.generation
    contestants = {LOOP: loop_generation(setting)}
    contestants |= {core: on(core, lambda: batched_generation(setting)) for core in cores()}
    # The loop takes seconds a round.
    yield timed("generation", contestants | alone(setting), max(rounds // 2, 1), LOOP)


# --- rule tables ------------------------------------------------------------------------------------------------------


def rule_table(sizes: Sizes, rounds: int) -> Iterator[Rows]:
    """`rule_table/TASK`: a generation of the task's config; samples that all individuals see, by the second."""
    for task in ("bandit", "digits"):
        path = Path(__file__).parents[1] / "configs" / f"rule_table_{task}.yaml"
        config = load_experiment(path, [f"{key}={value}" for key, value in sizes.tables.items()])

        def one_generation(config: ExperimentConfig = config) -> Run:
            algorithm = make_algorithm(config)
            assert isinstance(algorithm, CMAES)
            algorithm.learn(generations=0)
            return algorithm.evolve_once

        contestants = {core: on(core, one_generation) for core in two_cores()}
        rows = timed(f"rule_table/{task}", contestants, max(rounds // 3, 1), "torch")
        own: Any = config.algorithm
        samples = own.population_size * own.lifetimes * config.environment.kwargs["steps"]
        for row in rows.values():
            row["samples_a_second"] = samples / (row["cpu_ms"] / 1e3)
        yield rows
