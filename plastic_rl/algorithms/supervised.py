"""`SupervisedGradient`: rule tables (and other learners) trained by gradient through lifetimes that are taught.

References:
    Cristian et al. 2021; Joosten 2021 (rule tables trained by gradient descent).

A supervised environment shows in each observation the label of the sample before. The loss of step t compares what
the network answered to sample t, before it saw the label, with the label that came one step later: what is minimised is
the error on samples that are new to the lifetime.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import numpy as np
import torch
from gymnasium import spaces
from pydantic import Field
from torch import Tensor

from plastic_rl.algorithms.base import Rows
from plastic_rl.algorithms.gradient import Environment, GradientAlgorithm
from plastic_rl.config import EndsWithin, Scheduled
from plastic_rl.config.signatures import handed_on
from plastic_rl.errors import ConfigError, SpaceError
from plastic_rl.policies import PlasticPolicy

_NEEDS_LABELS = (
    "supervised_gradient learns from nothing else; use a supervised environment, which shows in each observation "
    "the label of the sample before (as plastic_rl/SupervisedClassification-v0 and SupervisedPatternCompletion-v0), or "
    "learn from rewards by a2c or cma_es"
)


class SupervisedGradient(GradientAlgorithm):
    """Gradient descent on the error of a lifetime's predictions; a stable-baselines3 algorithm.

    The gradient runs through the whole lifetime, or through `n_steps` of it, while the plastic state is carried on.
    The agent acts as in any algorithm (its predictions are its actions), but learns nothing from rewards, and its value
    head stays as it was drawn. The last sample of a lifetime is not taught: its label would come with the observation
    behind it.

    Args:
        env: Environment with labels in its feedback, one-hot with Discrete actions
            (`plastic_rl/SupervisedClassification-v0`) or bits with MultiBinary ones
            (`plastic_rl/SupervisedPatternCompletion-v0`), in any form that `PlasticA2C` takes.
        loss: `"cross_entropy"` of the action probabilities against the labels; or `"squared_error"` of the outputs (a
            rule table's before its softmax, else the action head's) against one-hot labels, summed over classes. Of
            bits (+1 or -1), the mean over those that the label tells.
        **shared: See `GradientAlgorithm` and `PlasticAlgorithm`; learning rate, rows and epsilon have other defaults.

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

    def __init__(
        self,
        policy: str | type[PlasticPolicy],
        env: Environment,
        *,
        loss: Literal["cross_entropy", "squared_error"] = "cross_entropy",
        learning_rate: Annotated[Scheduled, EndsWithin(0)] = 0.1,
        n_envs: Rows = 16,
        optimizer_eps: Annotated[float, Field(gt=0)] = 1e-8,
        **shared: Any,
    ) -> None:
        super().__init__(policy, env, **handed_on(locals()))

    def _check_fit(self) -> None:
        label = self.policy.feedback_layout.label
        if label is None:
            raise SpaceError(f"{self._environment_name} shows no labels, and {_NEEDS_LABELS}")
        size = label[1] - label[0]
        if self.action_space not in (spaces.Discrete(size), spaces.MultiBinary(size)):
            raise SpaceError(
                f"supervised_gradient takes actions for predictions of a label of {size} columns, so it needs "
                f"Discrete({size}) or MultiBinary({size}) actions, got {self.action_space}"
            )
        if min(self.n_steps, self.description.lifetime_steps or self.n_steps) < 2:
            raise ConfigError(
                "supervised_gradient needs lifetimes and n_steps of 2 steps or more, since the label of a sample comes "
                f"one step after it, in the same lifetime; got n_steps {self.n_steps} and lifetimes of "
                f"{self.description.lifetime_steps or 'varying'} steps"
            )
        if self.settings.loss == "cross_entropy" and not self._probabilities_have_gradients():
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
        """Labels of the rollout's samples, one-hot or bits `(T, B, K)`, and where they are known, `(T, B)` bool."""
        rollout, columns = self.rollout, self.policy.feedback_layout.label
        assert columns is not None, "checked at the start"
        last = torch.from_numpy(np.asarray(self._last_obs)).to(rollout.observations)
        following = torch.cat([rollout.observations[1:], last.unsqueeze(0)])
        shown = following[..., columns[0] : columns[1]]
        return shown, (shown.abs().sum(-1) > 0.5) & ~rollout.ended & (rollout.counted > 0)

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
                f"{rollout.n_steps} steps up to {self.num_timesteps}; {_NEEDS_LABELS}"
            )
        outputs, head, activity = policy.outputs_and_activity(
            policy.parameters_by_name(),
            rollout.observations,
            self.state_before,
            rollout.episode_starts,
            with_activity=self.costs_activity,
        )
        bits = isinstance(self.action_space, spaces.MultiBinary)
        loss = self._errors(outputs, head, labels)[known].mean()
        told_of_units: dict[str, Tensor | float] = {}
        if activity is not None:
            cost, told_of_units = self.activity_loss(activity, remaining)
            loss = loss + cost
        with torch.no_grad():
            # Bits that the label does not tell are no answers.
            told = labels[known] != 0
            answers = (head[known] > 0)[told].long() if bits else head.argmax(-1)[known]
            correct = (labels[known] > 0)[told].long() if bits else labels.argmax(-1)[known]
            right = (answers == correct).float().mean()
            commonest = torch.bincount(answers, minlength=labels.shape[-1]).max() / answers.numel()
        # Near 1 the network has collapsed to one class.
        return loss, {"accuracy": right, "commonest_share": commonest, **told_of_units}

    def log_likelihood(self, row: int) -> tuple[Tensor, int]:
        """See `GradientAlgorithm.log_likelihood`: minus the error on the samples whose labels are known."""
        labels, known = (each[:, row : row + 1] for each in self.labels())
        observations, state, starts = self._row(row)
        outputs, head = self.policy.outputs(self.policy.parameters_by_name(), observations, state, starts)
        return -self._errors(outputs, head, labels)[known].sum(), int(known.sum())

    def _errors(self, outputs: Tensor, head: Tensor, labels: Tensor) -> Tensor:
        """Error at each step, `(T, B)`, for outputs, parameters of the action distribution and labels `(T, B, K)`."""
        if isinstance(self.action_space, spaces.MultiBinary):
            return self._errors_of_bits(outputs, head, labels)
        if self.settings.loss == "cross_entropy":
            return -(labels * torch.log_softmax(head, -1)).sum(-1)
        return (outputs - labels).square().sum(-1)

    def _errors_of_bits(self, outputs: Tensor, head: Tensor, labels: Tensor) -> Tensor:
        """Mean error over the bits told at each step, `(T, B)`, for outputs, logits and labels `(T, B, K)`."""
        told = labels.abs()
        if self.settings.loss == "cross_entropy":
            errors = torch.nn.functional.softplus(-labels * head)
        else:
            errors = (outputs - labels).square()
        return (told * errors).sum(-1) / told.sum(-1).clamp_min(1.0)
