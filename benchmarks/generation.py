"""One generation of CMA-ES on a plastic policy, as a loop over individuals would do it and as plastic_rl does it.

The loop is what one would first write: every individual lives every lifetime in a scalar Gymnasium environment, with
the network of Backpropamine (Miconi et al. 2019, eq. 3) in NumPy, which is quicker than torch for a single row. Both
versions draw and update with the same `cma` search, and its time counts in both.

    y_t = tanh(U o_t + b + (W0 + alpha * F_t) y_{t-1});  M_t = tanh(w_m . y_t + b_m)
    F <- clip(F + M_t y_t y_{t-1}^T, -1, 1);             action ~ softmax(V y_t + c)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt
import torch

from benchmarks import measure
from plastic_rl.algorithms import CMAES
from plastic_rl.algorithms.evolution.fitness import GenerationSpec
from plastic_rl.algorithms.evolution.genome import Genome
from plastic_rl.envs import make_vector

BANDIT = "plastic_rl/ReversalBandit-v0"
LOOP = "loop over individuals"
REPEATS = 5
"""Runs of all but the loop in a measurement: a full covariance gets new eigenvectors only every few generations."""


@dataclass(frozen=True)
class GenerationSetting:
    """What is measured."""

    population: int = 64
    lifetimes: int = 4
    steps: int = 200
    hidden: int = 20


def evolution(setting: GenerationSetting, covariance: str) -> CMAES:
    """plastic_rl's algorithm, in this process."""
    return CMAES(
        "PlasticPolicy",
        BANDIT,
        env_kwargs={"steps": setting.steps},
        population_size=setting.population,
        lifetimes=setting.lifetimes,
        individuals_per_chunk=setting.population,
        covariance=covariance,  # type: ignore[arg-type]  # one of its literals
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


def loop_generation(setting: GenerationSetting, covariance: str) -> Callable[[], object]:
    """A function that does one generation as a loop."""
    algorithm = evolution(setting, covariance)
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


def batched_generation(setting: GenerationSetting, covariance: str) -> Callable[[], object]:
    """A function that does one generation as plastic_rl does."""
    algorithm = evolution(setting, covariance)
    algorithm.learn(generations=0)
    return algorithm.evolve_once


def alone(setting: GenerationSetting, covariance: str) -> dict[str, Callable[[], object]]:
    """Parts of a generation by themselves: the search, and the environment under random actions."""
    algorithm = evolution(setting, covariance)
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

    return {"ask and tell": search, "environment": environment}


def speeds(setting: GenerationSetting, rounds: int) -> dict[str, dict[str, Any]]:
    """Seconds of a generation by covariance and version, and of its parts, all in this process and on one thread."""
    torch.set_num_threads(1)
    found: dict[str, dict[str, Any]] = {}
    for covariance in ("full", "separable"):
        contestants = {
            LOOP: loop_generation(setting, covariance),
            "plastic_rl": _repeated(batched_generation(setting, covariance)),
            **{name: _repeated(part) for name, part in alone(setting, covariance).items()},
        }
        seconds = measure.alternate(contestants, rounds)
        runs = {name: 1 if name == LOOP else REPEATS for name in seconds}
        found[covariance] = {
            "genes": evolution(setting, covariance).genome.size,
            "auto": evolution(setting, "auto").search.separable == (covariance == "separable"),
            "times_loop": REPEATS * measure.ratio(seconds[LOOP].wall, seconds["plastic_rl"].wall),
            "times_loop_cpu": REPEATS * measure.ratio(seconds[LOOP].cpu, seconds["plastic_rl"].cpu),
            "parts": {
                name: {"seconds": median(times.wall) / runs[name], "cpu_seconds": median(times.cpu) / runs[name]}
                for name, times in seconds.items()
            },
        }
    return found


def _repeated(run: Callable[[], object]) -> Callable[[], object]:
    def several() -> None:
        for _ in range(REPEATS):
            run()

    return several


def table(setting: GenerationSetting, result: dict[str, dict[str, Any]], required: float) -> str:
    """The numbers for a reader."""
    lives = f"{setting.lifetimes} lifetimes of {setting.steps} steps"
    title = f"CMA-ES generation on the reversal bandit: {setting.population} individuals with {lives}"
    header = f"{'covariance':<12} {'genes':>6} {'loop ms':>8} {'ms':>7} {'CPU ms':>7} {'ask, tell':>10}"
    lines = [
        f"{title}, {setting.hidden} hidden units, one thread",
        "",
        f"{header} {'environment':>12} {'network':>8} {'ratio':>6} {'CPU':>6}",
    ]
    for covariance, numbers in result.items():
        parts = numbers["parts"]
        whole = parts["plastic_rl"]["cpu_seconds"]
        search, environment = (parts[name]["cpu_seconds"] / whole for name in ("ask and tell", "environment"))
        lines.append(
            f"{covariance + ' *' * numbers['auto']:<12} {numbers['genes']:6} {1e3 * parts[LOOP]['seconds']:8.0f} "
            f"{1e3 * parts['plastic_rl']['seconds']:7.0f} {1e3 * whole:7.0f} {search:10.0%} {environment:12.0%} "
            f"{max(1 - search - environment, 0.0):8.0%} {numbers['times_loop']:6.1f} {numbers['times_loop_cpu']:6.1f}"
        )
    (ratio,) = (numbers["times_loop"] for numbers in result.values() if numbers["auto"])
    verdict = f"{'met' if ratio >= required else 'NOT met'} ({ratio:.1f})"
    lines += [
        "",
        "ms: medians, of the loop and of plastic_rl. Shares are of CPU time, each part measured by itself.",
        "ratio, CPU: how many times as fast as the loop, by wall clock and by CPU time.",
        "*: what covariance: auto takes for so many genes; the target is for that.",
    ]
    lines += ["", f"Target of {required:g} times the loop over individuals and a scalar environment: {verdict}"]
    return "\n".join(lines)
