"""What changes weights in training beside the gradient step: told of each update, and saved with the checkpoint."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


class WeightChange(ABC):
    """A change of a policy's parameters that comes with each gradient step."""

    @abstractmethod
    def acted(self, outputs: Mapping[str, Tensor], counted: Tensor) -> None:
        """Take in what a step of acting put out.

        Args:
            outputs: Of each layer by name, those of hidden units among them, `(B, H)`.
            counted: Which rows lived a step, `(B,)` bool.
        """

    @abstractmethod
    def before_step(self) -> None:
        """See or change the gradients, before they are clipped."""

    @abstractmethod
    def after_step(self, remaining: float) -> dict[str, float]:
        """Change parameters after the optimizer has.

        Args:
            remaining: Share of the training that remains, 1 to 0.

        Returns:
            Metrics by name.
        """

    @abstractmethod
    def document(self) -> dict[str, Any]:
        """What a checkpoint holds of it, as plain data."""

    @abstractmethod
    def restore(self, document: dict[str, Any] | None) -> None:
        """Go on from a `document`; None: from a checkpoint of a run without this change, whose parameters stand.

        Raises:
            CheckpointError: If it does not fit.
        """


def forget(optimizer: torch.optim.Optimizer, parameter: Tensor, where: Tensor) -> None:
    """Set the optimizer's running averages of some numbers of a parameter to 0, as they are before its first step.

    Its count of steps is one for the whole parameter, and goes on: by Adam's defaults the first step of such a number
    is `.1 / sqrt(.001) = 3.2` learning rates long.

    Args:
        optimizer: Adam, RMSprop or the like.
        parameter: One of its own.
        where: Which numbers, bool, broadcasts to the parameter.
    """
    for average in optimizer.state.get(parameter, {}).values():
        if isinstance(average, Tensor) and average.shape == parameter.shape:
            average.masked_fill_(where, 0.0)
