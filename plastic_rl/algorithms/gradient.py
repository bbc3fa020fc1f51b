"""`GradientAlgorithm`: what all outer loops share that backpropagate through lifetimes.

One iteration: act for `n_steps` without a graph, from the plastic state that the last iteration left; unroll the
network over the stored observations from that same state; one gradient step. With `n_steps` equal to the lifetime
the gradient runs through whole lifetimes; with fewer it is truncated, while the state is carried on. What the gradient
is of, a subclass says.
"""

from __future__ import annotations

from abc import abstractmethod
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
from plastic_rl.algorithms.rollout import Rollout
from plastic_rl.algorithms.saving import checkpoint_of, rebuild, restore
from plastic_rl.algorithms.vec_env import adapt
from plastic_rl.checkpoint import Checkpoint
from plastic_rl.config import Schedule
from plastic_rl.errors import ConfigError, NonFiniteError
from plastic_rl.policies import POLICIES, PlasticPolicy
from plastic_rl.tasks import first_task

DEFAULT_STEPS = 128
"""Rollout length where lifetimes have no fixed length."""

Scheduled = float | Schedule | Callable[[float], float]
Environment = str | gym.Env[Any, Any] | gym.vector.VectorEnv[Any, Any, Any] | VecEnv | None


class GradientAlgorithm(PlasticAlgorithm, OnPolicyAlgorithm):  # type: ignore[misc]  # OnPolicyAlgorithm types `policy`
    """The iteration, the optimizer and the checkpoint; a subclass computes the loss of a rollout.

    Args:
        policy: Name in `plastic_rl.policies.POLICIES`, or a subclass of `PlasticPolicy`.
        env: As `PlasticA2C` takes it.
        learning_rate: Step size, or a schedule of the training progress that remains (1 to 0).
        n_steps: Steps of each environment in a rollout; None: one whole lifetime where its length is fixed, else 128.
        n_envs: Number of environments where `env` is an id.
        env_kwargs: Arguments of the environment where `env` is an id.
        trials: Inner episodes of a lifetime where `env` is the id of a foreign environment.
        max_grad_norm: The gradient's norm is clipped to this.
        optimizer: `"adam"` or `"rmsprop"`.
        optimizer_eps: The optimizer's epsilon.
        plasticity_lr_scale: The learning rate of alpha, eta and the like is `learning_rate` times this.
        policy_kwargs: Arguments of the policy.
        stats_window_size: Lifetimes that `rollout/score` and `rollout/ep_rew_mean` average over.
        tensorboard_log: Folder for TensorBoard, or None.
        verbose: 0 silent, 1 a table per logging interval.
        seed: Of everything random; None: from the operating system.
        device: `"auto"`, `"cpu"`, `"cuda"`, ...
        ranges: Further arguments, by name, that `check_ranges` looks at.
        _init_setup_model: Build the policy at once.

    Attributes:
        stored_arguments: Constructor arguments of the subclass that are attributes of the same name.
        stored_schedules: Constructor arguments that are schedules, and the attributes that hold them.
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {name: POLICIES[name] for name in POLICIES}
    stored_arguments: ClassVar[tuple[str, ...]] = ()
    stored_schedules: ClassVar[Mapping[str, str]] = {}
    rollout: Rollout

    def __init__(
        self,
        policy: str | type[PlasticPolicy],
        env: Environment,
        *,
        learning_rate: Scheduled,
        n_steps: int | None,
        n_envs: int,
        env_kwargs: Mapping[str, Any] | None,
        trials: int,
        max_grad_norm: float,
        optimizer: Literal["adam", "rmsprop"],
        optimizer_eps: float,
        plasticity_lr_scale: float,
        policy_kwargs: Mapping[str, Any] | None,
        stats_window_size: int,
        tensorboard_log: str | None,
        verbose: int,
        seed: int | None,
        device: torch.device | str,
        ranges: Mapping[str, Any],
        _init_setup_model: bool,
    ) -> None:
        check_ranges(
            {
                **ranges,
                "max_grad_norm": max_grad_norm,
                "optimizer_eps": optimizer_eps,
                "plasticity_lr_scale": plasticity_lr_scale,
                "n_envs": n_envs,
                "trials": trials,
                **({} if n_steps is None else {"n_steps": n_steps}),
            }
        )
        if optimizer not in _OPTIMIZERS:
            raise ConfigError(f"optimizer must be one of {sorted(_OPTIMIZERS)}, got {optimizer!r}")
        self.env_id = env if isinstance(env, str) else None
        self.env_kwargs, self.trials = dict(env_kwargs or {}), trials
        self.requested_n_steps = n_steps
        self.optimizer_name, self.optimizer_eps = optimizer, float(optimizer_eps)
        self.plasticity_lr_scale = float(plasticity_lr_scale)
        if isinstance(policy, str):
            policy = POLICIES[policy]
        seed = int(np.random.SeedSequence().generate_state(1)[0]) if seed is None else seed
        adapted = adapt(env, n_envs=n_envs, env_kwargs=self.env_kwargs, trials=trials, task_start=first_task(seed))
        super().__init__(
            policy,  # type: ignore[arg-type]  # OnPolicyAlgorithm is typed for ActorCriticPolicy alone
            adapted,  # type: ignore[arg-type]  # None too
            learning_rate=learning_rate,
            n_steps=n_steps or DEFAULT_STEPS,
            # Of these, a subclass that has a use for them says more.
            gamma=1.0,
            gae_lambda=1.0,
            ent_coef=0.0,
            vf_coef=0.0,
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
        self.n_steps = self.requested_n_steps or self.description.lifetime_steps or DEFAULT_STEPS
        self._check_fit()
        self._setup_optimizer()
        self._plastic_state = self.newborn_state()
        self.collector = Collector(self)
        self.rollout = Rollout(self.n_steps, self.n_envs, self.policy.input_size, self.device)
        self.iterations = 0
        self.score_buffer: deque[float] = deque(maxlen=self._stats_window_size)

    def _check_fit(self) -> None:
        """Refuse environments and networks that this algorithm cannot learn with."""

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
        tb_log_name: str | None = None,
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> Self:
        """Train for `total_timesteps` more steps (of all environments together), in whole rollouts.

        As in stable-baselines3, but metrics are logged after the gradient step they belong to. `log_interval` counts
        iterations since the run began, so that a resumed run logs the same ones. TensorBoard files are named after the
        algorithm unless `tb_log_name` says otherwise.

        Raises:
            NonFiniteError: Naming what became NaN or infinite, and when.
        """
        newborn = reset_num_timesteps or self._last_obs is None
        total_timesteps, hooks = self._setup_learn(
            total_timesteps, callback, reset_num_timesteps, tb_log_name or type(self).__name__, progress_bar
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
        self.rollout.check_finite()
        loss, metrics = self.rollout_loss(self._current_progress_remaining)
        optimizer = self.policy.optimizer
        learning_rate = float(self.lr_schedule(self._current_progress_remaining))
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * group["scale"]
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        gradient_norm = torch.nn.utils.clip_grad_norm_(self.policy.parameters(), self.max_grad_norm)
        self._check_finite(loss, gradient_norm)
        optimizer.step()
        self._n_updates += 1
        metrics = {"loss": loss, **metrics, "gradient_norm": gradient_norm, "learning_rate": learning_rate}
        for name, value in metrics.items():
            self.logger.record(f"train/{name}", value.item() if isinstance(value, Tensor) else value)
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")

    @abstractmethod
    def rollout_loss(self, remaining: float) -> tuple[Tensor, dict[str, Tensor | float]]:
        """Compute what the gradient step goes down, from the rollout just collected.

        Args:
            remaining: Share of the training that remains, 1 to 0.

        Returns:
            The loss, and metrics by name.
        """

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

    def counters(self) -> dict[str, Any]:
        """What a checkpoint's document `algorithm` holds of the subclass's own: plain data."""
        return {}

    def set_counters(self, counters: Mapping[str, Any]) -> None:
        """Put back what `counters` took."""

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


def schedule(value: Scheduled) -> Callable[[float], float]:
    """Turn a number into a schedule that stays there."""
    return value if callable(value) else Schedule(start=float(value), end=float(value))
