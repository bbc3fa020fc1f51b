"""`SupervisedGradient`: rule tables (and other learners) trained by gradient through lifetimes that are taught.

References:
    Cristian et al. 2021; Joosten 2021 (rule tables trained by gradient descent).

An environment that teaches shows in each observation the label of the sample before. The loss of step t compares what
the network answered to sample t, before it saw the label, with the label that came one step later: what is minimised is
the error on samples that are new to the lifetime.
"""

from __future__ import annotations

from typing import ClassVar, Literal, Unpack, get_args

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from plastic_rl.algorithms.gradient import Environment, GradientAlgorithm, GradientArguments, Scheduled
from plastic_rl.errors import ConfigError, SpaceError
from plastic_rl.policies import PlasticPolicy

Loss = Literal["cross_entropy", "squared_error"]


_NEEDS_A_TEACHER = (
    "supervised_gradient learns from nothing else; use an environment that teaches, which shows in each observation "
    "the label of the sample before (as plastic_rl/SupervisedClassification-v0), or learn from rewards by a2c or cma_es"
)


class SupervisedGradient(GradientAlgorithm):
    """Gradient descent on the error of a lifetime's predictions; a stable-baselines3 algorithm.

    The gradient runs through the whole lifetime, or through `n_steps` of it, while the plastic state is carried on.
    The agent acts as in any algorithm (its predictions are its actions), but learns nothing from rewards, and its value
    head stays as it was drawn. The last sample of a lifetime is not taught: its label would come with the observation
    behind it.

    Args:
        policy: Name in `plastic_rl.policies.POLICIES`, or a subclass of `PlasticPolicy`.
        env: Environment with labels in its feedback (`plastic_rl/SupervisedClassification-v0`) and Discrete actions, in
            any form that `PlasticA2C` takes.
        learning_rate: Step size, or a schedule of the training progress that remains (1 to 0).
        n_steps: Steps that the gradient runs back; None: one whole lifetime.
        n_envs: Number of environments where `env` is an id.
        env_kwargs: Arguments of the environment where `env` is an id.
        trials: Inner episodes of a lifetime where `env` is the id of a foreign environment.
        same_task_each_trial: Whether these share the lifetime's seed; None: where tasks are reset seeds (`Lifetime`).
        loss: `"cross_entropy"` of the action probabilities against the labels; or `"squared_error"` of the outputs (a
            rule table's before its softmax, else the action head's) against one-hot labels, summed over classes.
        max_grad_norm: The gradient's norm is clipped to this.
        optimizer: `"adam"` or `"rmsprop"`.
        optimizer_eps: The optimizer's epsilon.
        plasticity_lr_scale: The learning rate of step sizes and the like is `learning_rate` times this.
        policy_kwargs: Arguments of the policy, e.g. `{"network": {"kind": "rule_table", "hidden_size": 20}}`.
        stats_window_size: Lifetimes that `rollout/score` and `rollout/ep_rew_mean` average over.
        tensorboard_log: Folder for TensorBoard, or None.
        verbose: 0 silent, 1 a table per logging interval.
        seed: Of parameters, action sampling and environments; global random state is not touched. None: from the
            operating system.
        device: `"auto"`, `"cpu"`, `"cuda"`, ...

    Raises:
        SpaceError: If the environment shows no labels, or its actions are not their classes.
        ConfigError: If arguments contradict each other, lifetimes or `n_steps` have 1 step, or the loss has no gradient
            by the network's outputs.

    >>> from plastic_rl.algorithms import SupervisedGradient
    >>> network = {"kind": "rule_table", "hidden_size": 20, "output_table": "supervised"}
    >>> agent = SupervisedGradient(
    ...     "PlasticPolicy",
    ...     "plastic_rl/SupervisedClassification-v0",
    ...     env_kwargs={"data": "D", "steps": 20},
    ...     n_envs=2,
    ...     policy_kwargs={"network": network},
    ...     seed=1,
    ... )
    >>> agent.learn(40).num_timesteps
    40
    """

    stored_arguments: ClassVar[tuple[str, ...]] = ("loss",)

    def __init__(
        self,
        policy: str | type[PlasticPolicy],
        env: Environment,
        *,
        learning_rate: Scheduled = 0.1,
        n_envs: int = 16,
        loss: Loss = "cross_entropy",
        optimizer_eps: float = 1e-8,
        **common: Unpack[GradientArguments],
    ) -> None:
        if loss not in get_args(Loss):
            raise ConfigError(f"loss must be one of {sorted(get_args(Loss))}, got {loss!r}")
        self.loss: Loss = loss
        super().__init__(
            policy,
            env,
            learning_rate=learning_rate,
            n_envs=n_envs,
            optimizer_eps=optimizer_eps,
            ranges={},
            **common,
        )

    def _check_fit(self) -> None:
        label = self.policy.feedback_layout.label
        if label is None:
            raise SpaceError(f"{self._environment_name} shows no labels, and {_NEEDS_A_TEACHER}")
        classes = label[1] - label[0]
        if not isinstance(self.action_space, spaces.Discrete) or int(self.action_space.n) != classes:
            raise SpaceError(
                f"supervised_gradient takes actions for predictions of {classes} classes, so it needs "
                f"Discrete({classes}) actions, got {self.action_space}"
            )
        if min(self.n_steps, self.description.lifetime_steps or self.n_steps) < 2:
            raise ConfigError(
                "supervised_gradient needs lifetimes and n_steps of 2 steps or more, since the label of a sample comes "
                f"one step after it, in the same lifetime; got n_steps {self.n_steps} and lifetimes of "
                f"{self.description.lifetime_steps or 'varying'} steps"
            )
        if self.loss == "cross_entropy" and not self._probabilities_have_gradients():
            raise ConfigError(
                "cross_entropy has no gradient by these action probabilities, which are steps of the network's "
                "outputs; use selection: softmax, or loss: squared_error"
            )

    @property
    def _environment_name(self) -> str:
        return self.env_id or "this environment"

    def _probabilities_have_gradients(self) -> bool:
        parameters = {name: parameter.detach() for name, parameter in self.policy.parameters_by_name().items()}
        size = self.policy.network.output_size
        features = torch.zeros(1, size, dtype=torch.float32, device=self.device, requires_grad=True)
        return self.policy.head(parameters, features).requires_grad

    def labels(self) -> tuple[Tensor, Tensor]:
        """Labels of the rollout's samples, one-hot `(T, B, K)`, and where they are known, `(T, B)` bool."""
        rollout, columns = self.rollout, self.policy.feedback_layout.label
        assert columns is not None, "checked at the start"
        last = torch.from_numpy(np.asarray(self._last_obs)).to(rollout.observations)
        following = torch.cat([rollout.observations[1:], last.unsqueeze(0)])
        shown = following[..., columns[0] : columns[1]]
        return shown, (shown.sum(-1) > 0.5) & ~rollout.ended & (rollout.counted > 0)

    def rollout_loss(self, remaining: float) -> tuple[Tensor, dict[str, Tensor | float]]:
        """See `GradientAlgorithm.rollout_loss`: mean over all samples whose labels are known.

        Raises:
            SpaceError: If the environment showed no label at all, so that there is no mean; nothing is changed then.
        """
        rollout, policy = self.rollout, self.policy
        labels, known = self.labels()
        if not bool(known.any()):
            raise SpaceError(
                f"{self._environment_name} has a place for labels in its observations, and showed none in the "
                f"{rollout.n_steps} steps up to {self.num_timesteps}; {_NEEDS_A_TEACHER}"
            )
        outputs, head = policy.outputs(
            policy.parameters_by_name(), rollout.observations, self.collector.state_before, rollout.episode_starts
        )
        if self.loss == "cross_entropy":
            errors = -(labels * torch.log_softmax(head, -1)).sum(-1)
        else:
            errors = (outputs - labels).square().sum(-1)
        loss = errors[known].mean()
        with torch.no_grad():
            answers = head.argmax(-1)[known]
            right = (answers == labels.argmax(-1)[known]).float().mean()
            commonest = torch.bincount(answers, minlength=labels.shape[-1]).max() / answers.numel()
        # Near 1 the network has collapsed to one class.
        return loss, {"accuracy": right, "commonest_share": commonest}
