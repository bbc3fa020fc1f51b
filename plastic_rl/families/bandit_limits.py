"""What no learner can beat on Bernoulli bandits: the exact Bayes policy of two arms, and the Gittins index of many.

Both are dynamic programs over Beta beliefs, run once for each `(steps, prior)` in a process, when first asked.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

from plastic_rl.arrays import FloatArray, IntArray


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

    @staticmethod
    @lru_cache(maxsize=4)
    def shared(steps: int, prior: tuple[float, float]) -> TwoArmedBayes:
        """The policy, computed once in a process."""
        return TwoArmedBayes(steps, prior)

    def advantages(self, successes: IntArray, failures: IntArray) -> FloatArray:
        """Score both arms, `(B, 2)`: the better one positive, both zero where they are equally good.

        Args:
            successes: How often each arm paid, `(B, 2)`.
            failures: How often it did not, `(B, 2)`.
        """
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

    @staticmethod
    @lru_cache(maxsize=4)
    def shared(steps: int, prior: tuple[float, float]) -> GittinsIndex:
        """The index, computed once in a process."""
        return GittinsIndex(steps, prior)

    def __call__(self, successes: IntArray, failures: IntArray, left: IntArray) -> FloatArray:
        """Look the index up; the arguments broadcast.

        Args:
            successes: How often the arm paid.
            failures: How often it did not.
            left: Pulls left, this one included, 1 or more; `successes + failures + left <= steps`.
        """
        pulls = successes + failures
        place: IntArray = self._offsets[left - 1] + pulls * (pulls + 1) // 2 + successes
        return self._table[place].astype(np.float64)
