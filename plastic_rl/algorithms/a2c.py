"""`PlasticA2C`: advantage actor-critic over lifetimes of plastic networks.

References:
    Mnih et al. 2016, arXiv 1602.01783 (A2C); Schulman et al. 2016, arXiv 1506.02438 (advantages);
    Miconi et al. 2019, openreview r1lrAiA5Ym (the loss, with its sum of squared probabilities).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Unpack

import torch
from torch import Tensor

from plastic_rl.algorithms.gradient import Environment, GradientAlgorithm, GradientArguments, Scheduled, schedule
from plastic_rl.algorithms.rollout import advantages_and_returns
from plastic_rl.algorithms.saving import count_in
from plastic_rl.errors import ConfigError
from plastic_rl.policies import PlasticPolicy


class PlasticA2C(GradientAlgorithm):
    """A2C for policies whose synapses change while they act; a stable-baselines3 algorithm.

    Args:
        policy: Name in `plastic_rl.policies.POLICIES`, or a subclass of `PlasticPolicy`.
        env: Environment id (made with `n_envs` rows), Gymnasium Env, VectorEnv or stable-baselines3 VecEnv. Where the
            observation carries no feedback, `plastic_rl.envs.Lifetime` or its vector form is put around it.
        learning_rate: Step size, or a schedule of the training progress that remains (1 to 0).
        n_steps: Steps of each environment in a rollout; None: one whole lifetime where its length is fixed, else 128.
        n_envs: Number of environments where `env` is an id.
        env_kwargs: Arguments of the environment where `env` is an id.
        trials: Inner episodes of a lifetime where `env` is the id of a foreign environment.
        same_task_each_trial: Whether these share the lifetime's seed; None: where tasks are reset seeds (`Lifetime`).
        gamma: Discount, 0 to 1, or a schedule.
        gae_lambda: 0 to 1; 1 is plain returns.
        ent_coef: Weight of the entropy bonus.
        sum_p2_coef: Weight of the penalty on the sum of squared probabilities (the originals' regulariser).
        vf_coef: Weight of the squared value error.
        max_grad_norm: The gradient's norm is clipped to this.
        optimizer: `"adam"` or `"rmsprop"`.
        optimizer_eps: The optimizer's epsilon.
        plasticity_lr_scale: The learning rate of alpha, eta and the like is `learning_rate` times this.
        normalize_advantage: Scale advantages to mean 0 and deviation 1 (off: it lets policies collapse here).
        center_rewards: Subtract the running mean of rewards. Only sound where lifetimes have a fixed length.
        expected_rewards: Learn from the expected rewards of the actions taken, where the environment reports them
            (`info["expected_reward"]`: bandits, classification), in place of those that were drawn: the same gradient
            on average, with less noise. (Of a delayed reward the action that earns it is credited at once, which is
            another objective than discounting it.) The agent goes on seeing what was drawn.
        reward_scale: Learning multiplies rewards by this (above 0), so that values are of the order of 1; scores and
            what the agent sees stay as they are.
        policy_kwargs: Arguments of the policy, e.g. `{"network": {"rule": "oja", "hidden_size": 40}}`.
        stats_window_size: Lifetimes that `rollout/score` and `rollout/ep_rew_mean` average over.
        tensorboard_log: Folder for TensorBoard, or None.
        verbose: 0 silent, 1 a table per logging interval.
        seed: Of parameters, action sampling and environments; global random state is not touched. None: from the
            operating system.
        device: `"auto"`, `"cpu"`, `"cuda"`, ...

    Raises:
        SpaceError: If the environment's spaces are not supported.
        ConfigError: If arguments contradict each other.

    >>> from plastic_rl.algorithms import PlasticA2C
    >>> agent = PlasticA2C("BackpropaminePolicy", "plastic_rl/ReversalBandit-v0", n_envs=4, seed=1)
    >>> agent.learn(800).num_timesteps
    800
    """

    stored_arguments: ClassVar[tuple[str, ...]] = (
        "gae_lambda",
        "vf_coef",
        "normalize_advantage",
        "center_rewards",
        "expected_rewards",
        "reward_scale",
    )
    stored_schedules: ClassVar[Mapping[str, str]] = {
        "gamma": "gamma_schedule",
        "ent_coef": "ent_schedule",
        "sum_p2_coef": "sum_p2_schedule",
    }

    def __init__(
        self,
        policy: str | type[PlasticPolicy],
        env: Environment,
        *,
        learning_rate: Scheduled = 1e-3,
        n_envs: int = 32,
        gamma: Scheduled = 0.9,
        gae_lambda: float = 0.95,
        ent_coef: Scheduled = 0.01,
        sum_p2_coef: Scheduled = 0.0,
        vf_coef: float = 0.5,
        optimizer_eps: float = 1e-5,
        normalize_advantage: bool = False,
        center_rewards: bool = False,
        expected_rewards: bool = False,
        reward_scale: float = 1.0,
        **common: Unpack[GradientArguments],
    ) -> None:
        self.normalize_advantage, self.center_rewards = normalize_advantage, center_rewards
        self.expected_rewards = expected_rewards
        super().__init__(
            policy,
            env,
            learning_rate=learning_rate,
            n_envs=n_envs,
            optimizer_eps=optimizer_eps,
            ranges={
                # Of a schedule's ends the one farther from the middle is the one that can lie outside.
                "gamma": max(gamma(1.0), gamma(0.0), key=lambda end: abs(end - 0.5)) if callable(gamma) else gamma,
                "gae_lambda": gae_lambda,
                "vf_coef": vf_coef,
                "reward_scale": reward_scale,
                "normalize_advantage": normalize_advantage,
                "center_rewards": center_rewards,
                "expected_rewards": expected_rewards,
            },
            **common,
        )
        self.gamma_schedule = schedule(gamma)
        self.ent_schedule, self.sum_p2_schedule = schedule(ent_coef), schedule(sum_p2_coef)
        self.gamma, self.ent_coef = self.gamma_schedule(1.0), self.ent_schedule(1.0)
        self.gae_lambda, self.vf_coef, self.reward_scale = float(gae_lambda), float(vf_coef), float(reward_scale)

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
        if self.center_rewards and self.description.lifetime_steps is None:
            raise ConfigError(
                "center_rewards needs lifetimes of a fixed length: where the agent decides how long it lives, "
                "subtracting a constant from each reward changes what is best. Set center_rewards to false"
            )

    def rollout_loss(self, remaining: float) -> tuple[Tensor, dict[str, Tensor | float]]:
        """See `GradientAlgorithm.rollout_loss`."""
        rollout, policy = self.rollout, self.policy
        lived = rollout.counted > 0
        rewards = self._centred(rollout.rewards, lived) if self.center_rewards else rollout.rewards
        rewards = rewards * self.reward_scale
        self.gamma = self.gamma_schedule(remaining)
        result = policy.evaluate(
            policy.parameters_by_name(),
            rollout.observations,
            rollout.actions,
            self.collector.state_before,
            rollout.episode_starts,
            recorded=rollout.recording,
        )
        with torch.no_grad():
            advantages, returns = advantages_and_returns(
                rewards,
                result.values.detach(),
                rollout.ended,
                rollout.bootstrap,
                self.collector.last_values,
                self.gamma,
                self.gae_lambda,
            )
            own = advantages[lived]
            if self.normalize_advantage and own.numel() > 1:  # one alone has no deviation
                advantages = (advantages - own.mean()) / (own.std() + 1e-8)
        weight = rollout.counted / rollout.counted.sum()
        policy_loss = -(weight * advantages * result.log_probability).sum()
        value_loss = (weight * (returns - result.values).square()).sum()
        entropy = (weight * result.entropy).sum()
        sum_p2 = (weight * result.sum_p2).sum()
        self.ent_coef = self.ent_schedule(remaining)
        loss = policy_loss + self.vf_coef * value_loss - self.ent_coef * entropy
        loss = loss + self.sum_p2_schedule(remaining) * sum_p2

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
        }

    def _centred(self, rewards: Tensor, lived: Tensor) -> Tensor:
        count = int(lived.sum())
        self._reward_count += count
        self._reward_mean += (float(rewards[lived].mean()) - self._reward_mean) * count / self._reward_count
        return rewards - self._reward_mean

    def counters(self) -> dict[str, Any]:
        """See `GradientAlgorithm.counters`: the running mean of rewards."""
        return {"reward_mean": self._reward_mean, "reward_count": self._reward_count}

    def set_counters(self, counters: Mapping[str, Any]) -> None:
        """See `GradientAlgorithm.set_counters`."""
        self._reward_mean = float(counters["reward_mean"])
        self._reward_count = count_in(counters, "reward_count")
