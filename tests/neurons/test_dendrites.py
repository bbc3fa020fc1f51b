"""A unit with branches computes what no unit without them can (Poirazi & Mel 2003)."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import linprog
from torch import Tensor

from plastic_rl.neurons import DENDRITES, LIF, Dendrites, Drive
from tests.neurons.cases import newborn

INPUTS = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]], dtype=torch.float64)
XOR = [0.0, 1.0, 1.0, 0.0]


def numbers(dendrites: Dendrites) -> dict[str, Tensor]:
    return {name: one.value.double() for name, one in dendrites.numbers().items()}


def spikes(dendrites: Dendrites, weights: Tensor) -> list[float]:
    """Whether one unit spikes within 30 ms on each input; weights of its two branches, `(J, I)`."""
    unit = LIF(1.0, resistance=40.0)
    branches = (INPUTS @ weights.mT).unsqueeze(-2)
    drive = Drive(dendrites.drive(numbers(dendrites), branches))
    params = {name: one.value.double() for name, one in unit.numbers().items()}
    state, fired = newborn(unit, 4), torch.zeros(4, 1, dtype=torch.float64)
    for _ in range(30):
        output, state = unit.step(params, drive, state)
        fired = torch.maximum(fired, output)
    return fired.flatten().tolist()


@pytest.mark.parametrize(
    ("name", "options", "weights"),
    [
        ("rectified", {}, [[1.0, -1.0], [-1.0, 1.0]]),  # one input and not the other, in either branch
        ("sigmoid", {"branch_threshold": 0.5, "branch_width": 0.05}, [[1.0, -1.0], [-1.0, 1.0]]),
    ],
)
def test_a_unit_of_two_branches_computes_exclusive_or(
    name: str, options: dict[str, float], weights: list[list[float]]
) -> None:
    assert spikes(DENDRITES[name](**options), torch.tensor(weights, dtype=torch.float64)) == XOR


def test_no_weights_without_branches_compute_it() -> None:
    # A line w x + b with w x + b >= 1 for the inputs of class 1 and <= -1 for the others: infeasible.
    signs = np.where(np.array(XOR) > 0, 1.0, -1.0)
    sided = -signs[:, None] * np.hstack([INPUTS.numpy(), np.ones((4, 1))])
    assert linprog(np.zeros(3), A_ub=sided, b_ub=-np.ones(4), bounds=[(None, None)] * 3).status == 2
    and_gate = np.array([-1.0, -1.0, -1.0, 1.0])  # the same programme finds a line where there is one
    feasible = -and_gate[:, None] * np.hstack([INPUTS.numpy(), np.ones((4, 1))])
    assert linprog(np.zeros(3), A_ub=feasible, b_ub=-np.ones(4), bounds=[(None, None)] * 3).status == 0
    # The unit itself: whatever the weights of linear branches, at the most three of four are right.
    generator = torch.Generator().manual_seed(0)
    tried = [
        sum(a == b for a, b in zip(spikes(DENDRITES["linear"](), weights), XOR, strict=True))
        for weights in 3 * torch.randn(60, 2, 2, generator=generator, dtype=torch.float64)
    ]
    assert max(tried) == 3


def test_the_drive_is_the_sum_of_what_the_branches_pass_on() -> None:
    branches = torch.tensor([[[[0.5, 1.5, -3.0]]], [[[0.5, 1.5, -3.0]]]])  # P = 2, B = O = 1, J = 3
    dendrites = DENDRITES["rectified"]()
    thresholds = {"branch_threshold": torch.tensor([[0.0], [1.0]])}
    assert dendrites.drive(thresholds, branches).flatten().tolist() == [2.0, 0.5]
    assert DENDRITES["linear"]().drive({}, branches).flatten().tolist() == [-1.0, -1.0]
    sigmoid = DENDRITES["sigmoid"](branch_threshold=0.5, branch_width=1.0)
    expected = sum(1 / (1 + np.exp(0.5 - x)) for x in (0.5, 1.5, -3.0))
    assert sigmoid.drive(numbers(sigmoid), branches[0].double()).item() == pytest.approx(expected)


@pytest.mark.parametrize("name", sorted(DENDRITES))
def test_gradients_reach_branches_and_numbers(name: str) -> None:
    dendrites = DENDRITES[name]()
    generator = torch.Generator().manual_seed(0)
    branches = torch.randn(2, 3, 4, generator=generator, dtype=torch.float64)
    params = numbers(dendrites)

    def drive(branches: Tensor, *values: Tensor) -> Tensor:
        return dendrites.drive(dict(zip(params, values, strict=True)), branches)

    assert torch.autograd.gradcheck(drive, [one.clone().requires_grad_() for one in (branches, *params.values())])
    curves = dendrites.curves()
    assert curves.lines[""].shape == curves.x.shape
