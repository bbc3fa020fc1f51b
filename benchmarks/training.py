"""One training iteration on the grid maze, as a loop would do it and as plastic_rl does it."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

import gymnasium
import numpy as np
import torch

import plastic_rl
from benchmarks import measure
from benchmarks.loop_baseline import LoopTrainer, Rule
from plastic_rl.algorithms import PlasticA2C
from plastic_rl.envs import make_vector

RULES: tuple[Rule, ...] = ("simple", "retroactive")
BARE = "loop, bare environments"
"""The loop version without Gymnasium's checking wrappers: the faster of the two, and so the one to beat."""
VERSIONS = ("loop", BARE, "plastic_rl")
MAZE = "plastic_rl/GridMaze-v0"


@dataclass(frozen=True)
class Setting:
    """What is measured: that of the original experiments by default."""

    side: int = 11
    steps: int = 200
    batch: int = 30
    hidden: int = 100

    @property
    def env_kwargs(self) -> dict[str, Any]:
        """Arguments of the maze."""
        return {"side": self.side, "steps": self.steps}


def scalar_envs(setting: Setting, *, bare: bool) -> list[gymnasium.Env[Any, Any]]:
    """One scalar maze for each row; `bare` without Gymnasium's checking wrappers."""
    envs = [gymnasium.make(MAZE, **setting.env_kwargs) for _ in range(setting.batch)]
    return [env.unwrapped for env in envs] if bare else envs


def plastic_a2c(setting: Setting, rule: Rule) -> PlasticA2C:
    """plastic_rl's trainer with the loss and the network of the loop version."""
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
        policy_kwargs={
            "network": {"kind": "plastic_rnn", "rule": f"backpropamine_{rule}", "hidden_size": setting.hidden}
        },
        seed=0,
        device="cpu",
    )


def trainer(version: str, setting: Setting, rule: Rule) -> Callable[[], object]:
    """A function that does one training iteration (`batch` whole lifetimes and one gradient step)."""
    if version == "plastic_rl":
        algorithm = plastic_a2c(setting, rule)
        algorithm.learn(0)

        def iterate() -> object:
            return algorithm.learn(setting.batch * setting.steps, log_interval=1_000_000, reset_num_timesteps=False)

        return iterate
    return LoopTrainer(scalar_envs(setting, bare=version == BARE), setting.hidden, rule).iteration


def speeds(setting: Setting, rounds: int) -> dict[str, dict[str, Any]]:
    """Seconds of an iteration and lifetimes per second, by rule and version, all in this process and on one thread."""
    torch.set_num_threads(1)
    found: dict[str, dict[str, Any]] = {}
    for rule in RULES:
        seconds = measure.alternate({version: trainer(version, setting, rule) for version in VERSIONS}, rounds)
        found[rule] = {
            version: {
                "seconds": median(times.wall),
                "cpu_seconds": median(times.cpu),
                "episodes_per_second": setting.batch / median(times.wall),
                "times_bare_loop": measure.ratio(seconds[BARE].wall, times.wall),
                "times_bare_loop_cpu": measure.ratio(seconds[BARE].cpu, times.cpu),
                "all_seconds": times.wall,
                "all_cpu_seconds": times.cpu,
            }
            for version, times in seconds.items()
        }
    return found


def without_network(setting: Setting) -> Callable[[], object]:
    """A function that does one training iteration whose network costs nothing: what is around it is all that is left.

    Features are drawn once; the gradients of the network's parameters are 0.
    """
    algorithm = plastic_a2c(setting, "retroactive")
    network: Any = algorithm.policy.network
    shape = (setting.steps, setting.batch, setting.hidden)
    features = torch.randn(shape, generator=torch.Generator().manual_seed(0)).tanh().requires_grad_()
    of_steps = itertools.cycle(features.detach().unbind(0))

    def step(params: Any, x: Any, feedback: Any, state: Any, starts: Any) -> tuple[torch.Tensor, Any]:
        return next(of_steps), state

    def unroll(params: Any, xs: Any, feedbacks: Any, state: Any, starts: Any, recorded: Any) -> Any:
        features.grad = None
        return features, state

    def leave_gradients(_: torch.Tensor) -> None:
        for parameter in network.parameters():
            parameter.grad = torch.zeros_like(parameter)

    features.register_hook(leave_gradients)  # type: ignore[no-untyped-call]
    network.step, network.unroll, network.recording = step, unroll, lambda steps: None
    algorithm.learn(0)

    def iterate() -> object:
        return algorithm.learn(setting.batch * setting.steps, log_interval=1_000_000, reset_num_timesteps=False)

    return iterate


def around_network(setting: Setting, rounds: int) -> float:
    """CPU seconds of an iteration without its network."""
    torch.set_num_threads(1)
    return median(measure.alternate({"": without_network(setting)}, rounds)[""].cpu)


def memory_here(version: str, setting: Setting, rule: Rule, iterations: int = 2) -> dict[str, float]:
    """Peak resident memory of training less that before, in MB: meant for a fresh process."""
    torch.set_num_threads(1)
    trainer(version, Setting(side=5, steps=5, batch=2, hidden=4), rule)()  # what libraries allocate at first use
    iterate = trainer(version, setting, rule)
    measure.forget_peak()
    before = measure.resident_now()
    for _ in range(iterations):
        iterate()
    return {"before": before, "growth": measure.resident_peak() - before}


def memory(setting: Setting) -> dict[str, dict[str, Any]]:
    """Memory of training, by rule and version: growth at `steps` and at twice as many, each in a fresh process.

    The difference of the two, per step, is free of what is paid once (libraries, optimizer, thread pools).
    """
    found: dict[str, dict[str, Any]] = {}
    for rule in RULES:
        found[rule] = {}
        for version in (BARE, "plastic_rl"):
            growth = []
            for steps in (setting.steps, 2 * setting.steps):
                arguments = asdict(setting) | {"steps": steps}
                options = [part for key, value in arguments.items() for part in (f"--{key}", str(value))]
                growth.append(measure.in_fresh_process(["--memory-of", version, "--rule", rule, *options])["growth"])
            found[rule][version] = {
                "megabytes": growth[0],
                "megabytes_per_step": growth[0] / setting.steps,
                "megabytes_per_further_step": (growth[1] - growth[0]) / setting.steps,
            }
    return found


def environment_speeds(setting: Setting, rounds: int) -> dict[str, float]:
    """Environment steps per second of CPU time under random actions: scalar, bare scalar and vectorised."""
    generator = np.random.default_rng(0)
    vector = make_vector(MAZE, setting.batch, env_kwargs=setting.env_kwargs)
    vector.reset(seed=0)
    actions = generator.integers(0, 4, size=(setting.steps, setting.batch))

    def scalar(envs: list[gymnasium.Env[Any, Any]]) -> Callable[[], None]:
        def run() -> None:
            for index, env in enumerate(envs):
                env.reset(seed=index)
                for action in actions[:, index]:
                    env.step(int(action))

        return run

    def vectorised() -> None:
        for row in actions:
            vector.step(row)

    contestants = {
        "scalar": scalar(scalar_envs(setting, bare=False)),
        "scalar, bare": scalar(scalar_envs(setting, bare=True)),
        "vectorised": vectorised,
    }
    seconds = measure.alternate(contestants, rounds)
    return {name: setting.steps * setting.batch / median(times.cpu) for name, times in seconds.items()}


def description() -> dict[str, Any]:
    """What the numbers were measured with."""
    return {
        "torch": torch.__version__,
        "numpy": np.__version__,
        "gymnasium": gymnasium.__version__,
        "plastic_rl": getattr(plastic_rl, "__version__", "unknown"),
        "threads": torch.get_num_threads(),
        "time": time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime()) + " UTC",
    }
