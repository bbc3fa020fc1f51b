"""Layer normalisation: the drive of the units of a layer, scaled to mean 0 and variance 1 over the layer.

Source: Ba, Kiros & Hinton 2016, arXiv 1607.06450, eq. 3 and 4.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from torch import Tensor

from plastic_rl.errors import ConfigError

EPSILON = 1e-8
"""Added to the variance: of a layer whose units all have the same drive it is 0."""

StartGain = Annotated[
    float | None,
    Field(
        gt=0,
        description="Layer normalisation of the drive of the hidden units, their bias after it: where the learned gain "
        "of each unit starts, e.g. 1; null: none.",
    ),
]


def layer_normalised(drive: Tensor, gain: Tensor) -> Tensor:
    """Return `g (a - mean(a)) / sqrt(var(a) + 1e-8)`; scaling all weights by one number leaves it as it is.

    Args:
        drive: a, `(.., B, O)`; mean and variance are over its units.
        gain: g, `(.., O)`.

    >>> import torch
    >>> layer_normalised(torch.tensor([[1.0, 3.0]]), torch.tensor([1.0, 2.0])).round(decimals=6).tolist()
    [[-1.0, 2.0]]
    """
    centred = drive - drive.mean(-1, keepdim=True)
    variance = centred.square().mean(-1, keepdim=True)
    return gain.unsqueeze(-2) * centred * (variance + EPSILON).rsqrt()


def check_normalised_size(gain: float | None, size: int) -> None:
    """Refuse layer normalisation over fewer than two units.

    Raises:
        ConfigError: Saying how many there have to be.
    """
    if gain is not None and size < 2:
        raise ConfigError(
            f"layer_norm scales the drives of a layer against each other, and there are {size} hidden units; give "
            "hidden_size 2 or more, or layer_norm: null"
        )
