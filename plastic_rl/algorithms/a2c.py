"""`PlasticA2C`: advantage actor-critic over lifetimes of plastic networks.

References:
    Mnih et al. 2016, arXiv 1602.01783 (A2C); Schulman et al. 2016, arXiv 1506.02438 (advantages);
    Miconi et al. 2019, openreview r1lrAiA5Ym (the loss, with its sum of squared probabilities).
"""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from plastic_rl.algorithms.gradient import Environment, GradientAlgorithm
from plastic_rl.checkpoint import Checkpoint, count_in
from plastic_rl.config import EndsWithin, Scheduled
from plastic_rl.config.signatures import handed_on
from plastic_rl.errors import ConfigError, damage_is_refused
from plastic_rl.policies import PlasticPolicy


class PlasticA2C(GradientAlgorithm):
    """Advantage actor-critic that backpropagates through lifetimes; a stable-baselines3 algorithm.

    Args:
        env: Environment id (made with `n_envs` rows), Gymnasium Env, VectorEnv or stable-baselines3 VecEnv. Where the
            observation carries no feedback, `plastic_rl.envs.Lifetime` or its vector form is put around it.
        gamma: Discount of later rewards, 0 to 1: a number or a linear schedule (from near to far sight).
        gae_lambda: Trace decay of the generalised advantage estimate; 1: plain returns.
        ent_coef: Weight of the entropy bonus: a number or a linear schedule.
        vf_coef: Weight of the squared value error.
        sum_p2_coef: Weight of the penalty on the sum of squared action probabilities (the originals' regulariser): a
            number or a linear schedule.
        normalize_advantage: Scale the advantages of a rollout to mean 0, deviation 1 (it lets policies collapse here).
        center_rewards: Subtract the running mean from rewards; only where lifetimes have a fixed length.
        expected_rewards: Learn from the expected rewards of actions where the environment reports them (bandits,
            classification): the same gradient on average, with less noise. What the agent sees stays as drawn. (Of a
            delayed reward the action that earns it is credited at once, which is another objective.)
        reward_scale: Learning multiplies rewards by this, so that values are of the order of 1; scores stay as they
            are.
        **shared: See `GradientAlgorithm` and `PlasticAlgorithm`.

    >>> from plastic_rl.algorithms import PlasticA2C
    >>> agent = PlasticA2C("BackpropaminePolicy", "plastic_rl/ReversalBandit-v0", n_envs=4, seed=1)
    >>> agent.learn(800).num_timesteps
    800
    """

    def __init__(
        self,
        policy: str | type[PlasticPolicy],
        env: Environment,
        *,
        gamma: Annotated[Scheduled, EndsWithin(0, 1)] = 0.9,
        gae_lambda: Annotated[float, Field(ge=0, le=1)] = 0.95,
        ent_coef: Annotated[Scheduled, EndsWithin(0)] = 0.01,
        vf_coef: Annotated[float, Field(ge=0)] = 0.5,
        sum_p2_coef: Annotated[Scheduled, EndsWithin(0)] = 0.0,
        normalize_advantage: bool = False,
        center_rewards: bool = False,
        expected_rewards: bool = False,
        reward_scale: Annotated[float, Field(gt=0)] = 1.0,
        **shared: Any,
    ) -> None:
        self.expected_rewards = expected_rewards
        super().__init__(policy, env, **handed_on(locals()))

    def _setup_model(self) -> None:
        super()._setup_model()
        self._reward_mean, self._reward_count = 0.0, 0

    def _check_fit(self) -> None:
        normalised = self.get_vec_normalize_env()
        if self.expected_rewards and normalised is not None and normalised.norm_reward:
            raise ConfigError(
                "expected_rewards learns from rewards that VecNormalize does not scale; make VecNormalize with "
                "norm_reward=False, or set expected_rewards to false"
            )
        if self.settings.center_rewards and self.description.lifetime_steps is None:
            raise ConfigError(
                "center_rewards needs lifetimes of a fixed length: where the agent decides how long it lives, "
                "subtracting a constant from each reward changes what is best. Set center_rewards to false"
            )

    def rollout_loss(self, remaining: float) -> tuple[Tensor, dict[str, Tensor | float]]:
        """See `GradientAlgorithm.rollout_loss`."""
        rollout, policy = self.rollout, self.policy
        lived = rollout.counted > 0
        rewards = self._centred(rollout.rewards, lived) if self.settings.center_rewards else rollout.rewards
        rewards = rewards * self.settings.reward_scale
        self.gamma = self.settings.gamma(remaining)
        result = policy.evaluate(
            policy.parameters_by_name(),
            rollout.observations,
            rollout.actions,
            self.state_before,
            rollout.episode_starts,
            recorded=rollout.recording,
            with_activity=self.costs_activity,
        )
        with torch.no_grad():
            advantages, returns = advantages_and_returns(
                rewards,
                result.values.detach(),
                rollout.ended,
                rollout.bootstrap,
                self.last_values,
                self.gamma,
                self.settings.gae_lambda,
            )
            own = advantages[lived]
            if self.settings.normalize_advantage and own.numel() > 1:  # one alone has no deviation
                advantages = (advantages - own.mean()) / (own.std() + 1e-8)
        weight = rollout.counted / rollout.counted.sum()
        policy_loss = -(weight * advantages * result.log_probability).sum()
        value_loss = (weight * (returns - result.values).square()).sum()
        entropy = (weight * result.entropy).sum()
        sum_p2 = (weight * result.sum_p2).sum()
        self.ent_coef = self.settings.ent_coef(remaining)
        loss = policy_loss + self.settings.vf_coef * value_loss - self.ent_coef * entropy
        loss = loss + self.settings.sum_p2_coef(remaining) * sum_p2
        told: dict[str, Tensor | float] = {}
        if result.activity is not None:
            cost, told = self.activity_loss(result.activity, remaining)
            loss = loss + cost

        # Both without the correction for small samples, which cancels in their ratio: one step alone has variance 0.
        spread = returns[lived].var(correction=0)
        unexplained = (returns - result.values.detach())[lived].var(correction=0)
        explained = 1.0 - float(unexplained / spread) if spread > 0 else 0.0
        return loss, {
            "policy_loss": policy_loss,
            "value_loss": value_loss,
            "entropy": entropy,
            "sum_p2": sum_p2,
            "explained_variance": explained,
            **told,
        }

    def log_likelihood(self, row: int) -> tuple[Tensor, int]:
        """See `GradientAlgorithm.log_likelihood`: of the actions, as they were sampled."""
        policy, (observations, state, starts) = self.policy, self._row(row)
        own = slice(row, row + 1)
        result = policy.evaluate(policy.parameters_by_name(), observations, self.rollout.actions[:, own], state, starts)
        counted = self.rollout.counted[:, own]
        return (counted * result.log_probability).sum(), int(counted.sum())

    def _centred(self, rewards: Tensor, lived: Tensor) -> Tensor:
        count = int(lived.sum())
        self._reward_count += count
        self._reward_mean += (float(rewards[lived].mean()) - self._reward_mean) * count / self._reward_count
        return rewards - self._reward_mean

    def counters(self) -> dict[str, Any]:
        """See `PlasticAlgorithm.counters`: also the running mean of rewards."""
        return {**super().counters(), "reward_mean": self._reward_mean, "reward_count": self._reward_count}

    def set_checkpoint(self, checkpoint: Checkpoint) -> None:
        """See `GradientAlgorithm.set_checkpoint`."""
        super().set_checkpoint(checkpoint)
        with damage_is_refused(f"{checkpoint.source} does not fit this {type(self).__name__}"):
            counters = checkpoint.documents["algorithm"]
            self._reward_mean = float(counters["reward_mean"])
            self._reward_count = count_in(counters, "reward_count")


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
    advantages = rewards + gamma * next_values - values
    # In NumPy, whose calls on so few numbers cost a fraction of torch's.
    sums, carry = advantages.cpu().numpy(), (gamma * gae_lambda * alive).cpu().numpy()
    scratch = np.empty_like(sums[0])
    for step in range(len(sums) - 2, -1, -1):
        np.multiply(carry[step], sums[step + 1], out=scratch)
        np.add(sums[step], scratch, out=sums[step])
    advantages = torch.from_numpy(sums).to(advantages.device)
    return advantages, advantages + values
