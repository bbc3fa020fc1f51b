"""The rollout of an on-policy algorithm: `T` steps of `B` environments, and the returns computed from it."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from plastic_rl.arrays import Array
from plastic_rl.errors import NonFiniteError
from plastic_rl.networks import Recording
from plastic_rl.rollout import Step


class RolloutBuffer:
    """Preallocated storage of `n_steps` x `n_envs` transitions. Time first, as `unroll` takes it.

    Attributes:
        observations: `(T, B, I)`, what the agent saw before acting.
        actions: `(T, B)` or `(T, B, A)`, as sampled.
        rewards: `(T, B)`, what learning uses (expected or normalised ones where asked for).
        episode_starts: `(T, B)` bool, true where a lifetime starts with this observation.
        ended: `(T, B)` bool, true where the lifetime ended with this step, terminated or truncated.
        bootstrap: `(T, B)`, value of the state behind a truncation, zero elsewhere.
        counted: `(T, B)`, 0 for dummy steps of NEXT_STEP autoreset, else 1.
        recording: What the network computed while acting, where its `unroll` is quicker with it.
    """

    def __init__(self, n_steps: int, n_envs: int, observation_size: int, device: torch.device) -> None:
        self.n_steps, self.n_envs = n_steps, n_envs
        shape = (n_steps, n_envs)
        self.observations = torch.zeros((*shape, observation_size), dtype=torch.float32, device=device)
        self.rewards = torch.zeros(shape, dtype=torch.float32, device=device)
        self.episode_starts = torch.zeros(shape, dtype=torch.bool, device=device)
        self.ended = torch.zeros(shape, dtype=torch.bool, device=device)
        self.bootstrap = torch.zeros(shape, dtype=torch.float32, device=device)
        self.counted = torch.ones(shape, dtype=torch.float32, device=device)
        self.actions = torch.zeros(0, device=device)
        self.recording: Recording | None = None

    def clear(self) -> None:
        """Forget the last rollout (buffers are written over; only what is set sparsely must be zeroed)."""
        self.bootstrap.zero_()
        self.counted.fill_(1.0)

    def store(self, step: Step, reward: Array) -> None:
        """Keep a step, and the `reward (B,)` that learning uses."""
        time, device, outcome = step.time, self.rewards.device, step.outcome

        def tensor(array: Array) -> Tensor:
            return torch.from_numpy(array).to(device)

        self.observations[time] = tensor(step.observation)
        self.episode_starts[time] = tensor(step.starts)
        self.rewards[time] = tensor(reward.astype(np.float32, copy=False))
        self.ended[time] = tensor(outcome.ended)
        if not outcome.counted.all():
            self.counted[time] = tensor(outcome.counted)
        self._store_action(time, step.acted.sampled)
        if self.recording is not None:
            self.recording.append(step.acted.state)

    def _store_action(self, step: int, actions: Tensor) -> None:
        if self.actions.shape[1:] != actions.shape or self.actions.dtype != actions.dtype:
            self.actions = torch.zeros((self.n_steps, *actions.shape), dtype=actions.dtype, device=actions.device)
        self.actions[step] = actions

    def check_finite(self) -> None:
        """Raise `NonFiniteError` that names the first observation or reward that is NaN or infinite.

        The earliest is the cause: a reward comes back as feedback in the observation of the next step.
        """
        found: list[tuple[int, str]] = []
        for name in ("observations", "rewards", "bootstrap"):
            values: Tensor = getattr(self, name)
            bad = ~torch.isfinite(values)
            if bad.any():
                step, row, *column = (int(index) for index in bad.nonzero()[0])
                where = f", column {column[0]}" if column else ""
                what = f"{name.rstrip('s')} of environment {row} at step {step} of the rollout{where}"
                found.append((step, f"{what} is {values[bad][0].item()}"))
        if found:
            # Of one step the observation comes first; `min` keeps that order.
            _, message = min(found, key=lambda entry: entry[0])
            raise NonFiniteError(f"{message}; look at the environment (or at VecNormalize), not at the agent")


def advantages_and_returns(
    rewards: Tensor,
    values: Tensor,
    ended: Tensor,
    bootstrap: Tensor,
    last_values: Tensor,
    gamma: float,
    gae_lambda: float,
) -> tuple[Tensor, Tensor]:
    """Generalised advantage estimation (Schulman et al. 2016, arXiv 1506.02438, eq. 16), each element its own baseline.

    With `gae_lambda = 1` the returns are plain discounted ones, bootstrapped at the end of the rollout.

    Args:
        rewards: `(T, B)`.
        values: `(T, B)`, of the observations that were acted on.
        ended: `(T, B)` bool, true where the lifetime ended with the step.
        bootstrap: `(T, B)`, value behind a truncated step, zero elsewhere.
        last_values: `(B,)`, value of the observation after the last step.
        gamma: Discount, 0 to 1.
        gae_lambda: 0 (one-step) to 1 (whole return).

    Returns:
        Advantages and returns, each `(T, B)`.
    """
    alive = (~ended).to(values.dtype)
    next_values = torch.cat((values[1:], last_values.unsqueeze(0))) * alive + bootstrap
    deltas = rewards + gamma * next_values - values
    advantages = torch.empty_like(deltas)
    running = torch.zeros_like(last_values)
    carry = gamma * gae_lambda * alive
    for step in range(rewards.shape[0] - 1, -1, -1):
        running = deltas[step] + carry[step] * running
        advantages[step] = running
    return advantages, advantages + values
