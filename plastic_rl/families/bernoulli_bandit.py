"""Bernoulli bandits: k arms, of which each pays with a hidden probability of its own."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from gymnasium import spaces
from typing_extensions import override

from plastic_rl.arrays import Array, BoolArray, FloatArray, Image, IntArray
from plastic_rl.envs import drawing
from plastic_rl.envs.reference_agents import RandomAgent
from plastic_rl.envs.task import STANDARD_SPLITS, Params, ReferenceAgent, Task, TaskDistribution
from plastic_rl.envs.task_vector_env import Outcome, TaskEnv, TaskVectorEnv
from plastic_rl.errors import TaskError
from plastic_rl.families.bandit_limits import GittinsIndex, TwoArmedBayes

EXACT_BAYES_STEPS = 100
"""Longest two-armed bandit whose exact Bayes policy is stored (4.6 million belief states)."""


class BernoulliBanditTasks(TaskDistribution):
    """`arms` reward probabilities, uniform on [0, 1]; on the split `shift` they are Beta(2, 2).

    Args:
        arms: Number of arms, k, 2 or more.
        steps: Pulls in a lifetime, n.
        entropy: Root of all seeds.

    >>> task = BernoulliBanditTasks(arms=2).task("test", 0)
    >>> [round(probability, 3) for probability in task.params["probabilities"]]
    [0.916, 0.232]
    """

    family = "BernoulliBandit"
    splits = (*STANDARD_SPLITS, "shift")

    def __init__(self, arms: int = 5, steps: int = 100, entropy: int = 0) -> None:
        super().__init__(entropy)
        if arms < 2 or steps < 1:
            raise TaskError(f"a bandit has 2 or more arms and 1 or more steps, got arms={arms}, steps={steps}")
        self.arms = arms
        self.steps = steps
        self.limit_kind = "bayes" if arms == 2 and steps <= EXACT_BAYES_STEPS else "index"

    def prior(self, split: str) -> tuple[float, float]:
        """Parameters of the Beta distribution that the arms of `split` come from."""
        return (2.0, 2.0) if split == "shift" else (1.0, 1.0)

    @override
    def sample_params(self, generator: np.random.Generator, split: str) -> Params:
        drawn = generator.beta(2.0, 2.0, self.arms) if split == "shift" else generator.random(self.arms)
        return {"probabilities": tuple(drawn.tolist())}

    @override
    def reference_agents(self, split: str) -> dict[str, ReferenceAgent]:
        """`random`, `thompson`, `ucb1_tuned`, `oracle`, and the limit: `bayes` (two arms) or `index`.

        The heuristics believe in uniform arms on every split; the limit is told the split's own prior.
        """
        agents: dict[str, ReferenceAgent] = {
            "random": RandomAgent(spaces.Discrete(self.arms)),
            "thompson": ThompsonAgent(self.arms),
            "ucb1_tuned": TunedUCB1Agent(self.arms),
            "oracle": BestArmAgent(),
        }
        prior = self.prior(split)
        if self.limit_kind == "bayes":
            agents["bayes"] = TwoArmedBayesAgent(self.steps, prior)
        else:
            agents["index"] = GittinsAgent(self.arms, self.steps, prior)
        return agents


class BernoulliBanditVectorEnv(TaskVectorEnv[BernoulliBanditTasks]):
    """Which of k arms pays best? Each pays 1 with a hidden probability of its own, else 0.

    # Task
    To explore the arms and settle on a good one within one lifetime: the probabilities are drawn anew for each
    lifetime, and nothing but the rewards received tells them.

    # Observation
    Box, k + 3 columns: previous action one-hot (k); previous reward; trial_start (always 1); t/T.

    # Actions
    Discrete k:

    | action     | meaning       |
    |------------|---------------|
    | 0 to k - 1 | pull this arm |

    # Reward
    1 with the probability of the arm pulled, else 0; `info["expected_reward"]` is that probability.

    # End
    A trial is one pull. Terminated after `steps` pulls.

    # Tasks and splits
    `probabilities`, uniform on [0, 1] each; on the split `shift` Beta(2, 2).

    # Limits
    Total over (n, k) = (100, 5): random 49.9, Thompson 74.7, index policy 78.65 (the limit; exact Bayes for two arms
    and up to 100 pulls), oracle 83.33.

    # Source
    Duan et al. 2016, "RL2: Fast reinforcement learning via slow reinforcement learning", and Mishra et al. 2018 (the
    published totals); Kaufmann et al. 2018 and Garivier et al. 2016 (the finite-horizon Gittins index).

    Args:
        num_envs: Number of rows, `B`.
        arguments: Those of `BernoulliBanditTasks`, and `RowOptions`.
    """

    tasks_class = BernoulliBanditTasks
    state_arrays: ClassVar[tuple[str, ...]] = ("_probabilities", "_uniforms", "_pulls", "_last")

    def __init__(self, num_envs: int = 1, **arguments: Any) -> None:
        tasks, options = self.tasks_and_options(arguments)
        super().__init__(
            num_envs,
            distribution=tasks,
            action_space=spaces.Discrete(tasks.arms),
            steps=tasks.steps,
            steps_per_trial=1,
            options=options,
        )
        self._probabilities: FloatArray = np.zeros((num_envs, tasks.arms))
        self._uniforms: FloatArray = np.zeros((num_envs, tasks.steps))
        self._pulls: IntArray = np.zeros((num_envs, tasks.arms), dtype=np.int64)
        self._last: IntArray = np.zeros(num_envs, dtype=np.int64)

    @override
    def begin_rows(self, rows: IntArray, tasks: Sequence[Task], generators: Sequence[np.random.Generator]) -> None:
        for row, task, generator in zip(rows.tolist(), tasks, generators, strict=True):
            self._probabilities[row] = task.params["probabilities"]
            # One number for each pull decides whether it pays, whatever the arm.
            generator.random(out=self._uniforms[row])
        self._pulls[rows] = 0
        self._last[rows] = -1

    @override
    def transition(self, actions: Array) -> Outcome:
        probability = self._probabilities[self._all_rows, actions]
        reward = (self._uniforms[self._all_rows, self.time] < probability).astype(np.float64)
        self._pulls[self._all_rows, actions] += 1
        self._last[:] = actions
        return Outcome(reward, np.ones(self.num_envs, dtype=np.bool_), probability)

    @override
    def text(self, row: int) -> str:
        """Hidden probability, pulls, and a mark at the arm pulled last."""
        lines = [drawing.headline(self.time[row], self.steps, self.returns[row])]
        for arm, probability in enumerate(self._probabilities[row]):
            mark = ">" if arm == self._last[row] else " "
            pulls = self._pulls[row, arm]
            lines.append(f"{mark} arm {arm:<3d} p {probability:.2f} {drawing.text_bar(probability)} {pulls} pulls")
        return "\n".join(lines)

    @override
    def frame(self, row: int) -> Image:
        """A bar for each arm's hidden probability, its pulls below, the arm pulled last in colour."""
        return drawing.bars(
            self._probabilities[row],
            labels=[str(pulls) for pulls in self._pulls[row]],
            chosen=int(self._last[row]),
            paid=bool(self._reward_column[row] > 0),
            head=f"{self.time[row]}/{self.steps} R {self.returns[row]:.0f}",
        )


class BernoulliBanditEnv(TaskEnv):
    """One row of `BernoulliBanditVectorEnv`, which documents it."""

    vector_class = BernoulliBanditVectorEnv


class CountingAgent(ReferenceAgent):
    """Base of agents that act on how often each arm has paid: state `(B, 2, k)`, successes and failures.

    Args:
        arms: Number of arms, k.
    """

    def __init__(self, arms: int) -> None:
        super().__init__()
        self.arms = arms

    @override
    def choose(self, rows: Array, start: BoolArray, state: Any, deterministic: bool) -> tuple[Array, Any]:
        counts = np.zeros((len(rows), 2, self.arms)) if state is None else np.where(start[:, None, None], 0.0, state)
        pulled = np.where(start[:, None], 0.0, rows[:, : self.arms])
        reward = rows[:, self.arms, None]
        counts = counts + np.stack([pulled * reward, pulled * (1.0 - reward)], axis=1)
        return self.best(self.scores(counts[:, 0], counts[:, 1]), deterministic), counts

    @abstractmethod
    def scores(self, successes: FloatArray, failures: FloatArray) -> FloatArray:
        """How much each arm is wanted, `(B, k)`, given how often it paid and did not, `(B, k)`."""


class ThompsonAgent(CountingAgent):
    """Draws a probability for each arm from its posterior (uniform prior) and pulls the largest."""

    @override
    def scores(self, successes: FloatArray, failures: FloatArray) -> FloatArray:
        rows = zip(self.noise(len(successes)).generators, 1.0 + successes, 1.0 + failures, strict=True)
        return np.stack([generator.beta(*posterior) for generator, *posterior in rows])


class TunedUCB1Agent(CountingAgent):
    """UCB1 (Auer et al. 2002) with a tuned width: posterior mean + c sqrt(2 ln t / m), m = pulls + 2 of the prior.

    Textbook UCB1 (c = 1 on sample means) explores far too much over 10 to 500 pulls; c is 0.2 here.
    """

    width = 0.2

    @override
    def scores(self, successes: FloatArray, failures: FloatArray) -> FloatArray:
        pulls = successes + failures
        time = pulls.sum(axis=1, keepdims=True) + 1.0
        mean = (successes + 1.0) / (pulls + 2.0)
        bonus: FloatArray = self.width * np.sqrt(2.0 * np.log(time) / (pulls + 2.0))
        return mean + bonus


class GittinsAgent(CountingAgent):
    """Pulls the arm of the largest finite-horizon Gittins index, a hair below the Bayes optimum.

    Args:
        arms: Number of arms, k.
        steps: Pulls in a lifetime, n.
        prior: Beta parameters of an arm.
    """

    def __init__(self, arms: int, steps: int, prior: tuple[float, float] = (1.0, 1.0)) -> None:
        super().__init__(arms)
        self.steps = steps
        self.prior = prior

    @override
    def scores(self, successes: FloatArray, failures: FloatArray) -> FloatArray:
        index = GittinsIndex.shared(self.steps, self.prior)
        left = self.steps - (successes + failures).sum(axis=1).astype(np.int64)
        return index(successes.astype(np.int64), failures.astype(np.int64), np.maximum(left, 1)[:, None])


class TwoArmedBayesAgent(CountingAgent):
    """The Bayes-optimal policy of a two-armed bandit, by dynamic programming over all beliefs.

    Args:
        steps: Pulls in a lifetime, n.
        prior: Beta parameters of both arms.
    """

    def __init__(self, steps: int, prior: tuple[float, float] = (1.0, 1.0)) -> None:
        super().__init__(2)
        self.steps = steps
        self.prior = prior

    @override
    def scores(self, successes: FloatArray, failures: FloatArray) -> FloatArray:
        policy = TwoArmedBayes.shared(self.steps, self.prior)
        return policy.advantages(successes.astype(np.int64), failures.astype(np.int64))


class BestArmAgent(ReferenceAgent):
    """Oracle: pulls the arm with the largest hidden probability."""

    needs_task = True

    @override
    def choose(self, rows: Array, start: BoolArray, state: Any, deterministic: bool) -> tuple[Array, Any]:
        if state is None:
            tasks = self.privileged_tasks(len(rows))
            state = np.array([np.argmax(task.params["probabilities"]) for task in tasks])
        return state.copy(), state
