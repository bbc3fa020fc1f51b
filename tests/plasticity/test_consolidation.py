"""Slow variables behind the trace, and plasticity that falls with importance, against their closed forms."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from plastic_rl.plasticity import Synapse, SynapseConfig
from plastic_rl.plasticity.consolidation import CONSOLIDATIONS, BennaFusi, TwoSpeeds


def exact(part: Any) -> dict[str, Tensor]:
    return {name: torch.tensor([getattr(part.options, name)], dtype=torch.float64) for name in part.numbers()}


def column(value: float) -> Tensor:
    return torch.tensor([[[value]]], dtype=torch.float64)


@pytest.mark.parametrize("decay", [0.0, 0.02])
def test_two_speeds_relax_by_two_exponentials(decay: float) -> None:
    """`F_t = a l1^t + b l2^t`, with the eigenvalues of the step's matrix and a, b from the first two steps."""
    rate, pull = 0.03, 0.2
    speeds = TwoSpeeds(slow_rate=rate, slow_pull=pull)
    params, state, trace = exact(speeds), {"slow_trace": column(0.25)}, column(1.0)
    # F decays to kept F; slow = (1 - rate) slow + rate kept F; F = (1 - pull) kept F + pull slow.
    kept = 1 - decay
    step = [[(1 - pull + pull * rate) * kept, pull * (1 - rate)], [rate * kept, 1 - rate]]
    mean = (step[0][0] + step[1][1]) / 2
    spread = math.sqrt(mean**2 - (step[0][0] * step[1][1] - step[0][1] * step[1][0]))
    fast, slow = mean - spread, mean + spread
    first = step[0][0] + 0.25 * step[0][1]
    b = (first - fast) / (slow - fast)
    assert (slow == pytest.approx(1)) == (decay == 0)
    for time in range(200):
        assert trace.item() == pytest.approx((1 - b) * fast**time + b * slow**time, abs=1e-10)
        trace, state = speeds.consolidated(params, kept * trace, state)


def test_the_chain_is_a_conserving_power_law_memory() -> None:
    """m = 8: log-log slope of u_1 -.5 from t = 30 to 3000, and the sum of C_k u_k stays."""
    chain = BennaFusi(variables=8)
    params = exact(chain)
    trace, state = column(1.0), {"chain": torch.zeros(1, 7, 1, 1).double()}
    widths = 2.0 ** torch.arange(1, 9).double()
    first, times = [], range(1, 3001)
    for _ in times:
        trace, state = chain.consolidated(params, trace, state)
        first.append(trace.item())
        levels = torch.cat([trace.flatten(), state["chain"].flatten()])
        assert (levels @ widths).item() == pytest.approx(2.0, abs=1e-12)
    points = [30 * round(100 ** (index / 20), 6) for index in range(21)]
    x = torch.tensor([math.log(round(point)) for point in points])
    y = torch.tensor([math.log(first[round(point) - 1]) for point in points])
    slope = ((x - x.mean()) * (y - y.mean())).sum() / (x - x.mean()).square().sum()
    assert slope.item() == pytest.approx(-0.5, abs=0.02)


def test_two_variables_of_a_chain_meet_where_their_sum_says() -> None:
    # C = 2, 4: u = (2 * 1 + 4 * .25) / 6 = .5; the distance shrinks by 1 - g_1 (1/2 + 1/4) = 1 - 3/64 a step.
    chain = BennaFusi(variables=2)
    params = exact(chain)
    trace, state = column(1.0), {"chain": column(0.25).unsqueeze(1)}
    for time in range(600):
        distance = trace.item() - chain.slow(state).item()  # type: ignore[union-attr]
        assert distance == pytest.approx(0.75 * (1 - 3 / 64) ** time, abs=1e-12)
        trace, state = chain.consolidated(params, trace, state)
    assert trace.item() == pytest.approx(0.5, abs=1e-12)


def test_a_step_of_the_chain_by_hand() -> None:
    # u = (1, .5, 0), rate 2. Flows: 2 (1/16) .5 = 1/16 and 2 (1/32) .5 = 1/32; widths 2, 4, 8.
    chain = BennaFusi(variables=3, chain_rate=2.0)
    state = {"chain": torch.tensor([0.5, 0.0]).double().view(1, 2, 1, 1)}
    trace, moved = chain.consolidated(exact(chain), column(1.0), state)
    assert trace.item() == 1 - 1 / 32
    assert moved["chain"].flatten().tolist() == [0.5 + (1 / 16 - 1 / 32) / 4, 1 / 256]


def test_importance_makes_the_same_changes_count_less() -> None:
    """Raw changes of 1 with k = 1: F = Omega = 1, then 1 + 1/2, then 1.5 + 1/2.5; and back by what is left."""
    synapse = Synapse(SynapseConfig(metaplasticity={"name": "importance", "importance_strength": 1.0}), 1, 1)
    params = exact(synapse.metaplasticity) | {"eta": torch.ones(1, 1).double()}
    state = {"trace": column(0.0), "importance": column(0.0)}
    one = torch.ones(1, 1).double()
    moved = []
    for sign in (1, 1, 1, -1):
        state |= synapse.update(params, one, sign * one, state)
        moved.append((state["trace"].item(), state["importance"].item()))
    expected = [(1, 1), (1.5, 1.5), (1.9, 1.9), (1.9 - 1 / 2.9, 1.9 + 1 / 2.9)]
    for got, wanted in zip(moved, expected, strict=True):
        assert got == pytest.approx(wanted, abs=1e-12)


def test_importance_is_forgotten_and_slows_the_decay_of_a_trace_too() -> None:
    # eta .5, Omega 1, k 3: a quarter is left, .125. F = (1 - .125) .8 + .125 * 1; Omega = .9 * 1 + .125.
    options = {"importance_strength": 3.0, "importance_forgetting": 0.1}
    synapse = Synapse(SynapseConfig(decay=True, metaplasticity={"name": "importance", **options}), 1, 1)
    params = exact(synapse.metaplasticity) | {"eta": torch.full((1, 1), 0.5).double()}
    one = torch.ones(1, 1).double()
    moved = synapse.update(params, one, one, {"trace": column(0.8), "importance": column(1.0)})
    assert moved["trace"].item() == pytest.approx(0.825, abs=1e-12)
    assert moved["importance"].item() == pytest.approx(1.025, abs=1e-12)


def test_importance_grows_by_what_a_bound_lets_through() -> None:
    synapse = Synapse(SynapseConfig(bound="hard_clip", metaplasticity="importance"), 1, 1)
    params = exact(synapse.metaplasticity) | {"eta": torch.ones(1, 1).double()}
    one = torch.ones(1, 1).double()
    moved = synapse.update(params, one, one, {"trace": column(0.75), "importance": column(0.0)})
    assert (moved["trace"].item(), moved["importance"].item()) == (1.0, 0.25)


@pytest.mark.parametrize("metaplasticity", ["none", "importance"])
@pytest.mark.parametrize("name", sorted(CONSOLIDATIONS))
def test_gradients(name: str, metaplasticity: str) -> None:
    synapse = Synapse(SynapseConfig(consolidation=name, metaplasticity=metaplasticity, decay=True), 2, 3)
    numbers = exact(synapse.consolidation) | exact(synapse.metaplasticity) | {"eta": torch.full((1, 1), 0.3).double()}
    generator = torch.Generator().manual_seed(0)
    pre, post = (torch.randn(5, 2, size, generator=generator).double() for size in (3, 2))
    begun = {name: torch.rand(2, *entry.shape, generator=generator) for name, entry in synapse.state_entries().items()}

    def run(*values: Tensor) -> Tensor:
        params = dict(zip(numbers, values, strict=False))
        state = dict(zip(begun, values[len(numbers) :], strict=True))
        for x, y in zip(pre, post, strict=True):
            state |= synapse.update(params, x, y, state)
        return torch.cat([entry.flatten() for entry in state.values()])

    leaves = [value.double().requires_grad_() for value in (*numbers.values(), *begun.values())]
    assert torch.autograd.gradcheck(run, leaves)


def test_the_picture_shows_what_is_left() -> None:
    curves = BennaFusi(variables=2).curves()
    # C = 2, 4: a third stays, two thirds go by 1 - 3/64 a step.
    expected = 1 / 3 + 2 / 3 * (1 - 3 / 64) ** curves.x
    torch.testing.assert_close(curves.lines[""], expected, atol=1e-5, rtol=0)
