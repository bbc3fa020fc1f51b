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
from typing import Any, ClassVar, Literal, Self, Unpack

import gymnasium as gym
import numpy as np
import torch
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.type_aliases import MaybeCallback
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor

from plastic_rl.algorithms.arguments import check_ranges
from plastic_rl.algorithms.base import CommonArguments, PlasticAlgorithm
from plastic_rl.algorithms.collector import Collector
from plastic_rl.algorithms.gradient_saving import checkpoint_of, restore
from plastic_rl.algorithms.rollout import Rollout
from plastic_rl.algorithms.saving import count_in
from plastic_rl.checkpoint import Checkpoint
from plastic_rl.config import Schedule
from plastic_rl.errors import ConfigError, NonFiniteError
from plastic_rl.plasticity import UNBOUNDED
from plastic_rl.policies import PlasticPolicy

DEFAULT_STEPS = 128
"""Rollout length where lifetimes have no fixed length."""

Scheduled = float | Schedule | Callable[[float], float]
Environment = str | gym.Env[Any, Any] | gym.vector.VectorEnv[Any, Any, Any] | VecEnv | None


class GradientArguments(CommonArguments, total=False):
    """The arguments that the algorithms of this kind take alike, with the same defaults."""

    n_steps: int | None
    max_grad_norm: float
    optimizer: Literal["adam", "rmsprop"]
    plasticity_lr_scale: float


class GradientAlgorithm(PlasticAlgorithm, OnPolicyAlgorithm):  # type: ignore[misc]  # OnPolicyAlgorithm types `policy`
    """The iteration, the optimizer and the checkpoint; a subclass computes the loss of a rollout.

    Args:
        policy: As `PlasticAlgorithm` takes it.
        env: As `PlasticA2C` takes it.
        learning_rate: Step size, or a schedule of the training progress that remains (1 to 0).
        n_envs: Number of environments where `env` is an id.
        optimizer_eps: The optimizer's epsilon.
        ranges: Further arguments, by name, that `check_ranges` looks at.
        n_steps: Steps of each environment in a rollout; None: one whole lifetime where its length is fixed, else 128.
        max_grad_norm: The gradient's norm is clipped to this.
        optimizer: `"adam"` or `"rmsprop"`.
        plasticity_lr_scale: The learning rate of alpha, eta and the like is `learning_rate` times this.
        **common: As `PlasticAlgorithm` takes them.

    Attributes:
        stored_schedules: Constructor arguments that are schedules, and the attributes that hold them.
        expected_rewards: Whether rollouts hold the expected rewards of actions in place of those that were drawn.
    """

    stored_schedules: ClassVar[Mapping[str, str]] = {}
    expected_rewards: bool = False
    rollout: Rollout

    def __init__(
        self,
        policy: str | type[PlasticPolicy],
        env: Environment,
        *,
        learning_rate: Scheduled,
        n_envs: int,
        optimizer_eps: float,
        ranges: Mapping[str, Any],
        n_steps: int | None = None,
        max_grad_norm: float = 1.0,
        optimizer: Literal["adam", "rmsprop"] = "adam",
        plasticity_lr_scale: float = 1.0,
        **common: Unpack[CommonArguments],
    ) -> None:
        check_ranges(
            {
                **ranges,
                "max_grad_norm": max_grad_norm,
                "optimizer_eps": optimizer_eps,
                "plasticity_lr_scale": plasticity_lr_scale,
                "n_envs": n_envs,
                **({} if n_steps is None else {"n_steps": n_steps}),
            }
        )
        if optimizer not in _OPTIMIZERS:
            raise ConfigError(f"optimizer must be one of {sorted(_OPTIMIZERS)}, got {optimizer!r}")
        self.requested_n_steps = n_steps
        self.optimizer_name, self.optimizer_eps = optimizer, float(optimizer_eps)
        self.plasticity_lr_scale = float(plasticity_lr_scale)
        inherited = {
            "learning_rate": learning_rate,
            "n_steps": n_steps or DEFAULT_STEPS,
            # Of these, a subclass that has a use for them says more.
            "gamma": 1.0,
            "gae_lambda": 1.0,
            "ent_coef": 0.0,
            "vf_coef": 0.0,
            "max_grad_norm": float(max_grad_norm),
            "use_sde": False,
            "sde_sample_freq": -1,
            "_init_setup_model": False,
        }
        super().__init__(policy, env, n_envs=n_envs, inherited=inherited, **common)

    # --- set-up ----------------------------------------------------------------------------------------------------

    def _setup_model(self) -> None:
        self._setup_lr_schedule()
        self.set_random_seed(self.seed)
        self._make_policy()
        self.n_steps = self.requested_n_steps or self.description.lifetime_steps or DEFAULT_STEPS
        self._check_fit()
        self._setup_optimizer()
        self.iterations = 0
        self.score_buffer: deque[float] = deque(maxlen=self._stats_window_size)
        self._plastic_state: dict[str, Tensor] = {}
        if self.env is not None:
            self._setup_lifetimes()

    def _setup_lifetimes(self) -> None:
        """Make what lifetimes under way need: their state and the rollout. An agent that only predicts has none."""
        self._plastic_state = self.newborn_state()
        self.collector = Collector(self)
        self.rollout = Rollout(self.n_steps, self.n_envs, self.policy.input_size, self.device)

    def set_env(self, env: Any, force_reset: bool = True) -> None:
        """See `PlasticAlgorithm.set_env`."""
        begins = self.env is None
        super().set_env(env, force_reset)
        if begins:
            self._setup_lifetimes()

    def _check_fit(self) -> None:
        """Refuse environments and networks that this algorithm cannot learn with."""

    def check_environment(self) -> None:
        """See `PlasticAlgorithm.check_environment`; also refuse one, set later, that this algorithm cannot learn in."""
        super().check_environment()
        self._check_fit()

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
            ConfigError: If there is no environment, or one that this algorithm cannot learn in.
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
        self._project()
        self._n_updates += 1
        metrics = {"loss": loss, **metrics, "gradient_norm": gradient_norm, "learning_rate": learning_rate}
        for name, value in metrics.items():
            self.logger.record(f"train/{name}", value.item() if isinstance(value, Tensor) else value)
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")

    @torch.no_grad()
    def _project(self) -> None:
        """Move parameters that the step has taken out of their valid range to its nearest end."""
        named = dict(self.policy.named_parameters())
        for name, (low, high) in self.policy.valid_ranges().items():
            if named[name].requires_grad and (low, high) != UNBOUNDED:
                named[name].clamp_(low, high)

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
        """Go on from `checkpoint`; see `plastic_rl.algorithms.gradient_saving.restore`."""
        restore(self, checkpoint)

    def arguments(self) -> dict[str, Any]:
        """See `PlasticAlgorithm.arguments`."""
        names = ("max_grad_norm", "optimizer_eps", "plasticity_lr_scale", "learning_rate")
        return {
            **super().arguments(),
            **{name: getattr(self, name) for name in names},
            **{name: getattr(self, attribute) for name, attribute in self.stored_schedules.items()},
            "optimizer": self.optimizer_name,
            "n_steps": self.requested_n_steps,
        }

    @classmethod
    def arguments_of(cls, config: Mapping[str, Any]) -> dict[str, Any]:
        """See `PlasticAlgorithm.arguments_of`; a checkpoint holds schedules as plain data."""
        arguments = {"n_envs": count_in(config, "n_envs"), **super().arguments_of(config)}
        schedules = ("learning_rate", *cls.stored_schedules)
        return {**arguments, **{name: Schedule.model_validate(arguments[name]) for name in schedules}}


_OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adam": torch.optim.Adam,
    "rmsprop": torch.optim.RMSprop,
}


def schedule(value: Scheduled) -> Callable[[float], float]:
    """Turn a number into a schedule that stays there."""
    return value if callable(value) else Schedule(start=float(value), end=float(value))
