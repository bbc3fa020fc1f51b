"""Dale's law: synapses keep the sign of the unit that they come from, whatever changes them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from plastic_rl.errors import ConfigError
from plastic_rl.networks import PlasticUnits, State
from plastic_rl.networks.dale import clipped, held_trace, signed_weights, unit_signs
from plastic_rl.plasticity import RULES
from tests.networks.cases import Case, make_case
from tests.networks.test_plastic_units import NEVER, constant, quiet, units

STRONG = {"granularity": "synapse", "low": -2.0, "high": 2.0}
MOVING = [rule for rule in RULES if not RULES[rule].alpha.is_zero]


def weights_of(case: Case, name: str, params: dict[str, Tensor], state: State) -> Tensor:
    assert isinstance(case.network, PlasticUnits)
    weights: Tensor = case.network._weights(name, params, state)
    return weights


def signs_hold(case: Case, params: dict[str, Tensor], state: State, excitatory: int) -> bool:
    """Whether synapses of the first hidden units are 0 or more, and those of the others 0 or less."""
    return all(
        bool((weights[..., :excitatory] >= 0).all() and (weights[..., excitatory:] <= 0).all())
        for weights in (weights_of(case, name, params, state) for name in ("recurrent", "readout"))
    )


def dale_case(rule: str, seed: int = 0, **connection: Any) -> Case:
    own = {"rule": rule, "alpha": STRONG, "weight": {"granularity": "synapse", "low": -0.3, "high": 0.3}, **connection}
    config = {
        "kind": "plastic_units",
        "excitatory": 0.5,
        "recurrent": own,
        "readout": {**own, "neuron": "tanh", "population": 2},
    }
    case = make_case(config, steps=200, batch=3, start_rate=0, scale=0.5, seed=seed)
    drawn = dict(case.network.named_parameters())
    case.params |= {name: drawn[name].detach() for name in case.params if name.endswith(".sign")}
    return case


def test_signs_and_start_weights() -> None:
    signs = unit_signs(0.5, 5).value  # 2.5 is rounded to the even number
    assert signs.tolist() == [[1, 1, -1, -1, -1]]
    assert signed_weights(signs, torch.tensor([[-2.0, 3, -4, 5, 0]])).tolist() == [[2, 3, -4, -5, 0]]
    assert clipped(signs, torch.tensor([[[-2.0, 3, -4, 5, -1]]])).tolist() == [[[0, 3, -4, 0, -1]]]


def test_a_trace_stops_where_the_weight_is_0() -> None:
    """W0 .5 and -.5, alpha 2, -2 and 0: F stops at -.25, .25 and nowhere."""
    signs = torch.tensor([[1.0, -1.0, 1.0]], dtype=torch.float64)
    start = torch.tensor([[0.5, -0.5, 0.5]], dtype=torch.float64)
    alpha = torch.tensor([[2.0, -2.0, 0.0]], dtype=torch.float64)
    trace = torch.tensor([[[-3.0, -3.0, -3.0]], [[-0.2, -0.2, 1.0]], [[3.0, 3.0, 3.0]]], dtype=torch.float64)
    held = held_trace(signs, start, alpha, trace)
    assert held.tolist() == [[[-0.25, -0.25, -3.0]], [[-0.2, -0.2, 1.0]], [[3.0, 3.0, 3.0]]]
    assert held_trace(signs, None, alpha, trace)[0].tolist() == [[0.0, 0.0, -3.0]]


@given(
    sign=st.sampled_from([-1.0, 1.0]),
    start=st.floats(0, 3),
    alpha=st.floats(-3, 3),
    trace=st.floats(-5, 5),
)
@settings(max_examples=200, deadline=None)
def test_a_held_trace_keeps_the_weight_on_its_side_and_is_never_larger(
    sign: float, start: float, alpha: float, trace: float
) -> None:
    signs, given_start, gain = (torch.tensor([[one]], dtype=torch.float64) for one in (sign, sign * start, alpha))
    held = held_trace(signs, given_start, gain, torch.tensor([[[trace]]], dtype=torch.float64)).item()
    assert sign * (sign * start + alpha * held) >= -1e-12
    assert abs(held) <= abs(trace) * (1 + 1e-12)
    assert held * trace >= 0
    if sign * (sign * start + alpha * trace) >= 0:
        assert held == trace


def test_a_synapse_comes_back_from_0_at_once() -> None:
    """Depressed by 3 a step from .5, then potentiated by 3: 0, 0, 3, not 3 less what would have lain below 0."""
    rule = {"rule": "hard_clip", "bound": "none", "alpha": constant(1.0), "eta": constant(1.0), "sign": "excitatory"}
    config = {"neuron": "linear", "hidden_size": 1, "inputs": "features", "input": {**rule, "term": "hebb"}}
    network = units({**config, "input": {**rule, "weight": constant(0.5)}}, inputs=6)
    synapse, state = network._synapses["input"], network.initial_state(1)
    params = dict(network.named_parameters())
    weights = []
    for post in (-3.0, -3.0, 3.0):
        x = torch.ones(1, 1, 1, dtype=torch.float64)
        # What the units put out is set by hand.
        with torch.no_grad():
            state = state | network._updated(params, x, {"hidden": post * x}, state)
            weights.append(network._weights("input", params, state).item())
    assert weights == [0.0, 0.0, 3.0]
    assert not synapse.non_plastic


@pytest.mark.parametrize("rule", MOVING)
def test_signs_hold_through_hundreds_of_updates_by_any_rule(rule: str) -> None:
    case = dale_case(rule)
    state, at_zero = case.state, 0
    with torch.no_grad():
        for step in range(200):
            feedback = case.feedbacks.at(step)
            _, state = case.network.step(case.params, case.xs[step], feedback, state, case.starts[step])
            if step % 20 == 0:
                assert signs_hold(case, case.params, state, 3)
                at_zero += int((weights_of(case, "recurrent", case.params, state) == 0).sum())
        _, unrolled = case.network.unroll(case.params, case.xs, case.feedbacks, case.state, case.starts)
    assert signs_hold(case, case.params, unrolled, 3)
    torch.testing.assert_close(unrolled, state, atol=1e-9, rtol=0)
    # Not because nothing moved: synapses did reach 0.
    assert at_zero > 0


@pytest.mark.parametrize(
    "connection",
    [
        {"structure": {"name": "sparse", "density": 0.5, "drawn": "lifetime"}},
        {"structure": {"name": "rewire", "density": 0.5, "every": 3}},
        {"homeostasis": "synaptic_scaling", "consolidation": "benna_fusi"},
        {"normalise": "incoming_l2"},
    ],
    ids=lambda connection: "-".join(connection),
)
def test_signs_hold_with_the_other_parts_and_in_a_population(connection: dict[str, Any]) -> None:
    cases = [dale_case("oja", seed, **connection) for seed in range(2)]
    params = {name: torch.stack([case.params[name] for case in cases]) for name in cases[0].params}
    state = {name: torch.stack([case.state[name] for case in cases]) for name in cases[0].state}
    xs = torch.stack([case.xs for case in cases], 1)
    feedback, start = cases[0].feedbacks, cases[0].starts
    with torch.no_grad():
        for step in range(200):
            one = feedback.at(step)
            told = type(one)(*(None if entry is None else torch.stack([entry, entry]) for entry in one))
            _, state = cases[0].network.step(params, xs[step], told, state, start[step].expand(2, -1))
    assert signs_hold(cases[0], params, state, 3)
    assert bool((state["trace.recurrent"].abs() > 0).any())


def test_start_weights_have_the_sign_of_their_unit_whatever_the_outer_loop_makes_of_them() -> None:
    network = units({"hidden_size": 10, "excitatory": 0.8, "recurrent": {}, "readout": {}})
    params = dict(network.named_parameters())
    assert params["synapses.recurrent.sign"].tolist() == [[1.0] * 8 + [-1.0] * 2]
    assert not params["synapses.recurrent.sign"].requires_grad
    assert "synapses.input.sign" not in params
    state = network.initial_state(1)
    for name in ("recurrent", "readout"):
        weight = params[f"synapses.{name}.weight"]
        assert torch.equal(weight.sign(), params[f"synapses.{name}.sign"].expand_as(weight))
        turned = params | {f"synapses.{name}.weight": -weight}
        assert torch.equal(network._weights(name, turned, state), network._weights(name, params, state))
        assert torch.equal(network._weights(name, params, state)[0], weight)
    # One number for all is one strength: 8 synapses at .3, 2 at -.3.
    network = units({"hidden_size": 10, "excitatory": 0.8, "recurrent": {"weight": constant(-0.3)}})
    of_one = network._weights("recurrent", dict(network.named_parameters()), network.initial_state(1))
    assert of_one[0, 0].tolist() == pytest.approx([0.3] * 8 + [-0.3] * 2)


@pytest.mark.parametrize("alpha", [1.0, -2.0])
@pytest.mark.parametrize("weight", [constant(-0.3), {"granularity": "synapse", "low": -0.3, "high": 0.3}])
def test_traces_that_start_at_the_weights_start_on_the_side_of_their_unit(alpha: float, weight: dict[str, Any]) -> None:
    recurrent = {"rule": "stdp", "trace_start": "weight", "alpha": constant(alpha), "weight": weight}
    network = units({"hidden_size": 10, "excitatory": 0.8, "recurrent": recurrent})
    params = dict(network.named_parameters())
    state = network.initial_state(2)
    weights = network._weights("recurrent", params, state)
    assert torch.equal(weights, alpha * state["trace.recurrent"])
    assert torch.equal(weights.sign()[1], params["synapses.recurrent.sign"].expand(10, 10))
    if weight["granularity"] == "scalar":
        assert weights.abs().flatten().tolist() == pytest.approx([0.3 * abs(alpha)] * 200)


def test_channels_are_excitatory_where_their_synapses_say_so() -> None:
    network = units({"hidden_size": 4, "input": {"sign": "excitatory"}})
    weights = network._weights("input", dict(network.named_parameters()), network.initial_state(1))
    assert bool((weights > 0).all())
    plain = units({"hidden_size": 4})
    same = network.get_parameter("synapses.input.weight")
    assert torch.equal(same, plain.get_parameter("synapses.input.weight").abs())  # the same draws


def test_a_negative_unit_lowers_what_it_reaches() -> None:
    """Two hidden units at tanh(1), one excitatory and one inhibitory, weights 2 and 3: 2 tanh(1) - 3 tanh(1)."""
    readout = {"neuron": "linear", "population": 1, "weight": constant(1.0), "scale": constant(1.0)}
    network = units({"hidden_size": 2, "excitatory": 0.5, "inputs": "features", "readout": readout}, inputs=6)
    params = dict(network.named_parameters())
    params["synapses.input.weight"] = torch.ones(2, 1, dtype=torch.float64)
    params["synapses.readout.weight"] = torch.tensor([[2.0, 3.0], [2.0, -3.0]], dtype=torch.float64)
    x = torch.tensor([[1.0, 0, 0, 0, 0, 0]], dtype=torch.float64)
    with torch.no_grad():
        features, _ = network.step(params, x, quiet(), network.initial_state(1), ~NEVER)
    assert features[0].tolist() == pytest.approx([-torch.tensor(1.0).double().tanh().item()] * 2, abs=1e-12)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"excitatory": 1.2}, r"excitatory: must be less than or equal to 1, got 1\.2"),
        ({"excitatory": 0.8, "hidden_size": 0, "readout": {}}, "excitatory: there are no hidden units"),
        (
            {"excitatory": 0.8, "recurrent": {"sign": "inhibitory"}},
            r"recurrent\.sign is inhibitory, but network\.excitatory is 0\.8; leave one",
        ),
        ({"input": {"sign": "excitatry"}}, r"input\.sign: .*Did you mean 'excitatory'"),
    ],
)
def test_what_cannot_be_is_refused(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        units(config)
