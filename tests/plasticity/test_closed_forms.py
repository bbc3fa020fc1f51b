"""Long runs of single rules against closed forms."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from plastic_rl.plasticity import RULES, RuleConfig, Synapse


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
