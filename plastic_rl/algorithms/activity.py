"""A cost on the activity of hidden units: the outer loop's counterpart of intrinsic plasticity.

Source: Bellec, Salaj, Subramoney, Legenstein & Maass 2018, arXiv 1803.09574, the regularisation of firing rates: the
squared distance of each unit's mean rate from a target; here the mean over units, so that it does not grow with them.
"""

from __future__ import annotations

from torch import Tensor


def activity_cost(activity: Tensor, weight: Tensor, target: float | None) -> Tensor:
    """Return `mean_i (sum_tb w_tb y_tbi - target)^2`; without a target `mean_i sum_tb w_tb y_tbi^2`.

    Args:
        activity: y, outputs of H hidden units over T steps of B lifetimes, `(T, B, H)`.
        weight: w, what each step counts, `(T, B)`, 1 in sum.
        target: Mean output of a unit that costs nothing.

    >>> import torch
    >>> rates = torch.tensor([[[0.0, 1.0]], [[1.0, 1.0]]])
    >>> half = torch.full((2, 1), 0.5)
    >>> activity_cost(rates, half, 0.5).item(), activity_cost(rates, half, None).item()
    (0.125, 0.75)
    """
    share = weight.unsqueeze(-1)
    if target is None:
        return (share * activity.square()).sum((0, 1)).mean()
    return ((share * activity).sum((0, 1)) - target).square().mean()
