"""Terms with coefficients: the general form against special ones; closed forms of BCM and the delta rule."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from plastic_rl.plasticity import RULES, TERMS, GainConfig, RuleConfig, Synapse

POST, PRE, BATCH, STEPS = 3, 4, 2, 6


def normal(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def run(
    synapse: Synapse, params: dict[str, Tensor], pre: Tensor, post: Tensor, state: dict[str, Tensor]
) -> dict[str, Tensor]:
    for x, y in zip(pre, post, strict=True):
        state = synapse.update(params, x, y, state)
    return state


def theta_of(entries: dict[tuple[int, int, int], Tensor], rows: int, columns: int) -> Tensor:
    theta = torch.zeros(3, 3, 3, rows, columns, dtype=torch.float64)
    for place, value in entries.items():
        theta[place] = value
    return theta


@pytest.mark.parametrize("granularity", ["scalar", "neuron", "synapse"])
@pytest.mark.parametrize("rule", ["linear", "abcd", "oja", "instar", "presynaptically_gated"])
def test_the_general_form_reproduces_the_special_ones(rule: str, granularity: str) -> None:
    generator = torch.Generator().manual_seed(0)
    rows, columns = {"scalar": (1, 1), "neuron": (POST, 1), "synapse": (POST, PRE)}[granularity]
    numbers = 0.3 * normal(generator, 4, rows, columns)
    one = torch.ones(rows, columns, dtype=torch.float64)
    special: dict[str, Any] = {"rule": rule}
    params: dict[str, Tensor] = {}
    if rule in {"linear", "abcd"}:
        # a0 + a1pre pre + a1post post + a2 pre post is ABCD with D, B, C, A for the four numbers.
        special = {"rule": "abcd"}
        params = {f"coefficient_{name}": numbers[index] for index, name in enumerate("abcd")}
        entries = {(0, 1, 1): numbers[0], (0, 0, 1): numbers[1], (0, 1, 0): numbers[2], (0, 0, 0): numbers[3]}
    elif rule == "oja":
        entries = {(0, 1, 1): one, (1, 2, 0): -one}
    elif rule == "instar":
        entries = {(0, 1, 1): one, (1, 1, 0): -one}
    else:
        params = {"threshold": numbers[0]}
        entries = {(0, 1, 1): one, (0, 0, 1): -numbers[0]}
    parts = {"bound": "none", "normalise": "none"}
    first = Synapse(RuleConfig.model_validate(special | parts), POST, PRE)
    second = Synapse(RuleConfig.model_validate({"rule": "general"} | parts), POST, PRE)
    eta = {"eta": torch.tensor([[0.3]], dtype=torch.float64)}
    pre, post = normal(generator, STEPS, BATCH, PRE), normal(generator, STEPS, BATCH, POST).tanh()
    state = {"trace": normal(generator, BATCH, POST, PRE)}
    expected = run(first, eta | params, pre, post, state)
    if rule == "linear":
        a, b, c, d = numbers
        x, y = pre.unsqueeze(-2), post.unsqueeze(-1)
        written_out = state["trace"] + 0.3 * (d + b * x + c * y + a * x * y).sum(0)
        torch.testing.assert_close(expected["trace"], written_out, atol=1e-12, rtol=0)
    got = run(second, eta | {"theta": theta_of(entries, rows, columns)}, pre, post, state)
    torch.testing.assert_close(got["trace"], expected["trace"], atol=1e-12, rtol=0)


def test_the_general_form_is_its_sum_of_27_products() -> None:
    generator = torch.Generator().manual_seed(1)
    theta = normal(generator, 3, 3, 3, POST, PRE)
    pre, post, trace = (normal(generator, BATCH, *shape) for shape in ((PRE,), (POST,), (POST, PRE)))
    total = torch.zeros_like(trace)
    for c in range(3):
        for i in range(3):
            for j in range(3):
                total += theta[c, i, j] * trace**c * post.unsqueeze(-1) ** i * pre.unsqueeze(-2) ** j
    change = TERMS["general"]().change({"theta": theta}, pre, post, trace, {})
    torch.testing.assert_close(change, total, atol=1e-12, rtol=0)


@pytest.mark.parametrize(("eta", "converges"), [(0.05, True), (0.2, False)])
def test_bcm_selects_one_of_orthonormal_inputs_where_eta_tau_is_below_one(eta: float, converges: bool) -> None:
    # K equiprobable orthonormal inputs, batch: y = W, theta follows the mean of y^2 with tau = 10. Fixed point: one
    # input excites by K, the others not at all, and theta = K.
    inputs = 5
    term = TERMS["bcm"]()
    params = {"bcm_rate": torch.tensor([0.1], dtype=torch.float64)}
    pre = torch.eye(inputs, dtype=torch.float64)
    weights = torch.tensor([[0.5, 0.6, 0.7, 0.8, 0.9]], dtype=torch.float64)
    threshold = torch.ones(1, dtype=torch.float64)
    for _ in range(4000):
        post = pre @ weights.mT
        trace = weights.expand(inputs, 1, inputs)
        state = {"bcm_threshold": threshold.expand(inputs, 1)}
        weights = weights + eta * term.change(params, pre, post, trace, state).mean(0)
        threshold = term.next_state(params, pre, post, trace, state)["bcm_threshold"].mean(0)
        if not bool(weights.isfinite().all()):
            break
    response = (pre @ weights.mT).flatten()
    target = torch.tensor([0.0, 0.0, 0.0, 0.0, inputs], dtype=torch.float64)
    settled = torch.allclose(response, target, atol=1e-6) and abs(threshold.item() - inputs) < 1e-6
    assert settled == converges
    if converges:
        assert (1 - response.mean() / response.max()).item() == pytest.approx(1 - 1 / inputs, abs=1e-6)


def test_the_delta_rule_recalls_after_one_write() -> None:
    generator = torch.Generator().manual_seed(2)
    synapse = Synapse(RuleConfig(rule="delta", bound="none"), POST, PRE)
    eta = {"eta": torch.ones(1, 1, dtype=torch.float64)}
    keys = torch.linalg.qr(normal(generator, PRE, PRE))[0][:2].unsqueeze(1)
    values = normal(generator, 2, 1, POST)
    state = {"trace": normal(generator, 1, POST, PRE)}
    state = run(synapse, eta, keys[:1], values[:1], state)
    torch.testing.assert_close(state["trace"][0] @ keys[0, 0], values[0, 0], atol=1e-12, rtol=0)
    # An orthogonal key disturbs nothing; the same key again overwrites.
    state = run(synapse, eta, keys[1:], values[1:], state)
    torch.testing.assert_close(state["trace"][0] @ keys[0, 0], values[0, 0], atol=1e-12, rtol=0)
    state = run(synapse, eta, keys[:1], values[1:], state)
    torch.testing.assert_close(state["trace"][0] @ keys[0, 0], values[1, 0], atol=1e-12, rtol=0)


@pytest.mark.parametrize(("rate", "stable"), [(1.9, True), (2.1, False)])
def test_the_delta_rule_is_stable_where_eta_times_key_squared_is_below_two(rate: float, stable: bool) -> None:
    synapse = Synapse(RuleConfig(rule="delta", bound="none"), 1, 1)
    eta = {"eta": torch.tensor([[rate]], dtype=torch.float64)}
    ones = torch.ones(400, 1, 1, dtype=torch.float64)
    error = abs(
        run(synapse, eta, ones, 0.5 * ones, {"trace": torch.zeros(1, 1, 1, dtype=torch.float64)})["trace"] - 0.5
    )
    assert (error.item() < 1e-10) if stable else (error.item() > 1e10)


@pytest.mark.parametrize(("granularity", "shape"), [("scalar", (1, 1)), ("neuron", (3, 1)), ("synapse", (3, 4))])
def test_coefficients_have_the_granularity_of_the_rule(granularity: str, shape: tuple[int, int]) -> None:
    coefficients = GainConfig.model_validate({"granularity": granularity, "low": -0.5, "high": 0.25})
    expected = {
        "abcd": {f"coefficient_{name}": shape for name in "abcd"},
        "general": {"theta": (3, 3, 3, *shape)},
        "presynaptically_gated": {"threshold": shape},
        "bcm": {"bcm_rate": (1,)},
        "delta": {},
    }
    for name, shapes in expected.items():
        drawn = TERMS[name]().parameters(POST, PRE, coefficients, torch.Generator().manual_seed(0))
        assert {key: tuple(parameter.value.shape) for key, parameter in drawn.items()} == shapes
        if name != "bcm":
            assert all(parameter.trainable for parameter in drawn.values())
            assert all(bool(((p.value >= -0.5) & (p.value <= 0.25)).all()) for p in drawn.values())


@pytest.mark.parametrize("rule", ["abcd", "general", "presynaptically_gated", "bcm", "delta"])
def test_gradients_through_six_steps(rule: str) -> None:
    generator = torch.Generator().manual_seed(4)
    overrides = {"rule": rule, "coefficients": {"granularity": "neuron", "low": -0.3, "high": 0.3}, "clip": 50.0}
    synapse = Synapse(RuleConfig.model_validate(overrides), 2, 3)
    params = {
        name: parameter.value.double().requires_grad_() for name, parameter in synapse.parameters(generator).items()
    }
    names = list(params)
    pre, post = normal(generator, STEPS, 1, 3), normal(generator, STEPS, 1, 2).tanh()
    state = {name: 0.5 * normal(generator, 1, *entry.shape) for name, entry in synapse.state_entries().items()}

    def final(*values: Tensor) -> Tensor:
        return run(synapse, dict(zip(names, values, strict=True)), pre, post, state)["trace"]

    assert torch.autograd.gradcheck(final, tuple(params[name] for name in names))


def test_overrides_reach_the_coefficients() -> None:
    overrides = RuleConfig.model_validate({"rule": "abcd", "coefficients": {"granularity": "scalar"}})
    coefficients = overrides.coefficients
    assert coefficients == RULES["abcd"].coefficients.model_copy(update={"granularity": "scalar"})
