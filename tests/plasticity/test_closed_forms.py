"""Long runs of single rules against closed forms."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from plastic_rl.plasticity import BOUNDS, RULES, RuleConfig, Synapse


def column(value: float) -> Tensor:
    return torch.tensor([[value]], dtype=torch.float64)


def synapse_and_state(**changes: object) -> tuple[Synapse, dict[str, Tensor]]:
    synapse = Synapse(RuleConfig.model_validate(changes), 1, 1)
    state = {name: torch.zeros(1, *entry.shape, dtype=torch.float64) for name, entry in synapse.state_entries().items()}
    return synapse, state


def test_decay_with_constant_activity_is_a_geometric_approach() -> None:
    synapse, state = synapse_and_state(rule="differentiable_plasticity")
    eta, pre, post = 0.07, 0.8, -0.6
    for step in range(1, 201):
        state = synapse.update({"eta": column(eta)}, column(pre), column(post), state)
        assert state["trace"].item() == pytest.approx(pre * post * (1 - (1 - eta) ** step), abs=1e-12)


@pytest.mark.parametrize(("pre", "post"), [(1.0, 0.1), (0.5, -0.9), (-0.3, 1.0)])
def test_oja_with_clamped_activity_tends_to_their_ratio(pre: float, post: float) -> None:
    synapse, state = synapse_and_state(rule="oja")
    for _ in range(round(30 / (0.5 * post**2))):
        state = synapse.update({"eta": column(0.5)}, column(pre), column(post), state)
    assert state["trace"].item() == pytest.approx(pre / post, abs=1e-10)


def test_oja_does_not_bound_the_trace_by_one() -> None:
    synapse, state = synapse_and_state(rule="oja")
    for _ in range(20_000):
        state = synapse.update({"eta": column(0.5)}, column(1.0), column(0.1), state)
    assert state["trace"].item() == pytest.approx(10.0, abs=1e-10)


@pytest.mark.parametrize(("rate", "stable"), [(1.9, True), (2.1, False)])
def test_oja_is_stable_where_eta_times_post_squared_is_below_two(rate: float, stable: bool) -> None:
    synapse, state = synapse_and_state(rule="oja")
    for _ in range(400):
        state = synapse.update({"eta": column(rate)}, column(0.5), column(1.0), state)
    distance = abs(state["trace"].item() - 0.5)
    assert (distance < 1e-10) if stable else (distance > 1e10)


def test_oja_finds_the_first_principal_component() -> None:
    # Inputs with eigenvalues 1 and .09 along directions turned by 30 degrees; one linear post neuron y = F x.
    generator = torch.Generator().manual_seed(3)
    angle = torch.tensor(torch.pi / 6, dtype=torch.float64)
    first = torch.stack([angle.cos(), angle.sin()])
    second = torch.stack([-angle.sin(), angle.cos()])
    synapse = Synapse(RULES["oja"], 1, 2)
    state = {"trace": torch.tensor([[[0.3, -0.4]]], dtype=torch.float64)}
    lengths, cosines = [], []
    for step in range(6000):
        strong, weak = torch.randn(2, generator=generator, dtype=torch.float64)
        pre = (strong * first + 0.3 * weak * second).unsqueeze(0)
        post = (state["trace"] @ pre.unsqueeze(-1)).squeeze(-1)
        state = synapse.update({"eta": column(0.01 if step < 2000 else 0.002)}, pre, post, state)
        if step >= 4000:
            weights = state["trace"].flatten()
            lengths.append(weights.norm())
            cosines.append((weights @ first).abs() / weights.norm())
    assert torch.stack(lengths).mean().item() == pytest.approx(1.0, abs=0.01)
    assert torch.stack(cosines).mean().item() == pytest.approx(1.0, abs=0.01)


@pytest.mark.parametrize("lag", range(6))
def test_a_modulator_reaches_back_by_eligibility(lag: int) -> None:
    # tanh(20) is 1 in float64, tanh(0) is 0: unit M at the given lag after one pairing, 0 elsewhere.
    synapse, state = synapse_and_state(rule="backpropamine_retroactive")
    eta, pre, post = 0.3, 0.7, -0.4
    for step in range(8):
        params = {
            "modulator_weight": column(0.0),
            "modulator_bias": torch.tensor([20.0 if step == lag else 0.0], dtype=torch.float64),
            "eta_eligibility": column(eta),
        }
        paired = 1.0 if step == 0 else 0.0
        state = synapse.update(params, column(pre * paired), column(post * paired), state)
    expected = 0.0 if lag == 0 else eta * (1 - eta) ** (lag - 1) * post * pre
    assert state["trace"].item() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("threshold", ["parameter", "running_mean", "layer_mean"])
def test_deviations_from_the_means_are_on_average_the_covariance(threshold: str) -> None:
    # x = c + u, y = 2 + c + v; c exponential with variance 1 and shared by all units, u and v uniform on [0, 1).
    # Less the mean of the layer, what the units share is gone: 0. A running mean adds its own variance, rate / 2.
    generator = torch.Generator().manual_seed(0)
    lifetimes, size, rate = 2000, 3, 0.02
    begun = {"threshold_pre": 1.5, "threshold_post": 3.5, "mean_rate": rate}
    rule = {"rule": "covariance", "term": {"name": "covariance", "threshold": threshold, **begun}}
    synapse = Synapse(RuleConfig.model_validate(rule), size, size)
    params = {name: parameter.value.double() for name, parameter in synapse.parameters().items()}
    state = {name: torch.zeros(lifetimes, *entry.shape).double() for name, entry in synapse.state_entries().items()}
    state |= {name: state[name] + begun[name.replace("mean", "threshold")] for name in state if "mean" in name}
    total = torch.zeros(size, size).double()
    for _ in range(60):
        common = torch.empty(lifetimes, 1).exponential_(1, generator=generator).double()
        own = torch.rand(2, lifetimes, size, generator=generator).double()
        pre, post = common + own[0], 2 + common + own[1]
        total += synapse.term.change(params, pre, post, state["trace"], state).mean(0)
        state |= synapse.term.next_state(params, pre, post, state["trace"], state)
    expected = 0.0 if threshold == "layer_mean" else 1.0
    # Standard error of 120,000 products whose standard deviation is about 3: .01.
    assert (total / 60 - expected).abs().max().item() < 0.04


@pytest.mark.parametrize(
    ("bound", "clip", "low", "high"), [("soft_clip", 1.0, -1.0, 1.0), ("soft_non_negative", 3.0, 0.0, 3.0)]
)
def test_soft_bounds_have_a_fixed_point_between_them(bound: str, clip: float, low: float, high: float) -> None:
    # A+ (high - F), then A- (F - low): as a share of the range f = (1 - A-) (f + A+ (1 - f)), A+ / (A+ + A-) if small.
    up, down = 3e-3, 1e-3
    trace = column(low)
    for _ in range(6000):
        trace = BOUNDS[bound](BOUNDS[bound](trace, column(up), clip), column(-down), clip)
    share = (trace.item() - low) / (high - low)
    assert share == pytest.approx((1 - down) * up / (1 - (1 - down) * (1 - up)), abs=1e-9)
    assert share == pytest.approx(up / (up + down), abs=1e-3)
