"""`GradientAlgorithm`: what all outer loops share that backpropagate through lifetimes.

One iteration: act for `n_steps` without a graph, from the plastic state that the last iteration left; unroll the
network over the stored observations from that same state; one gradient step. With `n_steps` equal to the lifetime
the gradient runs through whole lifetimes; with fewer it is truncated, while the state is carried on. What the gradient
is of, a subclass says.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import warnings
from abc import abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any, Literal, Self, cast

import gymnasium as gym
import numpy as np
import torch
from pydantic import Field
from stable_baselines3.common.callbacks import BaseCallback, CallbackList
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.type_aliases import MaybeCallback
from stable_baselines3.common.vec_env import VecEnv, VecNormalize
from torch import Tensor

from plastic_rl.algorithms.activity import activity_cost
from plastic_rl.algorithms.base import PlasticAlgorithm, Rows
from plastic_rl.algorithms.patterns import matching
from plastic_rl.algorithms.regularisers import REGULARISERS, restored
from plastic_rl.algorithms.sparsity import Sparsity, SparsityConfig
from plastic_rl.algorithms.unit_turnover import UnitTurnover, UnitTurnoverConfig
from plastic_rl.algorithms.vec_env import (
    VecEnvOutcome,
    VecEnvRows,
    layers,
    load_vec_env_state,
    load_vec_normalize,
    vec_env_state,
    vec_normalize_document,
)
from plastic_rl.algorithms.weight_changes import WeightChange
from plastic_rl.arrays import Array, FloatArray
from plastic_rl.checkpoint import Checkpoint, count_in
from plastic_rl.checkpoint.torch_state import load_optimizer_tensors, optimizer_tensors
from plastic_rl.config import EndsWithin, Schedule, Scheduled
from plastic_rl.config.signatures import handed_on
from plastic_rl.envs.vector_env import stored_array
from plastic_rl.errors import CheckpointError, ConfigError, NonFiniteError, damage_is_refused
from plastic_rl.networks.acting import ActsInPlace
from plastic_rl.plasticity import UNBOUNDED
from plastic_rl.plasticity.parts import Named, make_part, named_in
from plastic_rl.policies import PlasticPolicy
from plastic_rl.rollout import PolicyActor, Step, steps

DEFAULT_STEPS = 128
"""Rollout length where lifetimes have no fixed length."""

Environment = str | gym.Env[Any, Any] | gym.vector.VectorEnv[Any, Any, Any] | VecEnv | None


class GradientAlgorithm(PlasticAlgorithm, OnPolicyAlgorithm):  # type: ignore[misc]  # OnPolicyAlgorithm types `policy`
    """The iteration, the optimizer and the checkpoint; a subclass computes the loss of a rollout.

    Args:
        learning_rate: Step size: a number, or `{start: 5e-3, end: 0}` for a linear schedule.
        n_envs: Lifetimes lived side by side (the batch), where the environment is given by its id.
        n_steps: Steps of each environment between updates; None: one whole lifetime (128 where its length varies).
        max_grad_norm: The gradient is scaled down to this norm where it is longer.
        optimizer: Optimizer of the outer loop.
        optimizer_eps: The optimizer's epsilon.
        plasticity_lr_scale: Learning rate of the parameters of plasticity (alpha, eta, step sizes), as a multiple of
            `learning_rate`.
        lr_scales: Learning rate of parameters by pattern of their names, as a multiple of `learning_rate`, e.g.
            `{network.units.*.tau: 15}` for one in ms. Where several patterns match the last one counts, and any of
            them replaces `plasticity_lr_scale`. None: no patterns.
        activity_cost: Weight of a cost on what hidden units put out: a number or a linear schedule; 0: none.
        activity_target: What costs nothing is this mean output of each hidden unit over time, its distance is squared;
            None: the mean square of outputs costs.
        unit_turnover: How hidden units of little use are replaced; None: none are.
        sparsity: Which weights are sparse, and how those that are there are chosen; None: all weights are there.
        regulariser: What holds parameters to what earlier stages have taught (see `end_stage`): `none`, or its name and
            options, e.g. `{name: ewc, strength: 10}`.
        **shared: See `PlasticAlgorithm`.

    Attributes:
        expected_rewards: Whether rollouts hold the expected rewards of actions in place of those that were drawn.
        rollout: What was collected last; this and the next two are there once something was.
        state_before: Plastic state at the start of that: where `unroll` begins.
        last_values: `(B,)` value of the observation behind its last step, zero where the lifetime ended.
        lifetime_scores: `(B,)` expected reward (else reward) so far in each row's lifetime.
        regulariser_state: What the regulariser keeps of the trained parameters.
    """

    expected_rewards: bool = False
    rollout: RolloutBuffer
    state_before: Mapping[str, Tensor]
    last_values: Tensor
    lifetime_scores: FloatArray

    def __init__(
        self,
        policy: str | type[PlasticPolicy],
        env: Environment,
        *,
        learning_rate: Annotated[Scheduled, EndsWithin(0)] = 1e-3,
        n_envs: Rows = 32,
        n_steps: Annotated[int | None, Field(ge=1)] = None,
        max_grad_norm: Annotated[float, Field(gt=0)] = 1.0,
        optimizer: Literal["adam", "rmsprop"] = "adam",
        optimizer_eps: Annotated[float, Field(gt=0)] = 1e-5,
        plasticity_lr_scale: Annotated[float, Field(ge=0)] = 1.0,
        lr_scales: Mapping[str, Annotated[float, Field(gt=0)]] | None = None,
        activity_cost: Annotated[Scheduled, EndsWithin(0)] = 0.0,
        activity_target: float | None = None,
        unit_turnover: UnitTurnoverConfig | None = None,
        sparsity: SparsityConfig | None = None,
        regulariser: Annotated[Named, named_in(REGULARISERS)] = "none",
        **shared: Any,
    ) -> None:
        super().__init__(policy, env, **handed_on(locals()))

    # --- set-up ----------------------------------------------------------------------------------------------------

    def _rows(self) -> int:
        return int(self.settings.n_envs)

    def _inherited(self) -> dict[str, Any]:
        own = self.settings
        inherited = {
            "learning_rate": own.learning_rate,
            "n_steps": own.n_steps or DEFAULT_STEPS,
            "max_grad_norm": own.max_grad_norm,
            "use_sde": False,
            "sde_sample_freq": -1,
            "_init_setup_model": False,
        }
        # Of those that a subclass has: for whoever reads them on a stable-baselines3 algorithm.
        others = {"gamma": 1.0, "gae_lambda": 1.0, "ent_coef": 0.0, "vf_coef": 0.0}
        for name, unused in others.items():
            value = getattr(own, name, unused)
            inherited[name] = value(1.0) if callable(value) else value
        return inherited

    @classmethod
    def largest_rows(cls, settings: Any) -> int:
        """See `PlasticAlgorithm.largest_rows`."""
        return int(settings.n_envs)

    def planned(self, total: int) -> int:
        """See `PlasticAlgorithm.planned`: whole rollouts, of which the last may go beyond the steps asked for."""
        rollout = self.n_steps * self.n_envs
        return -(-total // rollout) * rollout

    def _setup_model(self) -> None:
        self._setup_lr_schedule()
        self.set_random_seed(self.seed)
        self._make_policy()
        self.n_steps = self.settings.n_steps or self.description.lifetime_steps or DEFAULT_STEPS
        self._check_fit()
        self._check_activity()
        self._setup_optimizer()
        self._changes = self._weight_changes()
        self.regulariser = make_part(REGULARISERS, self.settings.regulariser)
        self.regulariser_state = self.regulariser.begun(self._trained())
        self.iterations = 0
        self.score_buffer: deque[float] = deque(maxlen=self._stats_window_size)
        self._plastic_state: Mapping[str, Tensor] = {}
        if self.env is not None:
            self._begin_lifetimes()

    def _begin_lifetimes(self) -> None:
        """Give the lifetimes under way the state of newborn ones. An agent that only predicts has none."""
        state = self.policy.network.initial_state(self.n_envs, self._sampling)
        self._plastic_state = {name: entry.to(self.device) for name, entry in state.items()}
        self.lifetime_scores = np.zeros(self.n_envs)

    def set_env(self, env: Any, force_reset: bool = True) -> None:
        """See `PlasticAlgorithm.set_env`."""
        begins = self.env is None
        super().set_env(env, force_reset)
        if begins:
            self._begin_lifetimes()

    def _check_fit(self) -> None:
        """Refuse environments and networks that this algorithm cannot learn with."""

    @property
    def costs_activity(self) -> bool:
        """Whether there is a cost on the activity of hidden units, at any time in training."""
        cost = self.settings.activity_cost
        return not (isinstance(cost, Schedule) and cost.start == cost.end == 0)

    def _check_activity(self) -> None:
        """Refuse a cost on activity that the network does not tell, and a target without a cost."""
        if self.costs_activity and not self.policy.network.tells_activity:
            raise ConfigError(
                f"activity_cost is of hidden units' outputs, which this {self.policy.network_config['kind']} network "
                "does not tell (it has none, or answers with outputs of its own); set activity_cost to 0, or use "
                "hidden units of plastic_units, plastic_rnn, rnn, gru or lstm"
            )
        if not self.costs_activity and self.settings.activity_target is not None:
            raise ConfigError("activity_target does nothing while activity_cost is 0; give activity_cost too")

    def activity_loss(self, activity: Tensor, remaining: float) -> tuple[Tensor, dict[str, Tensor | float]]:
        """What the activity of hidden units adds to the loss of the rollout just collected, and metrics by name.

        Args:
            activity: Their outputs, `(T, B, H)`.
            remaining: Share of the training that remains, 1 to 0.
        """
        weight = self.rollout.counted / self.rollout.counted.sum()
        cost = activity_cost(activity, weight, self.settings.activity_target)
        mean = (weight.unsqueeze(-1) * activity.detach()).sum((0, 1)).mean()
        return self.settings.activity_cost(remaining) * cost, {"activity_cost": cost, "mean_activity": mean}

    def check_environment(self) -> None:
        """See `PlasticAlgorithm.check_environment`; also refuse one, set later, that this algorithm cannot learn in."""
        super().check_environment()
        self._check_fit()

    def _setup_optimizer(self) -> None:
        named = {name: parameter for name, parameter in self.policy.named_parameters() if parameter.requires_grad}
        scales: dict[str, float] = {}
        for pattern, scale in (self.settings.lr_scales or {}).items():
            scales |= dict.fromkeys(matching(pattern, list(named), "algorithm.lr_scales"), scale)
        others = {name: parameter for name, parameter in named.items() if name not in scales}
        plasticity = set(self.policy.plasticity_parameters())
        groups = [
            {"params": [p for name, p in others.items() if name not in plasticity], "scale": 1.0},
            {
                "params": [p for name, p in others.items() if name in plasticity],
                "scale": self.settings.plasticity_lr_scale,
            },
            *({"params": [named[name]], "scale": scale} for name, scale in scales.items()),
        ]
        optimizers: dict[str, Callable[..., torch.optim.Optimizer]]
        optimizers = {"adam": torch.optim.Adam, "rmsprop": torch.optim.RMSprop}
        self.policy.optimizer = optimizers[self.settings.optimizer](
            [group for group in groups if group["params"]], lr=self.lr_schedule(1.0), eps=self.settings.optimizer_eps
        )

    def _weight_changes(self) -> dict[str, WeightChange]:
        """What changes weights beside the gradient step, by the argument that asks for it, in their order."""
        own = self.settings
        given = self.policy, self._initial
        changes: dict[str, WeightChange] = {}
        if own.unit_turnover is not None:
            changes["unit_turnover"] = UnitTurnover(own.unit_turnover, *given)
        if own.sparsity is not None:  # last: new weights may be ones that are not there
            changes["sparsity"] = Sparsity(own.sparsity, *given)
        return changes

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
        """Train for `total_timesteps` more steps.

        As in stable-baselines3, but metrics are logged after the gradient step they belong to.

        Args:
            total_timesteps: Steps to train for, all environments counted; rounded up to whole rollouts.
            callback: As in stable-baselines3.
            log_interval: Iterations between rows of the log, counted since the run began, so that a resumed run logs
                the same ones.
            tb_log_name: Name of the run in TensorBoard; None: that of the algorithm.
            reset_num_timesteps: Begin anew: count from 0, and start new lifetimes.
            progress_bar: Show stable-baselines3's progress bar.

        Raises:
            ConfigError: If there is no environment, or one that this algorithm cannot learn in.
            NonFiniteError: Naming what became NaN or infinite, and when.
        """
        self.check_environment()
        newborn = reset_num_timesteps or self._last_obs is None
        total_timesteps, hooks = self._setup_learn(
            total_timesteps, callback, reset_num_timesteps, tb_log_name or type(self).__name__, progress_bar
        )
        if newborn:
            self._begin_lifetimes()
        if reset_num_timesteps:
            self.iterations = 0
        hooks.on_training_start(locals(), globals())
        assert self.env is not None
        while self.num_timesteps < total_timesteps:
            if not self.collect_rollouts(self.env, hooks):
                break
            self._update_current_progress_remaining(self.num_timesteps, total_timesteps)
            self.train()
            self.iterations += 1
            if log_interval and self.iterations % log_interval == 0:
                self.dump_logs(self.iterations)
        hooks.on_training_end()
        return self

    def collect_rollouts(
        self, env: VecEnv, callback: BaseCallback, rollout_buffer: Any = None, n_rollout_steps: int | None = None
    ) -> bool:
        """Act for one rollout (as stable-baselines3 names it); false if a callback asked to stop.

        At every call of the callback the algorithm's counters, observation and plastic state belong to the step just
        taken, so that a callback may save at any time.
        """
        policy = self.policy
        policy.set_training_mode(False)
        callback.on_rollout_start()
        params = policy.parameters_by_name()
        rollout = self.rollout = RolloutBuffer(self.n_steps, self.n_envs, policy.input_size, self.device)
        self.state_before = self._plastic_state
        self._acted_by = self._versions()
        outputs: dict[str, Tensor] = {}
        watching = policy.network.watched(outputs.__setitem__) if self._changes else contextlib.nullcontext()
        with torch.no_grad(), watching:
            noise = policy.distribution.draw_noise((rollout.n_steps, rollout.n_envs), self._sampling).to(self.device)
            actor = PolicyActor(policy, params, noise.unbind(0).__getitem__, (rollout.n_envs,), steps=rollout.n_steps)
            assert self._last_obs is not None
            rows = VecEnvRows(env, np.asarray(self._last_obs), np.asarray(self._last_episode_starts))
            callback.update_locals(locals())
            for step in itertools.islice(steps(rows, actor, self._plastic_state), rollout.n_steps):
                outcome = cast("VecEnvOutcome", step.outcome)
                if self.expected_rewards and not np.all(outcome.known | ~outcome.counted):
                    raise ConfigError(
                        "expected_rewards needs an environment that reports them, as expected_reward in the info of "
                        "each step (bandits and classification do); this one does not. Set expected_rewards to false"
                    )
                rollout.store(step, outcome.expected if self.expected_rewards else outcome.reward)
                infos, dones = outcome.infos, outcome.starts
                if self._changes:
                    shown = {name: policy.network.step_output(name, course) for name, course in outputs.items()}
                    for change in self._changes.values():
                        change.acted(shown, torch.from_numpy(outcome.counted))
                self._plastic_state = step.acted.state
                self._last_obs = cast("Any", outcome.observation)
                self._last_episode_starts = dones
                self.num_timesteps += env.num_envs
                self.lifetime_scores += outcome.expected
                over = np.count_nonzero(dones) > 0
                if over:
                    self._score(outcome)
                if np.count_nonzero(outcome.truncated):
                    self._bootstrap(params, outcome, step.time)
                # The others are as they were before the first step.
                callback.update_locals({"step": step, "outcome": outcome, "infos": infos, "dones": dones})
                if not callback.on_step():
                    return False
                if over:
                    self._update_info_buffer(infos, dones)
            rollout.complete()
            rollout.recording = actor.recorded
            starts = torch.from_numpy(np.asarray(self._last_episode_starts)).to(self.device)
            last = torch.from_numpy(np.asarray(self._last_obs)).to(self.device).float()
            # Behind the end of a lifetime there is nothing to value.
            behind_all = bool(rollout.ended[-1].all())
            self.last_values = (
                torch.zeros(self.n_envs, dtype=torch.float32, device=self.device)
                if behind_all
                else policy.value(params, last, self._plastic_state, starts)
            )
        callback.update_locals(locals())
        callback.on_rollout_end()
        return True

    def _versions(self) -> list[tuple[int, int]]:
        """What changes where a parameter is changed in place, or another takes its place."""
        return [(own._version, own.data_ptr()) for own in self.policy.parameters()]

    def _score(self, outcome: VecEnvOutcome) -> None:
        """Note the scores of the lifetimes that are over."""
        for row in outcome.starts.nonzero()[0]:
            self.score_buffer.append(float(self.lifetime_scores[row]))
            self.lifetime_scores[row] = 0.0

    def _bootstrap(self, params: dict[str, Tensor], outcome: VecEnvOutcome, time: int) -> None:
        """Value of the observation behind each truncation, seen with the plastic state of that very lifetime."""
        behind = np.array(outcome.observation, dtype=np.float32)
        truncated = np.flatnonzero(outcome.truncated)
        for row in truncated:
            if "terminal_observation" in outcome.infos[row]:
                behind[row] = outcome.infos[row]["terminal_observation"]
        going_on = torch.zeros(self.n_envs, dtype=torch.bool, device=self.device)
        values = self.policy.value(params, torch.from_numpy(behind).to(self.device), self._plastic_state, going_on)
        self.rollout.bootstrap[time, truncated] = values[truncated].cpu()

    def train(self) -> None:
        """One gradient step on the rollout just collected."""
        self.rollout.check_finite()
        if self._acted_by != self._versions():
            # A callback has changed parameters: what acting computed by the earlier ones is nothing to learn from.
            self.rollout.recording = None
        loss, metrics = self.rollout_loss(self._current_progress_remaining)
        optimizer = self.policy.optimizer
        learning_rate = float(self.lr_schedule(self._current_progress_remaining))
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * group["scale"]
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        at = self._point() if self.regulariser.sees_steps else None
        penalty = self.regulariser.penalty(self._trained(), self.regulariser_state)
        if penalty is not None:
            penalty.backward()  # type: ignore[no-untyped-call]
            metrics = {**metrics, "penalty": penalty}
        for change in self._changes.values():
            change.before_step()
        gradient_norm = torch.nn.utils.clip_grad_norm_(self.policy.parameters(), self.max_grad_norm)
        self._check_finite(loss, gradient_norm)
        optimizer.step()
        self._project()
        if at is not None:
            self.regulariser_state = self.regulariser.stepped(self.regulariser_state, *at, self._trained())
        stepped = self._values() if at is not None and self._changes else None
        for change in self._changes.values():
            metrics |= change.after_step(self._current_progress_remaining)
        if stepped is not None:
            self.regulariser_state = self.regulariser.set_anew(self.regulariser_state, stepped, self._trained())
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

    def _trained(self) -> dict[str, Tensor]:
        return {name: own for name, own in self.policy.named_parameters() if own.requires_grad}

    def _point(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Gradients and parameters as they are now, as copies."""
        gradients = {name: p.grad.clone() for name, p in self.policy.named_parameters() if p.grad is not None}
        return gradients, self._values()

    def _values(self) -> dict[str, Tensor]:
        return {name: own.detach().clone() for name, own in self._trained().items()}

    @torch.no_grad()
    def _project(self) -> None:
        """Move parameters that the step has taken out of their valid range to its nearest end."""
        named = dict(self.policy.named_parameters())
        for name, (low, high) in self.policy.valid_ranges().items():
            if named[name].requires_grad and (low, high) != UNBOUNDED:
                named[name].clamp_(low, high)

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

    # --- stages ----------------------------------------------------------------------------------------------------

    def end_stage(self) -> None:
        """Let the regulariser take in what was learned so far; see `PlasticAlgorithm.end_stage`."""
        self.check_environment()
        state, trained = self.regulariser_state, self._trained()
        self.regulariser_state = self.regulariser.stage_ended(state, trained, self.lifetime_gradients)

    def lifetime_gradients(self, count: int) -> Iterator[dict[str, Tensor]]:
        """Live `count` lifetimes with the parameters as they are, and yield the gradient of each one's log-likelihood.

        They are no part of training: nothing counts them. Where `n_steps` are fewer than a lifetime has, its pieces
        stand for lifetimes. Each gradient is divided by the root of the steps, so that the mean of their squares is the
        information of a step.
        """
        assert self.env is not None
        counted = self.num_timesteps, deque(self.score_buffer), deque(self.ep_info_buffer or [])
        changes, self._changes = self._changes, {}
        hooks = CallbackList([])
        hooks.init_callback(self)
        self._start_lifetimes(begun=True)
        self._begin_lifetimes()
        trained = self._trained()
        try:
            for number in range(count):
                row = number % self.n_envs
                if row == 0:
                    self.collect_rollouts(self.env, hooks)
                likelihood, told = self.log_likelihood(row)
                if told == 0:
                    continue
                of_all = torch.autograd.grad(likelihood / told**0.5, list(trained.values()), allow_unused=True)
                found: list[Tensor | None] = list(of_all)
                yield {name: own for name, own in zip(trained, found, strict=True) if own is not None}
        finally:
            self.num_timesteps, self._changes = counted[0], changes
            for buffer, kept in zip((self.score_buffer, self.ep_info_buffer), counted[1:], strict=True):
                assert buffer is not None
                buffer.clear()
                buffer.extend(kept)

    @abstractmethod
    def log_likelihood(self, row: int) -> tuple[Tensor, int]:
        """Log-likelihood of what a row of the rollout just collected has shown, and the steps that it is the sum of."""

    def _row(self, row: int) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        """Observations `(T, 1, I)`, plastic state before them and starts `(T, 1)` of a row of the rollout."""
        own = slice(row, row + 1)
        state = {name: value[own] for name, value in self.state_before.items()}
        return self.rollout.observations[:, own], state, self.rollout.episode_starts[:, own]

    # --- saving ----------------------------------------------------------------------------------------------------

    def training_tensors(self) -> dict[str, dict[str, Tensor]]:
        """See `PlasticAlgorithm.training_tensors`.

        Between rollouts (in a callback's `_on_rollout_start`, or after `learn`) going on gives the same bytes as never
        having stopped; within a rollout, its steps so far are not learned from.
        """
        names = {own: name for name, own in self.policy.named_parameters()}
        own = {"optimizer": optimizer_tensors(self.policy.optimizer, names), "state": dict(self._plastic_state)}
        return {**own, "regulariser": dict(self.regulariser_state)} if self.regulariser_state else own

    def environment_state(self) -> Any:
        """See `PlasticAlgorithm.environment_state`."""
        return None if self.env is None else vec_env_state(self.env)

    def counters(self) -> dict[str, Any]:
        """See `PlasticAlgorithm.counters`: also the lifetimes under way, without their plastic state."""
        starts = self._last_episode_starts
        return {
            **super().counters(),
            "n_updates": self._n_updates,
            # Monitor's clock reading "t" would make equal runs differ.
            "ep_info_buffer": [{**info, "t": 0.0} for info in self.ep_info_buffer or []],
            "ep_success_buffer": [float(success) for success in self.ep_success_buffer or []],
            "lifetime_scores": None if self.env is None else self.lifetime_scores.copy(),
            "last_obs": None if self._last_obs is None else np.array(self._last_obs),
            "last_episode_starts": None if starts is None else np.array(starts),
            "vec_normalize": vec_normalize_document(self.get_vec_normalize_env()),
            **{name: change.document() for name, change in self._changes.items()},
        }

    def set_checkpoint(self, checkpoint: Checkpoint) -> None:
        """Go on from `checkpoint`, in the environment at hand where it has as many rows.

        An environment that cannot restore its state restarts its lifetimes, with a warning.

        Raises:
            CheckpointError: If the checkpoint belongs to another network, or lacks a part, or a part does not fit.
        """
        super().set_checkpoint(checkpoint)
        with damage_is_refused(f"{checkpoint.source} does not fit this {type(self).__name__}"):
            counters = checkpoint.documents["algorithm"]
            load_optimizer_tensors(self.policy.optimizer, checkpoint, self._trained())
            self.regulariser_state = restored(self.regulariser, checkpoint, self._trained())
            self._n_updates = count_in(counters, "n_updates")
            window = self._stats_window_size
            ended = [{**info, "r": float(info["r"]), "l": int(info["l"])} for info in counters["ep_info_buffer"]]
            self.ep_info_buffer = deque(ended, maxlen=window)
            self.ep_success_buffer = deque(map(float, counters["ep_success_buffer"]), maxlen=window)
            normalised = self.get_vec_normalize_env()
            if normalised is not None and counters["vec_normalize"] is not None:
                load_vec_normalize(normalised, counters["vec_normalize"])
            _warn_of_normalised_training(counters["vec_normalize"], normalised)
            for name, change in self._changes.items():
                change.restore(counters.get(name))
            go_on = self._restore_lifetimes(checkpoint)
        if not go_on:
            self._restart_lifetimes(begun=checkpoint.documents["env"] is not None)

    def _restore_lifetimes(self, checkpoint: Checkpoint) -> bool:
        """Put the lifetimes under way back, if there are any; false where the environment cannot go on with them."""
        counters = checkpoint.documents["algorithm"]
        starts, env_state = counters["last_episode_starts"], checkpoint.documents["env"]
        self._last_obs = self._last_episode_starts = None
        if self.env is None:
            return True
        other_rows = starts is None or len(starts) != self.n_envs
        if other_rows or env_state is None or not load_vec_env_state(self.env, env_state):
            self._begin_lifetimes()
            return other_rows
        shown = np.array(counters["last_obs"])
        if shown.shape != (self.n_envs, *(self.observation_space.shape or ())) or shown.dtype.kind not in "fiub":
            raise CheckpointError(f"the stored 'last_obs' is no observation of these environments, but {shown!r:.80}")
        self._last_episode_starts = stored_array("last_episode_starts", starts, np.zeros(self.n_envs, dtype=np.bool_))
        self.lifetime_scores = stored_array("lifetime_scores", counters["lifetime_scores"], self.lifetime_scores)
        checkpoint.check_finite("state")
        own, stored = (
            {name: (entry.shape, entry.dtype) for name, entry in state.items()}
            for state in (self._plastic_state, checkpoint.tensors["state"])
        )
        if own != stored:
            raise CheckpointError(f"the stored plastic state is none of {self.n_envs} lifetimes of this network")
        self._plastic_state = {name: checkpoint.tensors["state"][name].to(self.device) for name in self._plastic_state}
        self._last_obs = cast("Any", shown)
        return True

    def _restart_lifetimes(self, *, begun: bool) -> None:
        warnings.warn(
            "this environment cannot restore its state: its lifetimes start anew, so training goes on, but not with "
            "the bytes of an undisturbed run",
            stacklevel=3,
        )
        self._start_lifetimes(begun=begun)

    def _start_lifetimes(self, *, begun: bool) -> None:
        """Let the environment start lifetimes in all rows: its next ones, where it has `begun`."""
        assert self.env is not None
        if begun:
            # The seed kept for a first reset would turn it back.
            for layer in layers(self.env):
                layer._reset_seeds()
        self._last_obs = cast("Any", self.env.reset())
        self._last_episode_starts = np.ones(self.n_envs, dtype=bool)


class RolloutBuffer:
    """One rollout: `n_steps` x `n_envs` transitions, time first, as `unroll` takes it once it is `complete`.

    Attributes:
        observations: `(T, B, I)`, what the agent saw before acting.
        actions: `(T, B)` or `(T, B, A)`, as sampled; there once it is complete, and not before.
        rewards: `(T, B)`, what learning uses (expected or normalised ones where asked for).
        episode_starts: `(T, B)` bool, true where a lifetime starts with this observation.
        ended: `(T, B)` bool, true where the lifetime ended with this step, terminated or truncated.
        bootstrap: `(T, B)`, value of the state behind a truncation, zero elsewhere.
        counted: `(T, B)`, 0 for dummy steps of NEXT_STEP autoreset, else 1.
        recording: Who acted on the native core, with what its `unroll` need not compute again; None elsewhere.
    """

    actions: Tensor

    def __init__(self, n_steps: int, n_envs: int, observation_size: int, device: torch.device) -> None:
        self.n_steps, self.n_envs, self._device = n_steps, n_envs, device
        shape = (n_steps, n_envs)
        # NumPy writes a row into what it shares with a tensor several times quicker than torch would.
        self._observations = np.zeros((*shape, observation_size), dtype=np.float32)
        self._rewards, self._counted = np.zeros(shape, dtype=np.float32), np.ones(shape, dtype=np.float32)
        self._episode_starts, self._ended = np.zeros((2, *shape), dtype=np.bool_)
        self._sampled: list[Tensor | Array] = []
        self.observations = torch.from_numpy(self._observations)
        self.rewards = torch.from_numpy(self._rewards)
        self.episode_starts = torch.from_numpy(self._episode_starts)
        self.ended = torch.from_numpy(self._ended)
        self.bootstrap = torch.zeros(shape, dtype=torch.float32)
        self.counted = torch.from_numpy(self._counted)
        self.recording: ActsInPlace | None = None

    def store(self, step: Step, reward: Array) -> None:
        """Keep a step, and the `reward (B,)` that learning uses."""
        time = step.time
        self._observations[time] = step.observation
        self._episode_starts[time] = step.starts
        self._rewards[time] = reward
        self._ended[time] = step.outcome.ended
        self._counted[time] = step.outcome.counted
        self._sampled.append(step.acted.sampled)

    def complete(self) -> None:
        """Make what was stored ready to learn from, once all steps are."""
        self.actions = torch.stack([torch.as_tensor(each) for each in self._sampled])
        for name in ("observations", "rewards", "episode_starts", "ended", "bootstrap", "counted", "actions"):
            setattr(self, name, getattr(self, name).to(self._device))

    def check_finite(self) -> None:
        """Raise `NonFiniteError` that names the first observation or reward that is NaN or infinite.

        The earliest is the cause: a reward comes back as feedback in the observation of the next step.
        """
        # One that is not finite leaves no finite sum.
        if math.isfinite(self.observations.sum() + self.rewards.sum() + self.bootstrap.sum()):
            return
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


def _warn_of_normalised_training(stored: Mapping[str, Any] | None, at_hand: VecNormalize | None) -> None:
    if stored is None or stored["observations"] is None or (at_hand is not None and at_hand.norm_obs):
        return
    warnings.warn(
        "this agent was trained on observations that VecNormalize had normalised, and is loaded without one: it would "
        "act on observations as they are, which it has never seen. Load it with env=VecNormalize(...) around its "
        "environment: the checkpoint holds the statistics, which it then takes over",
        stacklevel=3,
    )
