"""The rule-table network, stepped by hand and against other programs."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import Perceptron
from torch import Tensor

from plastic_rl.networks import Feedback
from tests.networks.rule_table_cases import ALL_LAYERS, NOBODY, UNSCALED, build, newborn, observe, told

BY_HAND: dict[str, Any] = {
    "hidden_size": 3,
    "cap": 2,
    "rounds": 1,
    "plastic": ALL_LAYERS,
    "gated": {"hidden": True},
    "normalise": UNSCALED,
    "selection": "argmax",
    "reward_average_rate": 0.5,
}


def hand_tables() -> dict[str, Tensor]:
    """Input [1, 2, 3, 4]; hidden (g + 1)(4 pre + post) for gate g; output 10 code + column."""
    codes = torch.arange(4, dtype=torch.float64)
    pairs = 4 * codes.unsqueeze(-1) + codes
    return {
        "input_table": (codes + 1).unsqueeze(0),
        "hidden_table": torch.stack([pairs, 2 * pairs]),
        "output_table": 10 * codes.unsqueeze(-1) + codes,
    }


def test_two_inputs_three_hidden_two_outputs_stepped_by_hand() -> None:
    network = build(BY_HAND, 2, 2)
    params = dict(network.named_parameters()) | hand_tables()
    state = newborn(
        network,
        input=[[1, 0], [0, 1], [1, 1]],
        hidden=[[0, 0.5, 0], [1, 0, 0], [0, 0.5, 0]],
        output=[[1, 0, 0], [0, 1, 1]],
    )
    # x = (1, 2): A x = (1, 2, 3), cap 2: a0 = (0, 2, 3). W (a0 + a0) = W (0, 4, 6) = (2, 0, 2) = a1.
    # Codes: bits (a0, a1) = (0, 1), (1, 0), (1, 1), that is 2, 1, 3. Outputs U a1 = (2, 2).
    outputs, state = network.step(params, observe(network, 1, 2), told(0, 0, 2, valid=False), state, NOBODY)
    assert outputs.tolist() == [[2, 2]]
    assert state["code"].tolist() == [[2, 1, 3]]
    assert state["reward_average"].tolist() == [0]
    # Output 0 was chosen and rewarded (1 > 0): columns 3 and 1, rows 2, 1, 3, step .1: U += [2.3 1.3 3.3; 2.1 1.1 3.1].
    # Hidden table of the rewarded, step .01, e.g. from unit 1 (code 1) to unit 0 (code 2): .02 (4 + 2) = .12.
    # Input table: codes 2, 1, 3 are entries 3, 2, 4, step .01, times x = (1, 2).
    # x = (1, -1): A x = (.97, -1.02, -.04), a0 = (.97, 0, 0). W (1.94, 0, 0) = (0, 2.2892, .4268) = a1.
    outputs, state = network.step(params, observe(network, 1, -1), told(0, 1, 2), state, NOBODY)
    expected = {
        "input_weight": [[1.03, 0.06], [0.02, 1.04], [1.04, 1.08]],
        "hidden_weight": [[0, 0.62, 0.28], [1.18, 0, 0.26], [0.22, 0.64, 0]],
        "output_weight": [[3.3, 1.3, 3.3], [2.1, 2.1, 4.1]],
    }
    for name, value in expected.items():
        torch.testing.assert_close(state[name], torch.tensor([value], dtype=torch.float64), atol=1e-12, rtol=0)
    assert state["code"].tolist() == [[1, 2, 2]]
    # 1.3 * 2.2892 + 3.3 * .4268 and 2.1 * 2.2892 + 4.1 * .4268.
    torch.testing.assert_close(outputs, torch.tensor([[4.3844, 6.5572]], dtype=torch.float64), atol=1e-12, rtol=0)
    assert state["reward_average"].tolist() == [0.5]
    # Reward .5 is not above the average .5: output 1, chosen, has column 2, output 0 column 0; rows 1, 2, 2.
    before = state["output_weight"].clone()
    _, state = network.step(params, observe(network, 0, 0), told(1, 0.5, 2), state, NOBODY)
    change = [[[1.0, 2.0, 2.0], [1.2, 2.2, 2.2]]]
    torch.testing.assert_close(state["output_weight"] - before, torch.tensor(change, dtype=torch.float64))
    assert state["code"].tolist() == [[0, 0, 0]]


def test_the_other_recurrence_by_hand() -> None:
    network = build(BY_HAND | {"recurrence": "cristian"}, 2, 2)
    state = newborn(
        network,
        input=[[1, 0], [0, 1], [1, 1]],
        hidden=[[0, 0.5, 0], [1, 0, 0], [0, 0.5, 0]],
        output=[[1, 0, 0], [0, 1, 1]],
    )
    # a0 = (0, 2, 3); W a0 + A x = (1, 0, 1) + (1, 2, 3) = (2, 2, 4); of the equal ones the first stays: (2, 0, 4).
    params = dict(network.named_parameters())
    outputs, state = network.step(params, observe(network, 1, 2), told(0, 0, 2, valid=False), state, NOBODY)
    assert outputs.tolist() == [[2, 4]]
    assert state["code"].tolist() == [[2, 1, 3]]


@pytest.mark.parametrize(
    ("activation", "expected"), [("linear", [-1, 2]), ("relu", [0, 2]), ("tanh", [-0.76159, 0.96403])]
)
def test_activations(activation: str, expected: list[float]) -> None:
    network = build({"hidden_size": 2, "cap": None, "activation": activation}, 1, 2)
    state = newborn(network, input=[[-1], [2]], output=[[1, 0], [0, 1]])
    outputs, _ = network.step(
        dict(network.named_parameters()), observe(network, 1), told(0, 0, 2, valid=False), state, NOBODY
    )
    torch.testing.assert_close(outputs, torch.tensor([expected], dtype=torch.float64), atol=1e-5, rtol=0)


def test_all_genes_start_at_zero_and_are_all_in_use() -> None:
    network = build({"plastic": ALL_LAYERS, "rounds": 3, "gated": {"input": True, "hidden": True}}, 10, 4)
    genes = {name: value.numel() for name, value in network.named_parameters() if value.requires_grad}
    assert sum(genes.values()) == 608 + 3 + 1 + 1
    assert not any(value.any() for value in network.parameters())
    bare = build({"plastic": {"hidden": False}, "selection": "argmax", "exploration": 0.0, "learn_steps": False}, 10, 4)
    assert [name for name, value in bare.named_parameters() if value.requires_grad] == ["output_table"]


WATCHING: dict[str, Any] = {
    "activation": "linear",
    "cap": None,
    "normalise": UNSCALED,
    "step": {"output": 1.0},
    "selection": "argmax",
}
"""The hidden units are the inputs themselves: their weights are set to the identity."""


def identity(size: int) -> list[list[float]]:
    return torch.eye(size).tolist()


def test_the_perceptron_preset_follows_scikit_learn_update_for_update() -> None:
    rng = np.random.default_rng(1)
    inputs = rng.integers(0, 2, (200, 6)).astype(float)
    scores = inputs @ rng.normal(size=6)
    labels = (scores > np.median(scores)).astype(int)
    reference = Perceptron(fit_intercept=False, shuffle=False, penalty=None, max_iter=1, tol=None)
    network = build(WATCHING | {"hidden_size": 6, "tables": "perceptron"}, 6, 2, labels=True)
    assert (network.config.when, network.config.output_table) == ("errors", "supervised")
    params = dict(network.named_parameters())
    state = newborn(network, input=identity(6))
    label = None
    for x, following in zip(inputs, labels, strict=True):
        # The action taken is always 0: the rule goes by the network's own decision.
        _, state = network.step(
            params, observe(network, *x), told(0, 0, 2, label or 0, valid=label is not None), state, NOBODY
        )
        weights = state["output_weight"][0]
        expected = 2 * reference.coef_[0] if label is not None else np.zeros(6)
        np.testing.assert_array_equal((weights[1] - weights[0]).detach().numpy(), expected)
        reference.partial_fit(x[None], [following], classes=[0, 1])
        label = int(following)
    assert np.abs(reference.coef_).max() > 1


def test_winnow_doubles_and_halves_on_errors() -> None:
    """Balanced Winnow, written out: w_correct *= 2 and w_wrong /= 2 where the input is 1, on errors and ties."""
    rng = np.random.default_rng(2)
    inputs = rng.integers(0, 2, (100, 8)).astype(float)
    labels = ((inputs[:, 0] + inputs[:, 3]) > 0).astype(int)
    network = build(
        WATCHING | {"hidden_size": 8, "tables": "winnow", "start_weights": {"output": "ones"}}, 8, 2, labels=True
    )
    assert network.config.update == "multiplicative"
    params = dict(network.named_parameters())
    weights = np.ones((2, 8))
    state = newborn(network, input=identity(8), output=weights.tolist())
    label, errors = None, 0
    for x, following in zip(inputs, labels, strict=True):
        _, state = network.step(
            params, observe(network, *x), told(0, 0, 2, label or 0, valid=label is not None), state, NOBODY
        )
        np.testing.assert_allclose(state["output_weight"][0].detach().numpy(), weights, rtol=1e-12)
        label, outputs = int(following), weights @ x
        if outputs[label] <= outputs[1 - label]:
            weights[label] *= np.where(x > 0, 2.0, 1.0)
            weights[1 - label] /= np.where(x > 0, 2.0, 1.0)
            errors += 1
    assert 5 < errors < 60
    assert weights.max() >= 4


def test_weights_are_scaled_and_nobody_is_connected_to_itself() -> None:
    network = build({"hidden_size": 7, "cap": 3, "rounds": 2, "plastic": ALL_LAYERS, "tables": "normal"}, 4, 3)
    params = dict(network.named_parameters())
    state = network.initial_state(1, torch.Generator())
    start = torch.tensor([True])
    for reward in (0.0, 1.0, 0.0, 1.0):
        feedback = told(1, reward, 3, valid=not bool(start))
        _, state = network.step(params, observe(network, 1, -2, 3, reward), feedback, state, start)
        start = NOBODY
        assert not state["hidden_weight"].diagonal(dim1=-2, dim2=-1).any()
        for name, axis in (("input", -1), ("hidden", -1), ("output", -2)):
            lengths = state[f"{name}_weight"].norm(dim=axis)
            torch.testing.assert_close(lengths, (lengths > 0).double())
    assert (state["output_weight"].norm(dim=-2) > 0).all()


def test_start_weights_belong_to_the_lifetime_and_are_shared_by_a_population() -> None:
    network = build({"hidden_size": 50, "normalise": UNSCALED}, 20, 2)
    first = network.initial_state(3, torch.Generator().manual_seed(0))
    state = {name: value.expand(4, *value.shape) for name, value in first.items()}
    params = {name: value.expand(4, *value.shape) for name, value in network.named_parameters()}
    feedback = Feedback(
        torch.zeros(4, 3, 2, dtype=torch.float64),
        torch.zeros(4, 3, dtype=torch.float64),
        torch.ones(4, 3, dtype=torch.bool),
        torch.zeros(4, 3, dtype=torch.bool),
    )
    born = torch.ones(4, 3, dtype=torch.bool)
    xs = torch.zeros(4, 3, network.input_size, dtype=torch.float64)
    with torch.no_grad():
        _, state = network.step(params, xs, feedback, state, born)
        weights = state["input_weight"]
        assert weights.stride(0) == 0, "one set of weights in memory for the whole population"
        assert weights[0].std().item() == pytest.approx(20**-0.5, rel=0.05)
        assert not torch.equal(weights[0, 0], weights[0, 1])
        assert not state["output_weight"].any()
        _, again = network.step(params, xs, feedback, state, born)
    assert not torch.equal(again["input_weight"][0, 0], weights[0, 0])


@pytest.mark.parametrize("exploration", [0.0, 0.1])
def test_argmax_breaks_ties_evenly_and_explores(exploration: float) -> None:
    network = build({"selection": "argmax", "exploration": exploration}, 3, 4)
    params = dict(network.named_parameters())
    outputs = torch.tensor([[1.0, 3.0, 3.0, 0.0], [0.0, 0.0, 0.0, 0.0]], dtype=torch.float64)
    share = exploration / 4
    expected = [[share, share + (1 - exploration) / 2, share + (1 - exploration) / 2, share], [0.25] * 4]
    torch.testing.assert_close(network.readout(params, outputs).exp(), torch.tensor(expected, dtype=torch.float64))


def test_softmax_and_its_genes() -> None:
    network = build({"inverse_temperature": 2.0, "exploration": 0.1}, 3, 2)
    outputs = torch.tensor([[0.0, 1.0]], dtype=torch.float64)
    params = dict(network.named_parameters())
    warm = 0.9 / (1 + math.exp(2)) + 0.05
    assert network.readout(params, outputs).exp()[0, 0].item() == pytest.approx(warm, abs=1e-12)
    params |= {
        "log_inverse_temperature": torch.tensor([math.log(3)], dtype=torch.float64),
        "exploration": torch.tensor([math.log(9)], dtype=torch.float64),
    }
    # The logit of .1 is -log 9: a gene of log 9 makes the rate 1/2.
    cold = 0.5 / (1 + math.exp(6)) + 0.25
    assert network.readout(params, outputs).exp()[0, 0].item() == pytest.approx(cold, abs=1e-12)


def test_preparing_changes_nothing() -> None:
    network = build({"hidden_size": 6, "cap": 3, "rounds": 1, "tables": "normal"}, 4, 2)
    params = {name: value + 0.3 for name, value in network.named_parameters()}
    state = newborn(network)
    outputs, state = network.step(
        params, observe(network, 1, 2, 3, 4), told(0, 0, 2, valid=False), state, torch.tensor([True])
    )
    plain = network.step(params, observe(network, 4, 3, 2, 1), told(0, 1, 2), state, NOBODY)
    ready = network.step(network.prepared(params), observe(network, 4, 3, 2, 1), told(0, 1, 2), state, NOBODY)
    torch.testing.assert_close(plain, ready, atol=0, rtol=0)
    assert torch.equal(network.readout(params, outputs), network.readout(network.prepared(params), outputs))


@pytest.mark.parametrize("update", ["additive", "multiplicative"])
def test_gradients_through_a_lifetime(update: str) -> None:
    network = build({"hidden_size": 5, "cap": 3, "rounds": 1, "plastic": ALL_LAYERS, "update": update}, 3, 2)
    generator = torch.Generator().manual_seed(3)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    # Large steps, so that six of them leave a trace; random outputs, so that multiplicative rules have something.
    values = {name: normal(*value.shape) for name, value in network.named_parameters()}
    values["log_step"] = torch.full((3,), 1.0, dtype=torch.float64)
    xs, starts = normal(6, 2, network.input_size), torch.zeros(6, 2, dtype=torch.bool)
    feedbacks = Feedback(
        torch.eye(2, dtype=torch.float64)[torch.randint(2, (6, 2), generator=generator)],
        torch.randint(2, (6, 2), generator=generator).double(),
        ~starts,
        ~starts,
    )
    state = {
        name: normal(*value.shape) if name.endswith("weight") else value
        for name, value in network.initial_state(2, generator).items()
    }

    def probabilities(*leaves: Tensor) -> Tensor:
        params = dict(zip(values, leaves, strict=True))
        features, _ = network.unroll(params, xs, feedbacks, state, starts)
        return network.readout(params, features)

    leaves = [value.requires_grad_() for value in values.values()]
    assert torch.autograd.gradcheck(probabilities, leaves, eps=1e-7, atol=1e-5)
    gradients = torch.autograd.grad(probabilities(*leaves).square().sum(), leaves)
    assert all(gradient.any() for gradient in gradients)


def test_steps_without_an_outcome_change_nothing_unless_asked_for() -> None:
    def change(**config: Any) -> Tensor:
        network = build({"hidden_size": 4, "cap": 2, "normalise": UNSCALED, "no_outcome": "zero_reward"} | config, 2, 2)
        params = {name: value + 1 for name, value in network.named_parameters()}
        state = newborn(network)
        _, born = network.step(params, observe(network, 1, 2), told(0, 0, 2, valid=False), state, torch.tensor([True]))
        _, later = network.step(params, observe(network, 1, 2), told(0, 0, 2), born, NOBODY)
        assert later["reward_average"].item() == 0
        return later["output_weight"] - born["output_weight"]

    assert not change().any()
    step = 0.1 * math.e
    torch.testing.assert_close(change(update_without_outcome=True), torch.full((1, 2, 4), step, dtype=torch.float64))
