"""Turnover of hidden units within a lifetime: who goes, what comes, and that nobody hears of it at first."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

from plastic_rl.errors import ConfigError
from plastic_rl.feedback import Feedback
from plastic_rl.networks import PlasticUnits, State
from plastic_rl.networks.phases import Phased
from plastic_rl.networks.turnover import FIRST_STREAM, Turnover, TurnoverConfig
from tests.networks.cases import ACTIONS, ALL, INPUTS, make_case, make_network

HIDDEN = 6
FIXED = {"granularity": "scalar", "trainable": False}
HEBB = {"rule": "hard_clip", "alpha": {**FIXED, "low": 1.0, "high": 1.0}, "eta": {**FIXED, "low": 0.1, "high": 0.1}}
READOUT = {**HEBB, "neuron": "linear", "population": 1}
BOTH = pytest.mark.parametrize("name", ["units_turnover", "units_turnover_spiking"])


def build(turnover: dict[str, Any] | None, *, hidden_size: int = HIDDEN, **others: Any) -> PlasticUnits:
    config = {"kind": "plastic_units", "hidden_size": hidden_size, "readout": READOUT, "turnover": turnover, **others}
    network = make_network(config, INPUTS, ACTIONS, torch.Generator().manual_seed(0))
    assert isinstance(network, PlasticUnits)
    return network.double()


def told(batch: int = 1) -> Feedback:
    no = torch.zeros(batch, dtype=torch.bool)
    return Feedback(torch.zeros(batch, ACTIONS).double(), torch.zeros(batch).double(), no, ~no)


def live(network: PlasticUnits, state: State, xs: Tensor) -> list[State]:
    """States before and after each step on observations `(T, B, I)`."""
    states, no = [state], torch.zeros(xs.shape[1], dtype=torch.bool)
    with torch.no_grad():
        for x in xs:
            states.append(network.step(dict(network.named_parameters()), x, told(len(x)), states[-1], no)[1])
    return states


def newborn(network: PlasticUnits, batch: int) -> State:
    return network.initial_state(batch, torch.Generator().manual_seed(1))


def noise(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


@pytest.mark.parametrize(
    ("share", "every", "maturity", "hidden"), [(0.3, 4, 6, 10), (0.5, 2, 5, 10), (1.0, 3, 4, 5), (0.01, 1, 0, 7)]
)
def test_as_many_are_replaced_as_are_asked_for_and_old_enough(
    share: float, every: int, maturity: int, hidden: int
) -> None:
    network = build({"every": every, "share": share, "maturity": maturity}, hidden_size=hidden, recurrent=HEBB)
    states = live(network, newborn(network, 3), noise(30, 3, INPUTS))
    count, seen = max(1, round(share * hidden)), 0
    for age, (before, after) in enumerate(itertools.pairwise(states)):
        replaced = after["born.hidden"] != before["born.hidden"]
        mature = age - before["born.hidden"] > maturity
        expected = mature.sum(-1).clamp_max(count) if age > 0 and age % every == 0 else torch.zeros(3)
        assert replaced.sum(-1).tolist() == expected.tolist()
        assert bool((mature | ~replaced).all())
        assert bool((after["born.hidden"][replaced] == age).all())
        # Nobody who is old enough and stays was of less use.
        utility = before["utility.hidden"]
        gone = utility.masked_fill(~replaced, -torch.inf).amax(-1)
        assert bool((utility.masked_fill(replaced | ~mature, torch.inf).amin(-1) >= gone).all())
        seen += int(replaced.sum())
    assert seen > 0


def test_utility_is_the_running_mean_of_output_times_outgoing_weights() -> None:
    still = {**HEBB, "eta": {**FIXED, "low": 0.0, "high": 0.0}}
    turnover = {"every": 1000, "utility_rate": 0.2}
    network = build(turnover, recurrent=still, readout={**still, "neuron": "linear", "population": 2})
    params = dict(network.named_parameters())
    x = noise(1, INPUTS)
    states = live(network, newborn(network, 1), x.expand(5, 1, INPUTS))
    weights = [params[f"synapses.{name}.weight"].detach() for name in ("recurrent", "readout")]
    outgoing = sum(weight.abs().sum(0) for weight in weights)
    expected = torch.zeros(1, HIDDEN, dtype=torch.float64)
    for state in states[1:]:
        expected = 0.8 * expected + 0.2 * state["activity.hidden"].abs() * outgoing
        torch.testing.assert_close(state["utility.hidden"], expected, atol=1e-12, rtol=0)
    # Without recurrence the output is constant, and u = |y| sum |w| (1 - .8^t).
    plain = build(turnover, readout={**still, "neuron": "linear", "population": 2})
    states = live(plain, newborn(plain, 1), x.expand(7, 1, INPUTS))
    outgoing = plain.get_parameter("synapses.readout.weight").detach().abs().sum(0)
    closed = states[7]["activity.hidden"].abs() * outgoing * (1 - 0.8**7)
    torch.testing.assert_close(states[7]["utility.hidden"], closed, atol=1e-12, rtol=0)


def test_of_equal_units_the_ones_that_go_are_drawn() -> None:
    turnover = Turnover(TurnoverConfig(every=1, share=0.25, maturity=0), 4)
    keys, ages = torch.arange(4000), torch.ones(4000, dtype=torch.int64)
    none = torch.zeros(4000, 4)
    replaced = turnover.replaced(none, none.long(), keys, ages)
    assert replaced.sum(-1).tolist() == [1] * 4000
    # Of 4,000 draws each unit has 1,000, with a deviation of 27.
    assert replaced.sum(0).tolist() == pytest.approx([1000] * 4, abs=110)


BELONGING = {
    "units_turnover": {
        "units": "activity.hidden scale.input mean_activity.input bcm_threshold.input",
        "rows": "trace.input",
        "columns": "trace.readout importance.readout change.readout",
        "both": "trace.recurrent eligibility.recurrent change.recurrent",
        "both of each": "chain.recurrent",
    },
    "units_turnover_spiking": {
        "units": "activity.hidden voltage.hidden refractory_left.hidden adaptation.hidden threshold_shift.hidden "
        "presynaptic_trace.recurrent facilitation.recurrent resources.recurrent conductance.recurrent "
        "conductance_source.recurrent presynaptic_trace.readout",
        "branches": "postsynaptic_trace.recurrent",
        "columns": "trace.readout eligibility.readout change.readout",
        "both": "trace.recurrent",
    },
}
"""What of the state belongs to hidden units, by how; the others are the readout's, the input's and the lifetime's."""


@BOTH
def test_a_new_unit_is_as_at_birth_and_the_others_are_as_they_were(name: str) -> None:
    case = make_case(ALL[name], units=HIDDEN)
    network, params = case.network, case.params
    assert isinstance(network, PlasticUnits)
    state = case.state | {"age": torch.full_like(case.state["age"], 6)}
    after = network._turned_over(params, state)
    replaced = after["born.hidden"] == 6
    assert replaced.sum(-1).tolist() == [round(0.3 * HIDDEN)] * 5
    start = {entry: torch.zeros_like(value) for entry, value in state.items()}
    start = network.reset(torch.ones(5, dtype=torch.bool), start, params=params)
    branches = network.config.branches
    of_branches = replaced.repeat_interleave(branches, -1)
    masks = {
        "units": replaced,
        "branches": of_branches,
        "rows": of_branches.unsqueeze(-1),
        "columns": replaced.unsqueeze(-2),
        "both": of_branches.unsqueeze(-1) | replaced.unsqueeze(-2),
    }
    masks["both of each"] = masks["both"].unsqueeze(-3)
    for entry in state.keys() - {"age", "utility.hidden", "born.hidden", "fresh.input", "fresh.recurrent"}:
        kind = next((kind for kind, entries in BELONGING[name].items() if entry in entries.split()), None)
        expected = state[entry] if kind is None else torch.where(masks[kind], start[entry], state[entry])
        assert torch.equal(after[entry], expected), entry


@BOTH
def test_new_incoming_weights_are_drawn_and_outgoing_ones_are_exactly_zero(name: str) -> None:
    case = make_case(ALL[name], units=HIDDEN)
    network, params = case.network, case.params
    assert isinstance(network, PlasticUnits)
    state = case.state | {"age": torch.full_like(case.state["age"], 6)}
    after = network._turned_over(params, state)
    replaced = after["born.hidden"] == 6
    rows = replaced.repeat_interleave(network.config.branches, -1)
    for owner in ("recurrent", "readout"):
        weights = network._weights(owner, params, after)
        outgoing = weights.mT[replaced]
        assert torch.equal(outgoing, torch.zeros_like(outgoing))
        kept = ~(replaced.unsqueeze(-2) | (rows.unsqueeze(-1) if owner == "recurrent" else False))
        kept = kept.expand_as(weights)
        assert torch.equal(weights[kept], network._weights(owner, params, state)[kept])
    incoming = network._weights("input", params, after)
    fresh = after["fresh.input"][rows]
    held = params["synapses.input.branch"].expand_as(incoming)[rows] if network.config.branches > 1 else 1.0
    scale = after["scale.input"][rows].unsqueeze(-1) if "scale.input" in after else 1.0
    torch.testing.assert_close(incoming[rows], scale * fresh * held, atol=1e-14, rtol=0)
    bound = (3 / INPUTS) ** 0.5
    assert bool((fresh.abs() < bound).all())
    assert torch.unique(fresh).numel() == fresh.numel()
    assert torch.equal(after["fresh.input"][~rows], state["fresh.input"][~rows])


def test_new_weights_are_uniform_as_the_first_ones() -> None:
    turnover = {"every": 1, "share": 1.0, "maturity": 0}
    weight = {"granularity": "synapse", "low": -0.2, "high": 0.6}
    network = build(turnover, hidden_size=8, input={"rule": "fixed", "weight": weight})
    state = live(network, newborn(network, 200), noise(2, 200, INPUTS))[-1]
    fresh = state["fresh.input"]
    assert fresh.shape == (200, 8, INPUTS)
    assert (fresh.min().item(), fresh.max().item()) == pytest.approx((-0.2, 0.6), abs=1e-3)
    assert fresh.mean().item() == pytest.approx(0.2, abs=0.01)
    assert fresh.var().item() == pytest.approx(0.8**2 / 12, rel=0.03)
    # A function of key and age; one number for each unit where that is how weights are.
    assert not torch.equal(fresh[0], fresh[1])
    one_each = build(turnover, input={"rule": "fixed", "weight": {**weight, "granularity": "neuron"}})
    fresh = live(one_each, newborn(one_each, 2), noise(2, 2, INPUTS))[-1]["fresh.input"]
    assert torch.equal(fresh, fresh[..., :1].expand_as(fresh))
    assert torch.unique(fresh).numel() == 2 * HIDDEN
    assert FIRST_STREAM > 1 << 21  # apart from the streams of structures


@BOTH
def test_the_output_is_that_of_the_network_with_the_old_units_cut_off(name: str) -> None:
    """In the step of the replacement, whatever the new units do: their outgoing synapses are not there."""
    case = make_case(ALL[name], units=HIDDEN, batch=1)
    network, params = case.network, case.params
    assert isinstance(network, PlasticUnits)
    without = make_network({**ALL[name], "hidden_size": HIDDEN, "turnover": None}, INPUTS, ACTIONS).double()
    state = case.state | {"age": torch.full_like(case.state["age"], 6)}
    going = network._turned_over(params, state)["born.hidden"][0] == 6
    assert int(going.sum()) == 2
    no = torch.zeros(1, dtype=torch.bool)
    feedback = told()._replace(valid=no)  # no update by reward comes between
    cut = {entry: value for entry, value in state.items() if entry in without.state_entries()}
    own = dict(params)
    for owner in ("recurrent", "readout"):
        cut[f"trace.{owner}"] = torch.where(going, 0.0, cut[f"trace.{owner}"])
        own[f"synapses.{owner}.weight"] = torch.where(going, 0.0, own[f"synapses.{owner}.weight"])
    with torch.no_grad():
        features, _ = network.step(params, case.xs[0], feedback, state, no)
        expected, _ = without.step(own, case.xs[0], feedback, cut, no)
        undisturbed, _ = without.step(params, case.xs[0], feedback, cut, no)
    torch.testing.assert_close(features, expected, atol=1e-12, rtol=0)
    if name == "units_turnover":
        assert not torch.allclose(features, undisturbed, atol=1e-3)


def test_units_that_nobody_hears_are_replaced_unnoticed() -> None:
    """Utility 0, no outgoing weights: the outputs are those of the network without turnover, in this very step."""
    turnover = {"every": 5, "share": 2 / HIDDEN, "maturity": 0}
    network, without = build(turnover, recurrent=HEBB), build(None, recurrent=HEBB)
    params = {name: value.detach().clone() for name, value in network.named_parameters()}
    state = newborn(network, 4) | {"age": torch.full((4,), 5)}
    state = {name: noise(*one.shape) if one.is_floating_point() else one for name, one in state.items()}
    silent = torch.tensor([False, True, False, False, True, False])
    for owner in ("recurrent", "readout"):
        params[f"synapses.{owner}.weight"][:, silent] = 0.0
        state[f"trace.{owner}"][..., silent] = 0.0
    state["utility.hidden"] = torch.where(silent, 0.0, state["utility.hidden"].abs())
    no, x = torch.zeros(4, dtype=torch.bool), noise(4, INPUTS)
    plain = {entry: value for entry, value in state.items() if entry in without.state_entries()}
    with torch.no_grad():
        features, after = network.step(params, x, told(4), state, no)
        expected, _ = without.step(params, x, told(4), plain, no)
    assert torch.equal(after["born.hidden"] == 5, silent.expand(4, HIDDEN))
    torch.testing.assert_close(features, expected, atol=1e-12, rtol=0)
    assert not torch.equal(after["activity.hidden"][:, silent], torch.zeros(4, 2).double())


def test_new_units_are_learned_by_the_rule_and_old_ones_keep_their_place() -> None:
    network = build({"every": 4, "share": 2 / HIDDEN, "maturity": 0})
    states = live(network, newborn(network, 1), noise(8, 1, INPUTS))
    new = states[5]["born.hidden"][0] == 4
    assert int(new.sum()) == 2
    # The step of the replacement brings eta y x = .1 y_out y_hidden.
    post, pre = states[5]["activity.output"], states[5]["activity.hidden"]
    torch.testing.assert_close(states[5]["trace.readout"][0][:, new], 0.1 * (post.mT @ pre)[:, new])
    assert bool((states[8]["trace.readout"][0][:, new] != 0).all())
    with torch.no_grad():
        params = dict(network.named_parameters())
        weights = network._weights("readout", params, states[8])[0]
    torch.testing.assert_close(weights[:, new], states[8]["trace.readout"][0][:, new])


def test_no_gradient_reaches_start_weights_that_are_replaced() -> None:
    network = build({"every": 4, "share": 2 / HIDDEN, "maturity": 0})
    state = live(network, newborn(network, 1), noise(5, 1, INPUTS))[-1]
    new = state["born.hidden"][0] == 4
    params = {name: value.detach().clone().requires_grad_() for name, value in network.named_parameters()}
    features, _ = network.step(params, noise(1, INPUTS), told(), state, torch.zeros(1, dtype=torch.bool))
    features.square().sum().backward()  # type: ignore[no-untyped-call]
    for name, axis in (("synapses.input.weight", 1), ("synapses.readout.weight", 0)):
        gradient = params[name].grad
        assert gradient is not None
        assert torch.equal(gradient.abs().sum(axis) != 0, ~new)


def test_frozen_units_stay_and_newborn_lifetimes_have_the_networks_own() -> None:
    network = build({"every": 2, "share": 0.5, "maturity": 0})
    first = newborn(network, 2)
    with network.freeze_plasticity():
        last = live(network, first, noise(7, 2, INPUTS))[-1]
    for name in ("utility.hidden", "born.hidden", "fresh.input"):
        assert torch.equal(last[name], first[name])
    lived = live(network, first, noise(7, 2, INPUTS))[-1]
    assert bool((lived["born.hidden"] > 0).any(-1).all())
    params = dict(network.named_parameters())
    begun = network.begun(params, lived, torch.tensor([True, False]))
    weights = network._weights("input", params, begun)
    assert torch.equal(weights[0], params["synapses.input.weight"])
    assert not torch.equal(weights[1], params["synapses.input.weight"])


@pytest.mark.parametrize("phases", [{"sleep": {"steps": 4}}, {"development": {"steps": 5}, "sleep": {"steps": 4}}])
def test_no_unit_comes_or_goes_in_sleep(phases: dict[str, Any]) -> None:
    network = build({"every": 1, "share": 0.2, "maturity": 0}, recurrent=HEBB, **phases)
    assert isinstance(network, Phased)
    params, state = dict(network.named_parameters()), newborn(network, 3)
    _, state = network.step(params, noise(3, INPUTS), told(3), state, torch.ones(3, dtype=torch.bool))
    state = live(network, state, noise(6, 3, INPUTS))[-1]
    assert bool((state["born.hidden"] > 0).any())
    with torch.no_grad():
        _, after = network.replayed(params, state, torch.ones(3, dtype=torch.bool))
    assert not torch.equal(after["trace.readout"], state["trace.readout"])
    for name in ("born.hidden", "fresh.input", "fresh.recurrent"):
        assert torch.equal(after[name], state[name])


@BOTH
def test_a_unit_born_since_begins_a_replay_as_at_birth(name: str) -> None:
    """What is stored of the trial's start is of the unit that it replaced: nothing of that may teach its synapses."""
    case = make_case({**ALL[name], "sleep": {"steps": 2}}, units=HIDDEN)
    network, params = case.network, case.params
    assert isinstance(network, PlasticUnits)
    born = torch.tensor([0, 3, 4, 5, 6, 0]).expand(5, HIDDEN)
    state = case.state | {"born.hidden": born, "age": torch.full((5,), 5)}
    recalled = network.recalled(params, state)
    start = network.reset(torch.ones(5, dtype=torch.bool), state, params=params)
    since = torch.tensor([False, False, False, True, True, False])  # born before step 5, or after it
    assert torch.equal(recalled["activity.hidden"], torch.where(since, 0.0, state["activity.hidden"]))
    for entry, value in state.items():
        if entry == "eligibility.recurrent":
            both = since.unsqueeze(-1) | since
            assert torch.equal(recalled[entry], torch.where(both, 0.0, value))
        elif entry == "change.readout":
            assert torch.equal(recalled[entry], torch.where(since, 0.0, value))
        elif entry == "voltage.hidden":
            assert torch.equal(recalled[entry], torch.where(since, start[entry], value))
        elif not network.state_entries()[entry].momentary or entry.startswith("sleep."):
            assert torch.equal(recalled[entry], value), entry


def test_units_of_a_grid_are_replaced_too() -> None:
    """Rows of three: a layer of one unit more, by which the state is told apart, would not be made up of them."""
    grid = {"name": "neighbourhood", "columns": 3}
    network = build({"every": 2, "share": 0.5, "maturity": 0}, competition=grid, recurrent=HEBB)
    state = live(network, newborn(network, 2), noise(7, 2, INPUTS))[-1]
    assert bool((state["born.hidden"] > 0).any(-1).all())
    (layer,) = network.hidden_layers()
    assert {one.parameter for one in layer.outgoing} >= {"synapses.recurrent.weight", "synapses.readout.weight"}


def test_without_turnover_nothing_is_kept_or_drawn() -> None:
    plain, turning = build(None), build({"every": 3})
    added = {"key", "age", "utility.hidden", "born.hidden", "fresh.input"}
    assert set(turning.state_entries()) - set(plain.state_entries()) == added
    torch.testing.assert_close(plain.state_dict(), turning.state_dict(), atol=0, rtol=0)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"readout": None}, "turnover needs a readout: the weights of the action head stay"),
        ({"readout": {"rule": "fixed"}}, "turnover needs outgoing synapses that learn, but those of readout are fixed"),
        ({"recurrent": {"rule": "fixed"}}, "but those of recurrent are fixed"),
        ({"hidden_size": 0}, "turnover: there are no hidden units to replace"),
        ({"input": {"normalise": "incoming_l1"}}, r"leave out input\.normalise"),
        ({"turnover": {"share": 0.0}}, r"turnover\.share: must be greater than 0, got 0"),
        ({"turnover": {"shares": 0.1}}, "Did you mean 'share'"),
    ],
)
def test_what_cannot_be_is_refused(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(**{"turnover": {"every": 2}, **config})
