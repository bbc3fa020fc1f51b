"""Training on the grid maze, its memory and its environment, beside a loop, other libraries and Gymnasium."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch

from benchmarks import measure
from benchmarks.loop_baseline import LoopTrainer, Rule
from benchmarks.measure import Rows, Run, cores, on, timed, two_cores
from benchmarks.settings import Setting, Sizes
from plastic_rl.algorithms import PlasticA2C
from plastic_rl.algorithms.gradient import GradientAlgorithm
from plastic_rl.envs import make_vector
from plastic_rl.experiment import load_experiment, make_algorithm

RULES: tuple[Rule, ...] = ("simple", "retroactive", "fan_out")
MAZE = "plastic_rl/GridMaze-v0"
LOOP = "loop"
MATRICES = {"simple": 7, "retroactive": 10, "fan_out": 8}
"""How many times the size of all traces autograd keeps of each step of the loop."""
MOST_OF_LOOP = 6000.0
"""MB that the loop may take; where it needs more, it lives shorter lifetimes."""


def mazes(setting: Setting, *, bare: bool = True) -> list[gymnasium.Env[Any, Any]]:
    """One scalar maze for each row; `bare` without Gymnasium's checking wrappers."""
    envs = [gymnasium.make(MAZE, **setting.env_kwargs) for _ in range(setting.batch)]
    return [env.unwrapped for env in envs] if bare else envs


def plastic_a2c(setting: Setting, rule: Rule) -> PlasticA2C:
    """plastic_rl's trainer with the loss and the network of the loop version."""
    network = {"kind": "plastic_rnn", "rule": f"backpropamine_{rule}", "hidden_size": setting.hidden}
    return PlasticA2C(
        "BackpropaminePolicy",
        MAZE,
        env_kwargs=setting.env_kwargs,
        n_envs=setting.batch,
        n_steps=setting.steps,
        learning_rate=1e-4,
        gamma=0.9,
        gae_lambda=1.0,
        ent_coef=0.0,
        sum_p2_coef=0.03,
        vf_coef=0.1,
        max_grad_norm=4.0,
        optimizer="adam",
        optimizer_eps=1e-4,
        policy_kwargs={"network": network},
        seed=0,
        device="cpu",
    )


def iterations(algorithm: GradientAlgorithm) -> Run:
    """A function that does one training iteration (as many whole lifetimes as rows, and one gradient step)."""
    algorithm.learn(0)
    steps = algorithm.n_envs * algorithm.n_steps
    return lambda: algorithm.learn(steps, log_interval=1_000_000, reset_num_timesteps=False)


def trainer(version: str, setting: Setting, rule: Rule) -> Run:
    """An iteration of the loop or of a core."""
    if version == LOOP:
        return LoopTrainer(mazes(setting), setting.hidden, rule).iteration
    return on(version, lambda: iterations(plastic_a2c(setting, rule)))


def beside_loop(prefix: str, setting: Setting, rule: Rule, versions: list[str], rounds: int) -> Rows:
    """Rows of iterations. Where the loop's lifetimes had to be shorter, its time is taken times as many steps."""
    a_step = MATRICES[rule] * 4 * setting.batch * setting.hidden**2 / measure.MEGABYTE
    steps = max(1, min(setting.steps, int(min(measure.available() / 2, MOST_OF_LOOP) / a_step)))
    contestants = {LOOP: trainer(LOOP, setting.of_steps(steps), rule)}
    contestants |= {version: trainer(version, setting, rule) for version in versions}
    rows = timed(prefix, contestants, rounds, LOOP, {LOOP: setting.steps / steps})
    if steps < setting.steps:
        rows[f"{prefix}/{LOOP}"]["note"] = f"lifetimes of {steps} steps, time scaled"
    return rows


# --- iterations -------------------------------------------------------------------------------------------------------


def iteration(sizes: Sizes, rounds: int) -> Iterator[Rows]:
    """`iteration/RULE`, a larger network, and the default job."""
    for rule in RULES:
        yield beside_loop(f"iteration/{rule}", sizes.usual, rule, cores(), rounds)
    yield beside_loop(f"iteration/{sizes.wide.name}", sizes.wide, "simple", cores(), max(rounds // 3, 1))
    yield timed("iteration/default", default_job(sizes), rounds, LOOP)


def sweep(sizes: Sizes, rounds: int) -> Iterator[Rows]:
    """`sweep/SIZE`, once each."""
    for setting in sizes.sweep:
        yield beside_loop(f"sweep/{setting.name}", setting, "simple", two_cores(), 1)


def default_job(sizes: Sizes) -> dict[str, Run]:
    """Iterations of what `make train` trains, and of the loop with as many units in the same environments."""
    path = Path(__file__).parents[1] / "configs" / "default.yaml"
    config = load_experiment(path, [f"{key}={value}" for key, value in sizes.default.items()])

    def job() -> Run:
        algorithm = make_algorithm(config)
        assert isinstance(algorithm, GradientAlgorithm)
        return iterations(algorithm)

    kwargs: Any = config.environment.kwargs
    envs = [gymnasium.make(config.environment.id, **kwargs).unwrapped for _ in range(config.algorithm.n_envs)]  # type: ignore[attr-defined]
    loop = LoopTrainer(envs, config.network["hidden_size"], "simple").iteration
    return {LOOP: loop, **{core: on(core, job) for core in cores()}}


# --- memory -----------------------------------------------------------------------------------------------------------


def memory(sizes: Sizes, rounds: int) -> Iterator[Rows]:
    """`memory/RULE_SIZE`: each in a fresh process, and the usual size also with twice as many steps."""
    usual = sizes.usual
    for rule in ("simple", "retroactive"):
        for version in (LOOP, *two_cores()):
            row = memory_of(version, rule, usual)
            twice = memory_of(version, rule, usual.of_steps(2 * usual.steps))
            row["mb_a_further_step"] = (twice["mb"] - row["mb"]) / usual.steps
            yield {f"memory/{rule}_{usual.name}/{version}": row}
        for setting in (sizes.wide, usual.of_steps(sizes.longest)):
            for version in two_cores()[-1:]:
                yield {f"memory/{rule}_{setting.name}/{version}": memory_of(version, rule, setting)}


def memory_of(version: str, rule: str, setting: Setting) -> dict[str, float]:
    """`memory_here` in a fresh process."""
    found: dict[str, float] = measure.in_fresh_process(["--memory-of", json.dumps([version, rule, asdict(setting)])])
    return found


def memory_here(version: str, rule: Rule, setting: Setting) -> dict[str, float]:
    """Peak resident memory of two iterations: less that before, and in all; in MB."""
    torch.set_num_threads(1)
    trainer(version, Setting(side=5, steps=5, batch=2, hidden=4), rule)()  # what libraries allocate at first use
    iterate = trainer(version, setting, rule)
    measure.forget_peak()
    before = measure.resident_now()
    for _ in range(2):
        iterate()
    return {"mb": measure.resident_peak() - before, "whole_process_mb": measure.resident_peak()}


# --- other libraries --------------------------------------------------------------------------------------------------


def libraries(sizes: Sizes, rounds: int) -> Iterator[Rows]:
    """`libraries/NAME`: training on the same mazes, with the settings that a library has by default."""
    usual = sizes.usual
    short = usual.of_steps(max(usual.steps // 4, 2))  # ten epochs through an LSTM take their time
    contestants = {"stable_baselines3_a2c": other("stable_baselines3", "A2C", "MlpPolicy", usual)}
    steps = dict.fromkeys((*contestants, *two_cores()), usual.steps)
    recurrent = "sb3_contrib_recurrent_ppo"
    if importlib.util.find_spec("sb3_contrib"):
        lstm = {"n_steps": short.steps, "policy_kwargs": {"lstm_hidden_size": short.hidden}}
        contestants[recurrent] = other("sb3_contrib", "RecurrentPPO", "MlpLstmPolicy", short, **lstm)
        steps[recurrent] = short.steps
    else:
        yield {f"libraries/{recurrent}": {"note": "not installed: pip install -e '.[bench]'"}}
    contestants |= {core: trainer(core, usual, "simple") for core in two_cores()}
    rows = timed("libraries", contestants, max(rounds // 3, 1))
    for name, row in rows.items():
        row["cpu_ms_a_step"] = row["cpu_ms"] / usual.batch / steps[name.partition("/")[2]]
    yield rows


def other(package: str, algorithm: str, policy: str, setting: Setting, **arguments: Any) -> Run:
    """Training by another library, for a lifetime's steps in every row."""
    from stable_baselines3.common.vec_env import DummyVecEnv

    envs = [lambda: gymnasium.make(MAZE, **setting.env_kwargs)] * setting.batch
    cls = getattr(importlib.import_module(package), algorithm)
    learner = cls(policy, DummyVecEnv(envs), device="cpu", seed=0, **arguments)
    return lambda: learner.learn(setting.batch * setting.steps, log_interval=1_000_000, reset_num_timesteps=False)


# --- the environment --------------------------------------------------------------------------------------------------


def environment(sizes: Sizes, rounds: int) -> Iterator[Rows]:
    """`environment/KIND`: steps under random actions."""
    setting = sizes.usual
    actions = np.random.default_rng(0).integers(0, 4, size=(setting.steps, setting.batch))

    def scalar(*, bare: bool) -> Run:
        envs = mazes(setting, bare=bare)

        def run() -> None:
            for index, env in enumerate(envs):
                env.reset(seed=index)
                for action in actions[:, index]:
                    env.step(int(action))

        return run

    def vectorised(vector: gymnasium.vector.VectorEnv[Any, Any, Any]) -> Run:
        vector.reset(seed=0)

        def run() -> None:
            for row in actions:
                vector.step(row)

        return run

    copies: list[Callable[[], gymnasium.Env[Any, Any]]] = [
        lambda: gymnasium.make(MAZE, **setting.env_kwargs)
    ] * setting.batch
    contestants = {
        "scalar_bare": scalar(bare=True),
        "scalar": scalar(bare=False),
        "gymnasium_sync_vector": vectorised(gymnasium.vector.SyncVectorEnv(copies)),
        "vector": vectorised(make_vector(MAZE, setting.batch, env_kwargs=setting.env_kwargs)),
    }
    rows = timed("environment", contestants, rounds, "scalar_bare")
    for row in rows.values():
        row["steps_a_second"] = setting.batch * setting.steps / (row["cpu_ms"] / 1e3)
    yield rows
