"""`PlasticA2C`: advantage actor-critic over lifetimes of plastic networks.

References:
    Mnih et al. 2016, arXiv 1602.01783 (A2C); Schulman et al. 2016, arXiv 1506.02438 (advantages);
    Miconi et al. 2019, openreview r1lrAiA5Ym (the loss, with its sum of squared probabilities).

One iteration: act for `n_steps` without a graph, from the plastic state that the last iteration left; unroll the
network over the stored observations from that same state; one gradient step. With `n_steps` equal to the lifetime
the gradient runs through whole lifetimes; with fewer it is truncated, while the state is carried on.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal, Self

import gymnasium as gym
import numpy as np
import torch
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import MaybeCallback
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor

from plastic_rl.algorithms.arguments import check_ranges
from plastic_rl.algorithms.base import PlasticAlgorithm
from plastic_rl.algorithms.collector import Collector
from plastic_rl.algorithms.rollout import Rollout, advantages_and_returns
from plastic_rl.algorithms.saving import checkpoint_of, rebuild, restore
from plastic_rl.algorithms.vec_env import adapt
from plastic_rl.checkpoint import Checkpoint
from plastic_rl.config import Schedule
from plastic_rl.errors import ConfigError, NonFiniteError
from plastic_rl.policies import POLICIES, PlasticPolicy

DEFAULT_STEPS = 128
"""Rollout length where lifetimes have no fixed length."""

Scheduled = float | Schedule | Callable[[float], float]


class PlasticA2C(PlasticAlgorithm, OnPolicyAlgorithm):  # type: ignore[misc]  # OnPolicyAlgorithm types `policy`
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

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {name: POLICIES[name] for name in POLICIES}
    rollout: Rollout

    def __init__(
        self,
        policy: str | type[PlasticPolicy],
        env: str | gym.Env[Any, Any] | gym.vector.VectorEnv[Any, Any, Any] | VecEnv | None,
        *,
        learning_rate: Scheduled = 1e-3,
        n_steps: int | None = None,
        n_envs: int = 32,
        env_kwargs: Mapping[str, Any] | None = None,
        trials: int = 1,
        gamma: Scheduled = 0.9,
        gae_lambda: float = 0.95,
        ent_coef: Scheduled = 0.01,
        sum_p2_coef: Scheduled = 0.0,
        vf_coef: float = 0.5,
        max_grad_norm: float = 1.0,
        optimizer: Literal["adam", "rmsprop"] = "adam",
        optimizer_eps: float = 1e-5,
        plasticity_lr_scale: float = 1.0,
        normalize_advantage: bool = False,
        center_rewards: bool = False,
        reward_scale: float = 1.0,
        policy_kwargs: Mapping[str, Any] | None = None,
        stats_window_size: int = 100,
        tensorboard_log: str | None = None,
        verbose: int = 0,
        seed: int | None = None,
        device: torch.device | str = "auto",
        _init_setup_model: bool = True,
    ) -> None:
        check_ranges(
            {
                # Of a schedule's ends the one farther from the middle is the one that can lie outside.
                "gamma": max(gamma(1.0), gamma(0.0), key=lambda end: abs(end - 0.5)) if callable(gamma) else gamma,
                "gae_lambda": gae_lambda,
                "vf_coef": vf_coef,
                "max_grad_norm": max_grad_norm,
                "optimizer_eps": optimizer_eps,
                "plasticity_lr_scale": plasticity_lr_scale,
                "reward_scale": reward_scale,
                "n_envs": n_envs,
                "trials": trials,
                "normalize_advantage": normalize_advantage,
                "center_rewards": center_rewards,
                **({} if n_steps is None else {"n_steps": n_steps}),
            }
        )
        if optimizer not in _OPTIMIZERS:
            raise ConfigError(f"optimizer must be one of {sorted(_OPTIMIZERS)}, got {optimizer!r}")
        self.env_id = env if isinstance(env, str) else None
        self.env_kwargs, self.trials = dict(env_kwargs or {}), trials
        self.requested_n_steps = n_steps
        self.gamma_schedule = _schedule(gamma)
        self.ent_schedule, self.sum_p2_schedule = _schedule(ent_coef), _schedule(sum_p2_coef)
        self.optimizer_name, self.optimizer_eps = optimizer, float(optimizer_eps)
        self.plasticity_lr_scale = float(plasticity_lr_scale)
        self.normalize_advantage, self.center_rewards = normalize_advantage, center_rewards
        self.reward_scale = float(reward_scale)
        if isinstance(policy, str):
            policy = POLICIES[policy]
        seed = int(np.random.SeedSequence().generate_state(1)[0]) if seed is None else seed
        super().__init__(
            policy,  # type: ignore[arg-type]  # OnPolicyAlgorithm is typed for ActorCriticPolicy alone
            adapt(env, n_envs=n_envs, env_kwargs=self.env_kwargs, trials=trials),  # type: ignore[arg-type]  # None too
            learning_rate=learning_rate,
            n_steps=n_steps or DEFAULT_STEPS,
            gamma=self.gamma_schedule(1.0),
            gae_lambda=float(gae_lambda),
            ent_coef=self.ent_schedule(1.0),
            vf_coef=float(vf_coef),
            max_grad_norm=float(max_grad_norm),
            use_sde=False,
            sde_sample_freq=-1,
            stats_window_size=stats_window_size,
            tensorboard_log=tensorboard_log,
            policy_kwargs=dict(policy_kwargs or {}),
            verbose=verbose,
            seed=seed,
            device=device,
            _init_setup_model=_init_setup_model and env is not None,
        )

    # --- set-up ----------------------------------------------------------------------------------------------------

    def _setup_model(self) -> None:
        self._setup_lr_schedule()
        self.set_random_seed(self.seed)
        self._make_policy()
        description = self.description
        self.n_steps = self.requested_n_steps or description.lifetime_steps or DEFAULT_STEPS
        if self.center_rewards and description.lifetime_steps is None:
            raise ConfigError(
                "center_rewards needs lifetimes of a fixed length: where the agent decides how long it lives, "
                "subtracting a constant from each reward changes what is best. Set center_rewards to false"
            )
        self._setup_optimizer()
        self._plastic_state = self.newborn_state()
        self.collector = Collector(self)
        self.rollout = Rollout(self.n_steps, self.n_envs, self.policy.input_size, self.device)
        self._reward_mean, self._reward_count = 0.0, 0
        self.iterations = 0
        self.score_buffer: deque[float] = deque(maxlen=self._stats_window_size)

    def _setup_optimizer(self) -> None:
        plasticity = set(self.policy.plasticity_parameters())
        named = [(name, parameter) for name, parameter in self.policy.named_parameters() if parameter.requires_grad]
        groups = [
            {"params": [p for name, p in named if name not in plasticity], "scale": 1.0},
            {"params": [p for name, p in named if name in plasticity], "scale": self.plasticity_lr_scale},
        ]
        self.policy.optimizer = _OPTIMIZERS[self.optimizer_name](
            [group for group in groups if group["params"]], lr=self.lr_schedule(1.0), eps=self.optimizer_eps
        )

    def newborn_state(self) -> dict[str, Tensor]:
        """Return the plastic state of `n_envs` lifetimes that have not begun."""
        state = self.policy.network.initial_state(self.n_envs, self._sampling)
        return {name: entry.to(self.device) for name, entry in state.items()}

    # --- the iteration ---------------------------------------------------------------------------------------------

    def learn(
        self,
        total_timesteps: int,
        callback: MaybeCallback = None,
        log_interval: int = 1,
        tb_log_name: str = "PlasticA2C",
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> Self:
        """Train for `total_timesteps` more steps (of all environments together), in whole rollouts.

        As in stable-baselines3, but metrics are logged after the gradient step they belong to. `log_interval` counts
        iterations since the run began, so that a resumed run logs the same ones.

        Raises:
            NonFiniteError: Naming what became NaN or infinite, and when.
        """
        newborn = reset_num_timesteps or self._last_obs is None
        total_timesteps, hooks = self._setup_learn(
            total_timesteps, callback, reset_num_timesteps, tb_log_name, progress_bar
        )
        if newborn:
            self._plastic_state = self.newborn_state()
            self.collector.reset()
        if reset_num_timesteps:
            self.iterations = 0
        hooks.on_training_start(locals(), globals())
        assert self.env is not None
        while self.num_timesteps < total_timesteps:
            if not self.collector.collect(self.env, hooks, self.rollout):
                break
            self._update_current_progress_remaining(self.num_timesteps, total_timesteps)
            self.train()
            self.iterations += 1
            if log_interval and self.iterations % log_interval == 0:
                self.dump_logs(self.iterations)
        hooks.on_training_end()
        return self

    def train(self) -> None:
        """One gradient step on the rollout just collected."""
        rollout, policy = self.rollout, self.policy
        rollout.check_finite()
        lived = rollout.counted > 0
        rewards = self._centred(rollout.rewards, lived) if self.center_rewards else rollout.rewards
        rewards = rewards * self.reward_scale
        remaining = self._current_progress_remaining
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

        optimizer = policy.optimizer
        learning_rate = float(self.lr_schedule(remaining))
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * group["scale"]
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        gradient_norm = torch.nn.utils.clip_grad_norm_(policy.parameters(), self.max_grad_norm)
        self._check_finite(loss, gradient_norm)
        optimizer.step()
        self._n_updates += 1

        # Both without the correction for small samples, which cancels in their ratio: one step alone has variance 0.
        spread = returns[lived].var(correction=0)
        unexplained = (returns - result.values.detach())[lived].var(correction=0)
        explained = 1.0 - float(unexplained / spread) if spread > 0 else 0.0
        for name, value in (
            ("loss", loss),
            ("policy_loss", policy_loss),
            ("value_loss", value_loss),
            ("entropy", entropy),
            ("sum_p2", sum_p2),
            ("gradient_norm", gradient_norm),
            ("explained_variance", explained),
            ("learning_rate", learning_rate),
        ):
            self.logger.record(f"train/{name}", value.item() if isinstance(value, Tensor) else value)
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")

    def _centred(self, rewards: Tensor, lived: Tensor) -> Tensor:
        count = int(lived.sum())
        self._reward_count += count
        self._reward_mean += (float(rewards[lived].mean()) - self._reward_mean) * count / self._reward_count
        return rewards - self._reward_mean

    def _check_finite(self, loss: Tensor, gradient_norm: Tensor) -> None:
        """Raise unless loss and gradient are finite; parameters are still those of the last good update."""
        if torch.isfinite(loss) and torch.isfinite(gradient_norm):
            return
        named = list(self.policy.named_parameters())
        bad = [f"parameter {name}" for name, p in named if not torch.isfinite(p).all()]
        bad += [f"gradient of {name}" for name, p in named if p.grad is not None and not torch.isfinite(p.grad).all()]
        raise NonFiniteError(
            f"NaN or infinite in update {self._n_updates + 1}, at {self.num_timesteps} steps: loss {loss.item():.4g}, "
            f"gradient norm {gradient_norm.item():.4g}; {', '.join(bad) or 'no single gradient'}. The parameters were "
            "left as they stood. Lower learning_rate or max_grad_norm, or bound the trace (hard or soft clip)"
        )

    def collect_rollouts(
        self, env: VecEnv, callback: BaseCallback, rollout_buffer: Any = None, n_rollout_steps: int | None = None
    ) -> bool:
        """Act for one rollout (as stable-baselines3 names it); false if a callback asked to stop."""
        return self.collector.collect(env, callback, self.rollout)

    def dump_logs(self, iteration: int = 0) -> None:
        """Write the log; scores of lifetimes under `rollout/score`, clock readings only under `time/`."""
        if self.score_buffer:
            self.logger.record("rollout/score", float(np.mean(self.score_buffer)))
        super().dump_logs(iteration)

    # --- saving ----------------------------------------------------------------------------------------------------

    def get_parameters(self) -> dict[str, dict[str, Any]]:
        """Return parameters and optimizer state by name, as stable-baselines3 gives them."""
        return {**super().get_parameters(), "policy.optimizer": self.policy.optimizer.state_dict()}

    def get_checkpoint(self) -> Checkpoint:
        """Return everything needed to go on from here.

        Between rollouts (in a callback's `_on_rollout_start`, or after `learn`) going on gives the same bytes as never
        having stopped; within a rollout, its steps so far are not learned from.
        """
        return checkpoint_of(self)

    def set_checkpoint(self, checkpoint: Checkpoint) -> None:
        """Go on from `checkpoint`; see `plastic_rl.algorithms.saving.restore`."""
        restore(self, checkpoint)

    @classmethod
    def from_checkpoint(cls, checkpoint: Checkpoint, env: Any, device: torch.device | str, **kwargs: Any) -> Self:
        """Make the algorithm that `checkpoint` describes; see `plastic_rl.algorithms.saving.rebuild`."""
        return rebuild(cls, checkpoint, env, device, **kwargs)


_OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adam": torch.optim.Adam,
    "rmsprop": torch.optim.RMSprop,
}


def _schedule(value: Scheduled) -> Callable[[float], float]:
    return value if callable(value) else Schedule(start=float(value), end=float(value))
