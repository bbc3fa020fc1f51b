"""Bernoulli bandits: k arms, of which each pays with a hidden probability of its own."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from gymnasium import spaces
from typing_extensions import override

from plastic_rl.arrays import Array, BoolArray, FloatArray, IntArray
from plastic_rl.envs.task import STANDARD_SPLITS, Params, RandomAgent, ReferenceAgent, Task, TaskDistribution
from plastic_rl.envs.task_vector_env import ChoiceVectorEnv, Outcome, TaskEnv
from plastic_rl.errors import TaskError

EXACT_BAYES_STEPS = 100
"""Longest two-armed bandit whose exact Bayes policy is stored (4.6 million belief states)."""


class BernoulliBanditTasks(TaskDistribution):
    """A reward probability for each arm.

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

    @override
    def sample_params(self, generator: np.random.Generator, split: str) -> Params:
        drawn = generator.beta(2.0, 2.0, self.arms) if split == "shift" else generator.random(self.arms)
        return {"probabilities": tuple(drawn.tolist())}

    @override
    def reference_agents(self, split: str) -> dict[str, ReferenceAgent]:
        """The heuristics believe in uniform arms on every split; the limit is told the split's own prior."""
        limit = TwoArmedBayesAgent if self.limit_kind == "bayes" else GittinsAgent
        return {
            "random": RandomAgent(spaces.Discrete(self.arms)),
            "thompson": ThompsonAgent(self.arms),
            "ucb1_tuned": TunedUCB1Agent(self.arms),
            "oracle": BestArmAgent(),
            self.limit_kind: limit(self.arms, self.steps, (2.0, 2.0) if split == "shift" else (1.0, 1.0)),
        }


class BernoulliBanditVectorEnv(ChoiceVectorEnv[BernoulliBanditTasks]):
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
    """

    tasks_class = BernoulliBanditTasks
    bar_text = "arm {action:<3d} p {share:.2f} {bar} {label} pulls"
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
    def bars(self, row: int) -> tuple[FloatArray, Sequence[int]]:
        return self._probabilities[row], self._pulls[row].tolist()


class BernoulliBanditEnv(TaskEnv):
    """One row of `BernoulliBanditVectorEnv`, which documents it."""

    vector_class = BernoulliBanditVectorEnv


class TwoArmedBayes:
    """The exact Bayes policy of a two-armed Bernoulli bandit, over all beliefs `(s1, f1, s2, f2)`.

    Backwards in time t, with m1 pulls of the first arm and t - m1 of the second,
    `V_t = max_i p_i (1 + V_{t+1}(success of i)) + (1 - p_i) V_{t+1}(failure of i)`. Memory: steps^4 / 4 bytes.

    Attributes:
        value: Expected total reward of the policy over the whole lifetime.

    Args:
        steps: Pulls in a lifetime, n.
        prior: Beta parameters of both arms.

    >>> round(TwoArmedBayes(10).value, 4)
    6.0218
    """

    def __init__(self, steps: int, prior: tuple[float, float] = (1.0, 1.0)) -> None:
        paid, missed = prior
        self.steps = steps
        self._preferred: list[npt.NDArray[np.int8]] = []
        value = np.zeros((steps + 1,) * 3)
        for time in range(steps - 1, -1, -1):
            count = np.arange(time + 1.0)
            pulls = count[:, None, None]
            first = (paid + count[None, :, None]) / (paid + missed + pulls)
            second = (paid + count[None, None, :]) / (paid + missed + time - pulls)
            left = value[1:, :-1, :-1] + first * (1.0 + value[1:, 1:, :-1] - value[1:, :-1, :-1])
            right = value[:-1, :-1, :-1] + second * (1.0 + value[:-1, :-1, 1:] - value[:-1, :-1, :-1])
            difference = left - right
            self._preferred.append((np.sign(difference) * (np.abs(difference) > 1e-12)).astype(np.int8))
            value = np.maximum(left, right)
        self._preferred.reverse()
        self.value = float(value[0, 0, 0])

    def advantages(self, successes: IntArray, failures: IntArray) -> FloatArray:
        """Score both arms, `(B, 2)`, by how often each paid and did not, `(B, 2)`: the better one above 0."""
        times = np.minimum((successes + failures).sum(axis=1), self.steps - 1)
        preferred = np.zeros(len(times))
        for time in np.unique(times).tolist():
            rows = np.flatnonzero(times == time)
            pulls = np.minimum(successes[rows, 0] + failures[rows, 0], time)
            wins = np.minimum(successes[rows], time)
            preferred[rows] = self._preferred[time][pulls, wins[:, 0], wins[:, 1]]
        return np.stack([preferred, -preferred], axis=1)


class GittinsIndex:
    """The finite-horizon Gittins index of a Bernoulli arm with s successes, f failures and h pulls left.

    It is the sure reward L at which one would be indifferent between that arm and L for good: the root of
    `Q_h(s, f; L) = p - L + p W_{h-1}(s+1, f; L) + (1-p) W_{h-1}(s, f+1; L)`, `W_h = max(Q_h, 0)`, `W_0 = 0`.
    Q is convex and decreasing in L; it is computed for a grid of L at once and its root found by linear interpolation.
    Memory: 4 bytes for each (s, f, h) with s + f + h <= n, i.e. about 2 n^3 / 3 bytes (n = 500: 84 MB).

    Args:
        steps: Pulls in a lifetime, n.
        prior: Beta parameters of an arm.
        levels: Number of grid intervals of L on [0, 1]; None: 512, or 128 beyond 120 steps, to keep it to seconds.

    >>> index = GittinsIndex(2)
    >>> one, zero = np.array([1]), np.array([0])
    >>> [round(float(index(zero, zero, left)[0]), 3) for left in (one, 2 * one)]
    [0.5, 0.556]
    """

    def __init__(self, steps: int, prior: tuple[float, float] = (1.0, 1.0), levels: int | None = None) -> None:
        self.steps = steps
        paid, missed = prior
        if levels is None:
            levels = 512 if steps <= 120 else 128
        # Belief states (m pulls, s successes) in the order of m: those reachable with h pulls left are a prefix.
        pulls = np.repeat(np.arange(steps), np.arange(1, steps + 1))
        wins = np.arange(pulls.size) - pulls * (pulls + 1) // 2
        probability = ((paid + wins) / (paid + missed + pulls)).astype(np.float32)[:, None]
        failed = np.arange(pulls.size) + pulls + 1
        reachable = [(steps - left + 1) * (steps - left + 2) // 2 for left in range(1, steps + 1)]
        self._offsets = np.concatenate([[0], np.cumsum(reachable)])
        self._table = np.zeros(int(self._offsets[-1]), dtype=np.float32)
        chunk = 16
        for first in range(0, levels, chunk):
            level = (np.arange(first, min(first + chunk, levels) + 1) / levels).astype(np.float32)
            worth = np.zeros((steps * (steps + 3) // 2 + 1, level.size), dtype=np.float32)
            for left, states in enumerate(reachable, start=1):
                p = probability[:states]
                after_failure = worth[failed[:states]]
                after_success = worth[failed[:states] + 1]
                after_success -= after_failure
                after_success += 1.0
                after_success *= p
                after_success += after_failure
                after_success -= level
                gain = after_success
                # Each interval adds the share of it in which going on is worth it: 1, 0, or where the line crosses 0.
                share = gain[:, :-1] / (gain[:, :-1] - gain[:, 1:])
                np.clip(share, 0.0, 1.0, out=share)
                self._table[self._offsets[left - 1] : self._offsets[left]] += share.sum(axis=1) / levels
                worth = np.maximum(gain, 0.0, out=gain)

    def __call__(self, successes: IntArray, failures: IntArray, left: IntArray) -> FloatArray:
        """Look the index up, with `left` pulls left, this one included, 1 or more; the arguments broadcast."""
        pulls = successes + failures
        place: IntArray = self._offsets[left - 1] + pulls * (pulls + 1) // 2 + successes
        return self._table[place].astype(np.float64)


bayes_of = lru_cache(maxsize=4)(TwoArmedBayes)
index_of = lru_cache(maxsize=4)(GittinsIndex)
"""Both run once for each `(steps, prior)` in a process."""


class CountingAgent(ReferenceAgent):
    """Base of agents that act on how often each of k arms has paid: state `(B, 2, k)`, successes and failures."""

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
        left = self.steps - (successes + failures).sum(axis=1).astype(np.int64)
        counts = successes.astype(np.int64), failures.astype(np.int64)
        return index_of(self.steps, self.prior)(*counts, np.maximum(left, 1)[:, None])


class TwoArmedBayesAgent(GittinsAgent):
    """The Bayes-optimal policy of a two-armed bandit, by dynamic programming over all beliefs."""

    @override
    def scores(self, successes: FloatArray, failures: FloatArray) -> FloatArray:
        return bayes_of(self.steps, self.prior).advantages(successes.astype(np.int64), failures.astype(np.int64))


class BestArmAgent(ReferenceAgent):
    """Oracle: pulls the arm with the largest hidden probability."""

    needs_task = True

    @override
    def choose(self, rows: Array, start: BoolArray, state: Any, deterministic: bool) -> tuple[Array, Any]:
        if state is None:
            tasks = self.privileged_tasks(len(rows))
            state = np.array([np.argmax(task.params["probabilities"]) for task in tasks])
        return state.copy(), state
