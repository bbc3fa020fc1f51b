"""Sparse and rewired synapses in networks: drawn from keys, rewired on time, the same however a network is run."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch

from plastic_rl.feedback import Feedback
from plastic_rl.networks import PlasticNetwork, State
from tests.networks.cases import ACTIONS, INPUTS, make_network

BY_LIFETIME = {"name": "sparse", "density": 0.25, "drawn": "lifetime"}
REWIRE = {"name": "rewire", "density": 0.25, "every": 3, "share": 0.5, "drawn": "lifetime"}


def live(network: PlasticNetwork, steps: int, *, batch: int = 3, seed: int = 0) -> list[State]:
    """States before and after each step of newborn lifetimes."""
    generator = torch.Generator().manual_seed(seed)
    params, states = dict(network.named_parameters()), [network.initial_state(batch, generator)]
    no = torch.zeros(batch, dtype=torch.bool)
    with torch.no_grad():
        for _ in range(steps):
            told = Feedback(torch.zeros(batch, ACTIONS), torch.rand(batch, generator=generator), no, ~no)
            xs = torch.randn(batch, INPUTS, generator=generator)
            states.append(network.step(params, xs, told, states[-1], no)[1])
    return states


def build(kind: str, rule: str, structure: Any, **others: Any) -> PlasticNetwork:
    config: dict[str, Any] = {"kind": kind, "rule": rule, "structure": structure, "hidden_size": 8, **others}
    if kind == "plastic_units":
        config = {"kind": kind, "hidden_size": 8, "recurrent": {"rule": rule, "structure": structure, **others}}
    return make_network(config, INPUTS, ACTIONS, torch.Generator().manual_seed(1))


KINDS = {
    "plastic_rnn": "connected",
    "plastic_units": "connected.recurrent",
    "plastic_feed_forward": "connected.0",
}


@pytest.mark.parametrize(("kind", "entry"), KINDS.items())
def test_lifetimes_draw_their_synapses_from_their_keys(kind: str, entry: str) -> None:
    network = build(kind, "oja", BY_LIFETIME)
    state = network.initial_state(4, torch.Generator().manual_seed(0))
    counts = state[entry].sum((-2, -1))
    assert counts.tolist() == [round(0.25 * state[entry][0].numel())] * 4
    assert not torch.equal(state[entry][0], state[entry][1])
    same = network.initial_state(4, torch.Generator().manual_seed(0))
    assert torch.equal(same[entry], state[entry])
    # A lifetime that starts has new ones, the others keep theirs; equal keys draw equal synapses.
    state["key"] = state["key"][[0, 1, 1, 1]]
    start = torch.tensor([False, True, True, False])
    told = Feedback(torch.zeros(4, ACTIONS), torch.zeros(4), start, ~start)
    _, after = network.step(dict(network.named_parameters()), torch.zeros(4, INPUTS), told, state, start)
    assert torch.equal(after[entry][[0, 3]], state[entry][[0, 3]])
    assert torch.equal(after[entry][1], after[entry][2])
    assert not torch.equal(after[entry][1], state[entry][1])
    assert after[entry].sum((-2, -1)).tolist() == counts.tolist()


@pytest.mark.parametrize("drawn", ["lifetime", "start"])
@pytest.mark.parametrize("rule", ["hard_clip", "reward_gated_retroactive"])
@pytest.mark.parametrize(("kind", "entry"), KINDS.items())
def test_synapses_are_rewired_every_third_step_and_their_number_stays(
    kind: str, entry: str, rule: str, drawn: str
) -> None:
    states = live(build(kind, rule, REWIRE | {"drawn": drawn}), 10)
    trace = entry.replace("connected", "trace")
    count = round(0.25 * states[0][entry][0].numel())
    for age, (before, after) in enumerate(itertools.pairwise(states)):
        assert after["age"].tolist() == [age + 1] * 3
        changed = (before[entry] != after[entry]).sum((-2, -1)).tolist()
        # Half of them go before steps 3, 6, 9, and as many others come.
        assert changed == [2 * round(count / 2) if age in {3, 6, 9} else 0] * 3
        assert after[entry].sum((-2, -1)).tolist() == [count] * 3
        assert not after[trace][~after[entry]].any()
    assert states[-1][trace].any()
    if drawn == "start":
        assert torch.equal(states[0][entry][0], states[0][entry][1])


def test_frozen_synapses_are_not_rewired() -> None:
    network = build("plastic_rnn", "oja", REWIRE)
    with network.freeze_plasticity():
        states = live(network, 7)
    assert torch.equal(states[0]["connected"], states[-1]["connected"])
    assert states[-1]["age"].tolist() == [7] * 3


def test_random_start_weights_and_slow_variables_are_those_of_synapses_that_are_there() -> None:
    for drawn in ("lifetime", "start"):
        structure = {"name": "sparse", "density": 0.25, "drawn": drawn}
        chain = {"name": "benna_fusi", "variables": 3}
        network = build("plastic_feed_forward", "abcd", structure, start="random", consolidation=chain)
        params = dict(network.named_parameters())
        states = live(network, 1)
        for state in states:
            connected = state.get("connected.0", params.get("layers.0.connected", torch.zeros(())) > 0.5)
            trace = state["trace.0"]
            assert torch.equal(trace != 0, connected.expand_as(trace))
            assert not state["chain.0"][~connected.unsqueeze(-3).expand_as(state["chain.0"])].any()
        # The slow variables start where the trace does: nothing flows.
        torch.testing.assert_close(states[0]["chain.0"][:, 1], states[0]["trace.0"])


def test_a_sparse_network_without_plasticity_is_the_plain_one_with_fewer_weights() -> None:
    sparse = build("plastic_rnn", "fixed", {"name": "sparse", "density": 0.25})
    plain = make_network({"kind": "plastic_rnn", "rule": "fixed", "hidden_size": 8}, INPUTS, ACTIONS)
    assert not sparse.is_plastic
    assert set(sparse.state_entries()) == {"activity"}
    params = dict(sparse.named_parameters())
    with torch.no_grad():
        own = params | {"recurrent_weight": params["recurrent_weight"] * params["connected"]}
    xs, starts = (
        torch.randn(6, 2, INPUTS, generator=torch.Generator().manual_seed(0)),
        torch.zeros(6, 2, dtype=torch.bool),
    )
    told = Feedback(torch.zeros(6, 2, ACTIONS), torch.zeros(6, 2), starts, ~starts)
    features, _ = sparse.unroll(params, xs, told, sparse.initial_state(2), starts)
    expected, _ = plain.unroll(own, xs, told, plain.initial_state(2), starts)
    torch.testing.assert_close(features, expected)


def test_a_scale_acts_on_the_whole_weight_in_every_network() -> None:
    for kind, scale in {"plastic_rnn": "scale", "plastic_units": "scale.recurrent"}.items():
        network = make_network(
            {"kind": kind, "hidden_size": 8, "rule": "fixed", "homeostasis": "synaptic_scaling"}
            if kind == "plastic_rnn"
            else {"kind": kind, "hidden_size": 8, "recurrent": {"rule": "fixed", "homeostasis": "synaptic_scaling"}},
            INPUTS,
            ACTIONS,
        )
        params, state = dict(network.named_parameters()), network.initial_state(1)
        weight = next(
            value for name, value in params.items() if name.endswith(("recurrent_weight", "recurrent.weight"))
        )
        activity = next(name for name in state if name.startswith("activity"))
        state[activity] = torch.linspace(-1, 1, 8).unsqueeze(0)
        state[scale] = torch.linspace(0.5, 2, 8).unsqueeze(0)
        no = torch.zeros(1, dtype=torch.bool)
        told = Feedback(torch.zeros(1, ACTIONS), torch.zeros(1), no, ~no)
        with torch.no_grad():
            features, _ = network.step(params, torch.zeros(1, INPUTS), told, state, no)
            expected = torch.tanh(state[scale] * (state[activity] @ weight.mT))
        torch.testing.assert_close(features, expected)


@pytest.mark.parametrize("drawn", ["lifetime", "start"])
def test_a_trace_that_starts_at_the_weights_is_of_synapses_that_are_there(drawn: str) -> None:
    """Else the first recall of the delta rule would be through all of them: D = (y - F x) x."""
    structure, whole = BY_LIFETIME | {"drawn": drawn}, {"granularity": "scalar", "low": 1.0, "high": 1.0}
    eta = {**whole, "low": 0.1, "high": 0.1}
    network = build("plastic_units", "delta", structure, trace_start="weight", consolidation="two_speeds", eta=eta)
    params, state = dict(network.named_parameters()), network.initial_state(3, torch.Generator().manual_seed(0))
    none, every = torch.zeros(3, dtype=torch.bool), torch.ones(3, dtype=torch.bool)
    for begun in (state, network.begun(params, state, every)):
        connected = begun.get("connected.recurrent", params.get("synapses.recurrent.connected", torch.zeros(())) > 0.5)
        weight = torch.where(connected, params["synapses.recurrent.weight"], 0.0).expand(3, 8, 8)
        assert torch.equal(begun["trace.recurrent"], weight)
        assert torch.equal(begun["slow_trace.recurrent"], weight)
        x = torch.randn(3, 8, generator=torch.Generator().manual_seed(1))
        told = Feedback(torch.zeros(3, ACTIONS), torch.zeros(3), none, every)
        post, after = network.step(params, torch.zeros(3, INPUTS), told, begun | {"activity.hidden": x}, none)
        error = post - (weight @ x.unsqueeze(-1)).squeeze(-1)
        moved = (weight + 0.1 * error.unsqueeze(-1) * x.unsqueeze(-2)) * connected
        slow = torch.lerp(weight, moved, 0.01)
        torch.testing.assert_close(after["slow_trace.recurrent"], slow)
        torch.testing.assert_close(after["trace.recurrent"], torch.lerp(moved, slow, 0.1))
