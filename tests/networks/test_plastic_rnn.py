"""The plastic recurrent network against sums written out, its resets, and updates that wait for the reward."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from plastic_rl.errors import ConfigError
from plastic_rl.networks import Feedback, PlasticRNN
from plastic_rl.plasticity import RULES
from plastic_rl.plasticity.modulators import FAN_OUT_START
from tests.networks.cases import ACTIONS, ALL, INPUTS, make_case, make_network, run_steps


def quiet(batch: int = 1, reward: float = 0.0, valid: bool = True, trial_start: bool = False) -> Feedback:
    return Feedback(
        torch.zeros(batch, 2),
        torch.full((batch,), reward, dtype=torch.float64),
        torch.full((batch,), trial_start),
        torch.full((batch,), valid),
    )


NEVER = torch.zeros(1, dtype=torch.bool)


def small(**config: object) -> tuple[PlasticRNN, dict[str, Tensor]]:
    """Two units and one input; weights chosen by hand."""
    network = make_network({"kind": "plastic_rnn", "hidden_size": 2, **config}, 1, 2).double()
    assert isinstance(network, PlasticRNN)
    params = {name: value.detach().clone() for name, value in network.named_parameters()}
    params["input_weight"] = torch.tensor([[1.0], [-0.5]], dtype=torch.float64)
    params["input_bias"] = torch.tensor([0.1, 0.2], dtype=torch.float64)
    params["recurrent_weight"] = torch.tensor([[0.3, -0.2], [0.4, 0.1]], dtype=torch.float64)
    params["alpha"] = torch.tensor([[0.5, -1.0], [2.0, 0.7]], dtype=torch.float64)
    return network, params


@pytest.mark.parametrize("grad", [True, False])
def test_three_steps_of_two_units_written_out(grad: bool) -> None:
    """The forward pass of step t uses the trace left by step t-1, and that trace pairs y_{t-1} with y_{t-2}."""
    network, params = small(rule="hard_clip", clip=0.2)
    params["eta"] = torch.tensor([[0.5]], dtype=torch.float64)
    weights, alpha = [[0.3, -0.2], [0.4, 0.1]], [[0.5, -1.0], [2.0, 0.7]]
    trace, pre = [[0.0, 0.0], [0.0, 0.0]], [0.0, 0.0]
    state = network.initial_state(1)
    clipped = 0
    for x in (1.0, -2.0, 0.5):
        drive = [x + 0.1, -0.5 * x + 0.2]
        post = [
            math.tanh(drive[o] + sum((weights[o][i] + alpha[o][i] * trace[o][i]) * pre[i] for i in range(2)))
            for o in range(2)
        ]
        raw = [[trace[o][i] + 0.5 * post[o] * pre[i] for i in range(2)] for o in range(2)]
        clipped += sum(abs(value) > 0.2 for row in raw for value in row)
        trace = [[min(max(value, -0.2), 0.2) for value in row] for row in raw]
        pre = post
        with torch.set_grad_enabled(grad):
            features, state = network.step(params, torch.tensor([[x]], dtype=torch.float64), quiet(), state, NEVER)
        torch.testing.assert_close(features[0], torch.tensor(post, dtype=torch.float64), atol=1e-12, rtol=0)
        torch.testing.assert_close(state["trace"][0], torch.tensor(trace, dtype=torch.float64), atol=1e-12, rtol=0)
    assert clipped > 0


def test_a_reward_gated_update_waits_for_the_next_step() -> None:
    network, params = small(rule="reward_gated")
    params["reward_average_rate"] = torch.tensor([0.5], dtype=torch.float64)
    x = torch.ones(1, 1, dtype=torch.float64)
    _, first = network.step(params, x, quiet(valid=False), network.initial_state(1), ~NEVER)
    _, second = network.step(params, -x, quiet(reward=0.0), first, NEVER)
    assert not second["trace"].any()  # r = rbar = 0: nothing yet
    pre, post = second["presynaptic"], second["activity"]
    assert torch.equal(pre, first["activity"])
    features, third = network.step(params, x, quiet(reward=0.8), second, NEVER)
    expected = 0.8 * post.unsqueeze(-1) * pre.unsqueeze(-2)
    torch.testing.assert_close(third["trace"], expected, atol=1e-12, rtol=0)
    assert third["reward_average"].item() == pytest.approx(0.4)
    # The forward pass of this very step already uses it.
    weights = params["recurrent_weight"] + params["alpha"] * expected[0]
    drive = torch.tensor([1.1, -0.3], dtype=torch.float64)
    torch.testing.assert_close(features[0], torch.tanh(drive + weights @ post[0]), atol=1e-12, rtol=0)


@pytest.mark.parametrize(("starts", "valid"), [(True, True), (True, False), (False, False)])
@pytest.mark.parametrize("rule", ["reward_gated", "reward_gated_retroactive"])
def test_a_reward_never_reaches_across_the_start_of_a_lifetime(rule: str, starts: bool, valid: bool) -> None:
    case = make_case(ALL[rule], batch=1)
    feedback = quiet(reward=5.0, valid=valid)
    start = torch.tensor([starts])
    _, state = case.network.step(case.params, case.xs[0], feedback, case.state, start)
    for name in set(state) - {"activity", "presynaptic"}:
        begun = case.params["reward_average_start"] if name == "reward_average" else torch.zeros_like(state[name])
        expected = begun if starts else case.state[name]
        assert torch.equal(state[name], expected)


@pytest.mark.parametrize("entry", ["activity", "trace", "eligibility"])
def test_an_entry_that_resets_with_the_trial(entry: str) -> None:
    config = ALL["backpropamine_retroactive"] | {"reset": {entry: "trial"}}
    case = make_case(config, batch=2)
    feedback = quiet(2)._replace(trial_start=torch.tensor([True, False]))
    never = torch.zeros(2, dtype=torch.bool)
    by_hand = {name: value.clone() for name, value in case.state.items()}
    by_hand[entry][0] = 0
    features, state = case.network.step(case.params, case.xs[0], feedback, case.state, never)
    expected, expected_state = case.network.step(case.params, case.xs[0], quiet(2), by_hand, never)
    torch.testing.assert_close(features, expected, atol=0, rtol=0)
    torch.testing.assert_close(state, expected_state, atol=0, rtol=0)


@pytest.mark.parametrize("entry", ["activity", "presynaptic", "reward_average"])
def test_the_last_reward_of_a_trial_reaches_the_synapses_before_the_trial_resets(entry: str) -> None:
    plain, resetting = (make_case(ALL["reward_gated"] | extra, batch=1) for extra in ({}, {"reset": {entry: "trial"}}))
    _, expected = plain.network.step(plain.params, plain.xs[0], quiet(reward=0.8), plain.state, NEVER)
    feedback = quiet(reward=0.8, trial_start=True)
    _, state = resetting.network.step(plain.params, plain.xs[0], feedback, plain.state, NEVER)
    assert (expected["trace"] - plain.state["trace"]).abs().max().item() > 0.01
    assert torch.equal(state["trace"], expected["trace"])


@pytest.mark.parametrize("kind", ["plastic_rnn", "rnn", "gru", "lstm"])
def test_trial_resets_are_refused_where_trials_have_one_step(kind: str) -> None:
    config = {"kind": kind, "hidden_size": 3, "reset": {"activity": "trial"}}
    with pytest.raises(ConfigError, match="nothing would be left to associate"):
        make_network(config, 2, 2, steps_per_trial=1)
    assert make_network(config, 2, 2, steps_per_trial=2).state_entries()["activity"].reset == "trial"
    assert make_network(config, 2, 2).state_entries()["activity"].reset == "trial"


def test_a_reset_of_an_unknown_entry_is_refused() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'trace'"):
        make_network({"kind": "plastic_rnn", "hidden_size": 3, "reset": {"traces": "trial"}}, 2, 2)


def test_default_start_weights() -> None:
    network = make_network({"kind": "plastic_rnn", "hidden_size": 100}, 25, 2, torch.Generator().manual_seed(0))
    params = dict(network.named_parameters())
    for name, bound in {"input_weight": math.sqrt(3) / 5, "recurrent_weight": 0.1, "alpha": 0.01}.items():
        assert 0.95 * bound < params[name].abs().max().item() <= bound
        assert params[name].std().item() == pytest.approx(bound / math.sqrt(3), rel=0.15)
    assert not params["input_bias"].any()


def test_the_fixed_twin_is_a_plain_recurrent_network() -> None:
    case = make_case(ALL["fixed"])
    assert set(case.state) == {"activity"}
    assert case.network.plasticity_parameters() == []
    other = make_case(ALL["hard_clip"])
    other.params |= {name: value for name, value in case.params.items() if name != "alpha"}
    other.params["alpha"] = torch.zeros_like(other.params["alpha"])
    other.state["activity"] = case.state["activity"]
    other.xs, other.feedbacks, other.starts = case.xs, case.feedbacks, case.starts
    torch.testing.assert_close(run_steps(case)[0], run_steps(other)[0], atol=1e-12, rtol=0)


def test_fan_out_at_one_is_simple_modulation() -> None:
    generator = torch.Generator
    simple = make_network(
        {**ALL["backpropamine_simple"], "hidden_size": 5}, INPUTS, ACTIONS, generator().manual_seed(0)
    ).double()
    fan_out = make_network(
        {**ALL["backpropamine_fan_out"], "hidden_size": 5}, INPUTS, ACTIONS, generator().manual_seed(0)
    ).double()
    start = fan_out.get_parameter("modulator_fan_out")
    assert start.tolist() == pytest.approx([FAN_OUT_START] * 5)
    with torch.no_grad():
        start.fill_(1.0)
    case = make_case(ALL["backpropamine_simple"], units=5)
    features = [
        network.unroll(dict(network.named_parameters()), case.xs, case.feedbacks, case.state, case.starts)[0]
        for network in (simple, fan_out)
    ]
    torch.testing.assert_close(features[0], features[1], atol=1e-12, rtol=0)


@pytest.mark.parametrize("rule", RULES)
def test_gradients_of_every_rule_by_finite_differences(rule: str) -> None:
    """Through 6 steps, starts in between."""
    case = make_case(ALL[rule], steps=6, batch=2, units=2, start_rate=0.15, seed=2)
    names = [
        name for name in case.params if name != "reward_average_rate" and not (rule == "fixed" and name == "alpha")
    ]
    entries = list(case.state)

    for unroll in (case.network.unroll_reference, case.network.unroll):

        def outcome(xs: Tensor, *leaves: Tensor) -> tuple[Tensor, ...]:
            params = case.params | dict(zip(names, leaves, strict=False))
            state = dict(zip(entries, leaves[len(names) :], strict=True))
            features, following = unroll(params, xs, case.feedbacks, state, case.starts)  # noqa: B023
            return features, *following.values()

        leaves = [case.xs, *(case.params[name] for name in names), *case.state.values()]
        assert torch.autograd.gradcheck(outcome, [leaf.clone().requires_grad_() for leaf in leaves], fast_mode=True)


@pytest.mark.parametrize("rule", ["reward_gated", "reward_gated_retroactive"])
def test_after_a_freeze_a_reward_meets_the_activity_of_its_own_step(rule: str) -> None:
    """What waits for a reward here is activity, which goes on while plasticity is frozen; F and E are held."""
    case = make_case({"kind": "plastic_rnn", "rule": rule, "bound": "none"})
    network, params = case.network, case.params
    none = torch.zeros(5, dtype=torch.bool)

    def feedback(step: int) -> Feedback:
        return case.feedbacks.at(step)._replace(valid=~none, trial_start=none)

    with network.freeze_plasticity():
        _, first = network.step(params, case.xs[0], feedback(0), case.state, none)
        _, second = network.step(params, case.xs[1], feedback(1), first, none)
    _, thawed = network.step(params, case.xs[2], feedback(2), second, none)
    surprise = feedback(2).reward - case.state["reward_average"]
    own = second["activity"].unsqueeze(-1) * first["activity"].unsqueeze(-2)
    source = case.state["eligibility"] if rule == "reward_gated_retroactive" else own
    expected = case.state["trace"] + params["eta"] * surprise.reshape(-1, 1, 1) * source
    torch.testing.assert_close(thawed["trace"], expected, atol=1e-12, rtol=0)
    if rule == "reward_gated_retroactive":
        share = params["eta_eligibility"]
        torch.testing.assert_close(
            thawed["eligibility"], (1 - share) * case.state["eligibility"] + share * own, atol=1e-12, rtol=0
        )


CLAMPED = {"input_gain": {"granularity": "scalar", "low": 20.0, "high": 20.0, "trainable": False}, "readout": "units"}


def test_one_to_one_inputs_and_units_that_answer_by_hand() -> None:
    """Four units, of which two see a feature each and are the actions; 5 columns of feedback are not seen."""
    config = {"kind": "plastic_rnn", "rule": "differentiable_plasticity", "hidden_size": 4, "weight_bound": 0.0}
    gains = {name: {"granularity": "scalar", "low": low, "high": low} for name, low in (("alpha", 2.0), ("eta", 0.25))}
    own = CLAMPED | {"input_gain": {"granularity": "neuron", "low": 0.5, "high": 0.5}}
    network = make_network(config | gains | own, 7, 2).double()
    params = {name: value.detach().clone() for name, value in network.named_parameters()}
    assert set(params) == {"input_gain", "input_bias", "recurrent_weight", "alpha", "eta"}
    assert not params["recurrent_weight"].any()
    params["input_gain"] = torch.tensor([[0.5], [2.0], [9.0], [9.0]], dtype=torch.float64)
    params["input_bias"] = torch.tensor([0.0, 0.0, 0.3, -0.1], dtype=torch.float64)
    feedback = torch.tensor([[7.0, -7.0, 7.0, -7.0, 7.0]], dtype=torch.float64)
    x = torch.cat([torch.tensor([[1.0, -0.3]], dtype=torch.float64), feedback], -1)
    features, state = network.step(params, x, quiet(), network.initial_state(1), NEVER)
    first = [math.tanh(0.5), math.tanh(-0.6), math.tanh(0.3), math.tanh(-0.1)]
    assert features[0].tolist() == pytest.approx(first[:2], abs=1e-12)
    # W0 and F are 0. F then pairs the outputs of both steps: 2 F y = 2 * .25 y2 (y1 . y1), with y1 for the y of now.
    _, state = network.step(params, x, quiet(), state, NEVER)
    assert state["activity"][0].tolist() == pytest.approx(first, abs=1e-12)
    features, _ = network.step(params, x, quiet(), state, NEVER)
    drive, recalled = (0.5, -0.6), [0.5 * y * sum(other**2 for other in first) for y in first[:2]]
    expected = [math.tanh(d + r) for d, r in zip(drive, recalled, strict=True)]
    assert features[0].tolist() == pytest.approx(expected, abs=1e-12)
    # (1 + y) / 2 is the probability of a 1; the second unit is the second bit.
    probabilities = torch.sigmoid(network.readout(params, features))[0].tolist()
    assert probabilities == pytest.approx([(1 + y) / 2 for y in expected], abs=1e-12)


def test_a_clamped_unit_is_sure_and_its_logit_finite() -> None:
    network = make_network({"kind": "plastic_rnn", "hidden_size": 2, **CLAMPED}, 7, 2)
    params = dict(network.named_parameters())
    x = torch.tensor([[1.0, -1.0, 0.0, 0.0, 0.0, 0.0, 0.0]])
    features, _ = network.step(params, x, quiet(), network.initial_state(1), NEVER)
    logits = network.readout(params, features)[0]
    assert features[0].tolist() == [1.0, -1.0]
    assert logits.tolist() == pytest.approx([14.5, -14.5], abs=0.1)
    logits.sum().backward()
    assert all(bool(value.grad.isfinite().all()) for value in params.values() if value.grad is not None)
    assert params["input_gain"].grad is None


def test_what_cannot_be_read_or_seen_one_to_one_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"hidden_size=3 is too small for readout: units, .* each of the 5 actions"):
        make_network({"kind": "plastic_rnn", "hidden_size": 3, "readout": "units"}, 11, 5)
    with pytest.raises(ConfigError, match=r"input_gain: this environment has no features"):
        make_network({"kind": "plastic_rnn", **CLAMPED}, 5, 2)
    with pytest.raises(ConfigError, match=r"no weights for input_bound; leave it or input_gain out"):
        make_network({"kind": "plastic_rnn", "input_bound": 0.5, **CLAMPED}, 7, 2)
