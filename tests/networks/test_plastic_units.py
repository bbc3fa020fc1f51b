"""Layers of units: against `plastic_rnn`, against hand-computed steps, and the noise of their inputs."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from plastic_rl.errors import ConfigError
from plastic_rl.feedback import Feedback
from plastic_rl.networks import PlasticUnits
from plastic_rl.networks.start_weights import step_numbers
from plastic_rl.plasticity import KINETICS, SHORT_TERM
from tests.networks.cases import ACTIONS, ALL, INPUTS, make_case, make_network, run_steps

NEVER = torch.zeros(1, dtype=torch.bool)
FIXED = {"granularity": "scalar", "trainable": False}


def quiet(reward: float = 0.0, action: int = 0, actions: int = 2, trial_start: bool = False) -> Feedback:
    one_hot = torch.eye(actions, dtype=torch.float64)[action : action + 1]
    reward_of = torch.tensor([reward], dtype=torch.float64)
    return Feedback(one_hot, reward_of, torch.tensor([trial_start]), torch.ones(1, dtype=torch.bool))


def units(config: dict[str, Any], inputs: int = INPUTS, actions: int = ACTIONS) -> PlasticUnits:
    network = make_network({"kind": "plastic_units", **config}, inputs, actions, torch.Generator().manual_seed(0))
    assert isinstance(network, PlasticUnits)
    return network.double()


def constant(value: float) -> dict[str, Any]:
    return {**FIXED, "low": value, "high": value}


@pytest.mark.parametrize(
    "rule", ["backpropamine_simple", "backpropamine_retroactive", "reward_gated", "bcm", "sorn", "fixed"]
)
def test_one_substep_of_tanh_units_is_the_plastic_rnn(rule: str) -> None:
    case = make_case({**ALL[rule], "unroll": "reference"})
    config = {"kind": "plastic_units", "hidden_size": 6, "recurrent": {"rule": rule}}
    network = make_network(config, INPUTS, ACTIONS).double()
    renamed = {"input_weight": "synapses.input.weight", "input_bias": "units.hidden.bias"}
    renamed["recurrent_weight"] = "synapses.recurrent.weight"
    own = {renamed.get(name, f"synapses.recurrent.{name}"): value for name, value in case.params.items()}
    params = dict(network.named_parameters()) | own
    assert {name for name in params if name not in own} == {"synapses.input.alpha"}
    features, expected = run_steps(case)
    case.network, case.params = network, params
    ours = [name for name in network.state_entries() if name.endswith(".recurrent") and "change" not in name]
    begun = {name: case.state[name.removesuffix(".recurrent")] for name in ours}
    begun["activity.hidden"] = case.state["activity"]
    if "presynaptic" in case.state:
        # What waits for the reward waits here as the change that the two sides made.
        synapse = network._synapses["recurrent"]
        begun["change.recurrent"] = synapse.term.change(
            {}, case.state["presynaptic"], case.state["activity"], case.state["trace"], {}
        )
    case.state = begun
    got, state = run_steps(case)
    torch.testing.assert_close(got, features, atol=1e-12, rtol=0)
    for name in ours:
        torch.testing.assert_close(state[name], expected[name.removesuffix(".recurrent")], atol=1e-12, rtol=0)


def test_spikes_are_counted_over_substeps() -> None:
    """Two hidden units under a held current of 20 and 30 mV: 63.04 and 111.96 Hz, so 63 and 111 spikes in 1 s."""
    network = units({"neuron": "lif", "hidden_size": 2, "substeps": 1000, "inputs": "features"}, inputs=6)
    params = dict(network.named_parameters())
    params["synapses.input.weight"] = torch.tensor([[20.0], [30.0]], dtype=torch.float64)
    x = torch.tensor([[1.0, 0, 0, 0, 0, 0]], dtype=torch.float64)
    with torch.no_grad():
        features, _ = network.step(params, x, quiet(), network.initial_state(1), ~NEVER)
    intervals = [2 + 10 * math.log(drive / (drive - 15)) for drive in (20, 30)]
    for rate, interval in zip((1000 * features[0]).tolist(), intervals, strict=True):
        # A spike falls on the end of a substep: intervals are rounded up.
        assert 1000 / (interval + 1) - 1 <= rate <= 1000 / interval
    assert 1000 * features[0] == pytest.approx(torch.tensor([1000 / 16, 1000 / 9], dtype=torch.float64), abs=1)


def test_populations_inhibit_each_other_and_answer_with_their_mean() -> None:
    readout = {"neuron": "linear", "population": 2, "inhibition": constant(0.5), "scale": constant(3.0)}
    network = units({"hidden_size": 0, "inputs": "features", "substeps": 2, "readout": readout}, inputs=6)
    params = dict(network.named_parameters())
    params["synapses.readout.weight"] = torch.tensor([[1.0], [2.0], [3.0], [4.0]], dtype=torch.float64)
    x = torch.tensor([[1.0, 0, 0, 0, 0, 0]], dtype=torch.float64)
    with torch.no_grad():
        features, state = network.step(params, x, quiet(), network.initial_state(1), ~NEVER)
    # First substep: (1, 2), (3, 4). Second: less half of the others' sums, 7 and 3.
    assert state["activity.output"].tolist() == [[1 - 3.5, 2 - 3.5, 3 - 1.5, 4 - 1.5]]
    assert features.tolist() == [[-2.0, 2.0]]
    assert network.readout(params, features).tolist() == [[-6.0, 6.0]]
    assert network.has_readout
    assert network.output_size == 2


@pytest.mark.parametrize(("actions", "copy"), [(2, [1.0, -1.0]), (3, [1.0, -0.5, -0.5])])
def test_an_efference_copy_gates_each_population_by_what_was_done(actions: int, copy: list[float]) -> None:
    readout = {
        "rule": "r_stdp",
        "neuron": "linear",
        "population": 1,
        "efference_copy": True,
        "bound": "none",
        "term": "hebb",
        "eta": constant(0.5),
        "weight": constant(1.0),
        "eligibility": {"name": "spike_trace", "tau_eligibility": 1 / math.log(2)},
    }
    network = units({"hidden_size": 0, "inputs": "features", "readout": readout}, actions + 4, actions)
    params = dict(network.named_parameters())
    x = torch.tensor([[2.0] + [0.0] * (actions + 3)], dtype=torch.float64)
    with torch.no_grad():
        _, state = network.step(params, x, quiet(actions=actions), network.initial_state(1), ~NEVER)
        assert state["change.readout"].tolist() == [[[4.0]] * actions]  # y x = 2 * 2
        assert not state["eligibility.readout"].any()
        assert not state["trace.readout"].any()
        _, state = network.step(params, 0 * x, quiet(1.0, actions=actions), state, NEVER)
    # eta (r - rbar) E copy = .5 * 1 * 4 * copy, and E halves in a step.
    assert state["trace.readout"].flatten().tolist() == [2 * sign for sign in copy]
    assert state["eligibility.readout"].flatten().tolist() == pytest.approx([2 * sign for sign in copy])
    assert state["reward_average.readout"].item() == pytest.approx(0.1)


def test_a_trials_eligibility_ends_with_the_trial_after_its_reward_was_used() -> None:
    config = ALL["units_spiking"] | {"hidden_size": 6}
    case = make_case(config, batch=1, start_rate=0)
    case.state["eligibility.readout"] = torch.ones_like(case.state["eligibility.readout"])
    begins = quiet(1.0, trial_start=True)
    with torch.no_grad():
        _, state = case.network.step(case.params, 0 * case.xs[0], begins, case.state, NEVER)
    assert not torch.equal(state["trace.readout"], case.state["trace.readout"])
    case.state["eligibility.readout"] = torch.zeros_like(case.state["eligibility.readout"])
    with torch.no_grad():
        _, without = case.network.step(case.params, 0 * case.xs[0], begins, case.state, NEVER)
    assert torch.equal(state["eligibility.readout"], without["eligibility.readout"])


def test_poisson_inputs_have_their_rate_and_follow_from_key_and_age() -> None:
    config = {"neuron": "linear", "hidden_size": 1, "coding": "poisson", "substeps": 500, "input_rate": 0.25}
    network = units({**config, "inputs": "features", "on_off": True}, inputs=8)
    state = network.initial_state(4, torch.Generator().manual_seed(1))
    seen = torch.tensor([1.0, -1.0, 0.5]).double().repeat(4, 1)
    spikes = network._channels(seen, state)
    assert spikes.shape == (4, 500, 6)
    assert set(spikes.unique().tolist()) == {0.0, 1.0}
    # On and off channels: 1 -> (.25, 0), -1 -> (0, .25), .5 -> (.125, 0); 2,000 draws each.
    rates = spikes.mean((0, 1))
    assert rates.tolist() == pytest.approx([0.25, 0, 0.125, 0, 0.25, 0], abs=0.03)
    assert torch.equal(network._channels(seen, state), spikes)
    older = state | {"age": state["age"] + 1}
    assert not torch.equal(network._channels(seen, older), spikes)
    assert not torch.equal(spikes[0], spikes[1])
    population = {name: entry.expand(3, *entry.shape) for name, entry in state.items()}
    assert torch.equal(network._channels(seen.expand(3, 4, 3), population), spikes.expand(3, *spikes.shape))


def test_a_lifetime_that_starts_has_noise_of_its_own() -> None:
    case = make_case(ALL["units_poisson"], start_rate=0)
    start = torch.tensor([False, True, False, False, False])
    _, state = case.network.step(case.params, case.xs[0], case.feedbacks.at(0), case.state, start)
    assert (state["key"] != case.state["key"]).tolist() == start.tolist()
    assert state["age"].tolist() == [1] * 5


def test_numbers_of_steps_are_uniform_and_independent() -> None:
    keys = torch.arange(200)
    numbers: Tensor = step_numbers(keys, torch.zeros_like(keys), 0, (50,))
    following = step_numbers(keys, torch.ones_like(keys), 0, (50,))
    assert numbers.mean().item() == pytest.approx(0.5, abs=0.01)
    assert numbers.var().item() == pytest.approx(1 / 12, abs=0.003)
    assert torch.corrcoef(torch.stack([numbers.flatten(), following.flatten()]))[0, 1].abs().item() < 0.03
    assert torch.equal(step_numbers(keys.expand(3, 200), torch.zeros(3, 200, dtype=torch.int64), 0, (50,))[2], numbers)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"hidden_size": 0}, "there are no units: give hidden_size 1 or more, or a readout"),
        ({"hidden_size": 0, "readout": {}, "recurrent": {}}, "recurrent synapses need hidden units"),
        ({"hidden_size": 0, "readout": {}, "input": {"rule": "oja"}}, "input synapses need hidden units"),
        ({"coding": "poisson", "input_rate": 0.6, "step_size": 2}, r"at most 1, got 0\.6 a ms \* 2 ms = 1\.2"),
        (
            {"input": {"term": "oja", "modulator": "reward"}},
            "rule 'fixed' weights do not change, so term, modulator would",
        ),
        (
            {"readout": {"rule": "stdp", "efference_copy": True}},
            "efference_copy needs a rule that waits for the reward",
        ),
        ({"branches": 2, "input": {"rule": "abcd"}}, "normalise would count the synapses that are on a unit's other"),
        (
            {"hidden_size": 0, "readout": {}, "neuron": "lif", "branches": 2},
            "neuron, branches: there are no hidden units",
        ),
        ({"readout": {"scale": {"granularity": "neuron", "low": 1, "high": 1}}}, "use granularity scalar, got neuron"),
        ({"neuron": "lif2"}, r"neuron: unknown neuron 'lif2'\. Did you mean 'lif'"),
        (
            {"neuron": {"name": "lif", "tau": -1, "treshold": 3}},
            r"(?s)neuron\.tau: must be greater .* got -1.*neuron\.treshold: .*Did you mean 'threshold'",
        ),
        ({"readout": {"term": {"name": "stdp_pair", "tau_plus": 0}}}, r"readout\.term\.tau_plus: must be"),
        ({"readout": {"neuron": {"tau": 3}}}, r"readout\.neuron: name is missing: use one of"),
        (
            {"neuron": "lif", "competition": "k_cap"},
            "competition ranks rates, and the spikes of neuron 'lif' are 0 or 1",
        ),
        (
            {"readout": {"competition": "winner_take_all"}},
            r"readout\.competition ranks rates, .* of readout\.neuron 'lif'",
        ),
        ({"competition": {"name": "k_cap", "k": 48}}, "all of 48 units would win where 48 do; use 49 units or more"),
        (
            {"competition": {"name": "neighbourhood", "columns": 7}},
            r"rows of 7 units \(columns\) do not make up 48 units",
        ),
        ({"competition": "k_caps"}, r"competition: unknown competition 'k_caps'\. Did you mean 'k_cap'"),
        (
            {"competition": {"name": "k_cap", "winner": "distance"}, "branches": 2},
            "distance needs units whose input is the sum of their synapses'",
        ),
        ({"hidden_size": 0, "readout": {}, "competition": "k_cap"}, "competition: there are no hidden units"),
        ({"input": {"trace_start": "weight"}}, "under the rule 'fixed' there is no trace to start at the weights"),
        ({"reset": {"eligibility": "trial"}}, "unknown state entry in reset 'eligibility'"),
    ],
)
def test_what_cannot_be_is_refused(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        units(config)


def test_what_a_unit_releases_passes_short_term_plasticity_and_then_kinetics() -> None:
    """Against the parts themselves, spike by spike, for input that reaches a linear unit."""
    markram = {"name": "markram", "utilisation": 0.5, "tau_facilitation": 50.0, "tau_depression": 800.0}
    between = {"short_term": markram, "kinetics": {"name": "exponential", "tau_synapse": 4.0}, "weight": constant(2.0)}
    config = {"neuron": "linear", "hidden_size": 1, "inputs": "features", "substeps": 3, "input": between}
    network = units(config, inputs=6)
    parts = SHORT_TERM["markram"](1.0, **{name: value for name, value in markram.items() if name != "name"})  # type: ignore[arg-type]
    kinetics = KINETICS["exponential"](1.0, tau_synapse=4.0)
    numbers = [{name: one.value.double() for name, one in part.numbers().items()} for part in (parts, kinetics)]
    state = network.initial_state(1)
    seen = [{"facilitation": torch.zeros(1, 1), "resources": torch.ones(1, 1)}, {"conductance": torch.zeros(1, 1)}]
    params = dict(network.named_parameters())
    for value in (1.0, 0.0, 1.0):
        x = torch.tensor([[value, 0, 0, 0, 0, 0]], dtype=torch.float64)
        with torch.no_grad():
            features, state = network.step(params, x, quiet(), state, NEVER)
        for _ in range(3):
            released, seen[0] = parts.step(numbers[0], x[:, :1], seen[0])
            arrived, seen[1] = kinetics.step(numbers[1], released, seen[1])
        assert features.item() == pytest.approx(2 * arrived.item(), abs=1e-12)
        assert state["resources.input"].item() == pytest.approx(seen[0]["resources"].item(), abs=1e-12)
    assert arrived.item() > 0


def test_a_unit_with_two_branches_computes_exclusive_or() -> None:
    """Each branch passes on one of the two corners: weights (1, -1) and (-1, 1), each input on both branches."""
    dendrites = {"name": "rectified", "branch_threshold": 0.0}
    config = {"neuron": "linear", "hidden_size": 1, "inputs": "features", "branches": 2, "dendrites": dendrites}
    network = units(config, inputs=7)
    params = dict(network.named_parameters())
    mask = params["synapses.input.branch"]
    assert mask.shape == (2, 2)
    assert mask.sum(0).tolist() == [1.0, 1.0]  # drawn: each input on one branch
    params["synapses.input.branch"] = torch.ones(2, 2, dtype=torch.float64)
    params["synapses.input.weight"] = torch.tensor([[1.0, -1.0], [-1.0, 1.0]], dtype=torch.float64)
    answers = []
    for a, b in ((0, 0), (0, 1), (1, 0), (1, 1)):
        x = torch.tensor([[a, b, 0, 0, 0, 0, 0]], dtype=torch.float64)
        with torch.no_grad():
            answers.append(network.step(params, x, quiet(), network.initial_state(1), NEVER)[0].item())
    assert answers == [0.0, 1.0, 1.0, 0.0]


@pytest.mark.parametrize("waits", [False, True])
def test_modulators_read_the_mean_of_a_steps_spikes(waits: bool) -> None:
    """Four substeps, of which the last has no spike: `M = tanh(w y)` of the mean, not of the last."""
    signals = {"name": "channels", "channels": ["reward", "learned_signal"]} if waits else "simple"
    rule = {"rule": "stdp", "modulator": signals, "bound": "none", "weight": constant(1.0)}
    neuron = {"name": "lif", "threshold": 0.5, "tau": 0.1, "refractory": 0.0}
    config = {"neuron": neuron, "hidden_size": 1, "inputs": "features", "substeps": 4, "input": rule}
    network = units(config, inputs=6)
    course = torch.tensor([[[1.0], [1.0], [0.0], [0.0]]], dtype=torch.float64)
    assert network.step_output("hidden", course).tolist() == [[0.5]]
    assert network._keeps_output("input") == waits
    assert ("output.input" in network.state_entries()) == waits


def test_what_resets_with_trials_of_one_step() -> None:
    """The readout's eligibility is used by the reward before it is reset, so that something is left to associate."""
    readout = {"readout": {"rule": "r_stdp"}, "hidden_size": 0, "reset": {"eligibility.readout": "trial"}}
    network = make_network({"kind": "plastic_units", **readout}, 6, 2, steps_per_trial=1)
    assert network.state_entries()["eligibility.readout"].reset == "trial"
    recurrent = {"hidden_size": 2, "recurrent": {"rule": "oja"}, "reset": {"activity.hidden": "trial"}}
    with pytest.raises(ConfigError, match="trials have one step"):
        make_network({"kind": "plastic_units", **recurrent}, 6, 2, steps_per_trial=1)


@pytest.mark.parametrize("efference_copy", [False, True])
def test_after_a_freeze_no_reward_meets_the_change_of_another_step(efference_copy: bool) -> None:
    """One input, one unit for each action, D = y x, G = reward: a change waits one step for its own reward, or none."""
    readout = {
        "rule": "reward_gated",
        "neuron": "linear",
        "population": 1,
        "weight": constant(1.0),
        "alpha": constant(1.0),
        "eta": constant(0.5),
        "bound": "none",
        "modulator": {"name": "reward", "reward_average_rate": 0.0},
        "efference_copy": efference_copy,
    }
    network = units({"hidden_size": 0, "inputs": "features", "readout": readout}, inputs=6)
    params = {name: value.detach() for name, value in network.named_parameters()}

    def step(state: dict[str, Tensor], x: float, reward: float) -> dict[str, Tensor]:
        columns = torch.tensor([[x, 0, 0, 0, 0, 0]], dtype=torch.float64)
        return network.step(params, columns, quiet(reward), state, NEVER)[1]

    before = step(step(network.initial_state(1), 1.0, 0.0), 2.0, 1.0)
    assert before["trace.readout"][0, 0].tolist() == [0.5]  # y x = 1 of the first step
    assert before["change.readout"][0, 0].tolist() == [6.0]  # y x = 1.5 * 2 * 2 of the second
    with network.freeze_plasticity():
        frozen = step(step(before, 3.0, 1.0), 3.0, 1.0)
    assert torch.equal(frozen["trace.readout"], before["trace.readout"])
    assert not frozen["change.readout"].any()
    # The reward of the last frozen step comes, and meets nothing; that of the first step after it meets its own change.
    thawed = step(frozen, 1.0, 10.0)
    assert torch.equal(thawed["trace.readout"], before["trace.readout"])
    after = step(thawed, 1.0, 1.0)
    assert after["trace.readout"][0, 0].tolist() == [0.5 + 0.5 * 1.5]


def test_an_eligibility_is_held_by_a_freeze_and_gated_after_it() -> None:
    """E is a memory of earlier steps, which any later reward gates: time stands still for it."""
    rule = {"rule": "reward_gated_retroactive", "bound": "none"}
    case = make_case({"kind": "plastic_units", "recurrent": rule})
    network = case.network
    none = torch.zeros(5, dtype=torch.bool)
    with network.freeze_plasticity():
        _, frozen = network.step(case.params, case.xs[0], case.feedbacks.at(1)._replace(valid=~none), case.state, none)
    feedback = case.feedbacks.at(2)._replace(valid=~none, trial_start=none)
    _, thawed = network.step(case.params, case.xs[1], feedback, frozen, none)
    eta = case.params["synapses.recurrent.eta"]
    gate = eta * (feedback.reward - case.state["reward_average.recurrent"]).reshape(-1, 1, 1)
    expected = case.state["trace.recurrent"] + gate * case.state["eligibility.recurrent"]
    torch.testing.assert_close(thawed["trace.recurrent"], expected, atol=1e-12, rtol=0)
    kept = (1 - case.params["synapses.recurrent.eta_eligibility"]) * case.state["eligibility.recurrent"]
    torch.testing.assert_close(thawed["eligibility.recurrent"], kept, atol=1e-12, rtol=0)


@pytest.mark.parametrize(
    ("added", "message"),
    [
        ({"structure": "sparse"}, "one_to_one synapses stay as they are: leave structure and homeostasis out"),
        ({"homeostasis": "synaptic_scaling"}, "one_to_one synapses stay as they are: leave structure and homeostasis"),
        ({"rule": "oja"}, "one_to_one synapses stay as they are: use rule: fixed, and a weight with trainable: false"),
    ],
)
def test_one_to_one_synapses_are_all_there_and_stay(added: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        units({"input": {"one_to_one": True, "weight": constant(2.0), **added}})
    network = units({"input": {"one_to_one": True, "weight": constant(2.0)}, "hidden_size": 3, "inputs": "features"})
    assert torch.equal(network.get_parameter("synapses.input.weight"), 2 * torch.eye(3).double())


def test_units_without_a_bias_are_those_whose_bias_is_zero() -> None:
    config = {"kind": "plastic_units", "recurrent": {"rule": "oja"}}
    case, without = make_case(config), make_case(config | {"bias": False})
    assert set(case.params) - set(without.params) == {"units.hidden.bias"}
    params = case.params | {"units.hidden.bias": torch.zeros_like(case.params["units.hidden.bias"])}
    run = case.xs, case.feedbacks, case.state, case.starts
    expected, _ = case.network.unroll(params, *run)
    features, _ = without.network.unroll({name: params[name] for name in without.params}, *run)
    assert torch.equal(features, expected)
    with pytest.raises(ConfigError, match="bias: there are no hidden units"):
        units({"hidden_size": 0, "bias": False, "readout": {"rule": "r_stdp"}})


def test_heterosynaptic_plasticity_of_fixed_weights_would_do_nothing() -> None:
    with pytest.raises(ConfigError, match="weights do not change, so homeostasis would do nothing"):
        units({"input": {"homeostasis": "heterosynaptic"}})
    assert units({"input": {"homeostasis": "synaptic_scaling"}}).is_plastic


@pytest.mark.parametrize("rule", [{"rule": "sorn"}, {"rule": "stdp", "normalise": "incoming_l2"}])
def test_gradients_of_units_that_are_silent_for_long_are_finite(rule: dict[str, Any]) -> None:
    """Traces that stay 0 are normalised in every step; with 12 decimal places lost in each, gradients were NaN."""
    weak = {"granularity": "synapse", "low": -0.01, "high": 0.01}
    network = units({"neuron": "lif", "hidden_size": 3, "recurrent": rule, "input": {"weight": weak}})
    steps, no = 40, torch.zeros(40, 1, dtype=torch.bool)
    xs = torch.ones(steps, 1, INPUTS, dtype=torch.float64)
    told = Feedback(torch.zeros(steps, 1, ACTIONS).double(), torch.zeros(steps, 1).double(), no, ~no)
    params = dict(network.named_parameters())
    features, state = network.unroll(params, xs, told, network.initial_state(1), no)
    assert not features.any()
    total = features.sum() + state["trace.recurrent"].sum() + state["voltage.hidden"].sum()
    trained = [own for own in params.values() if own.requires_grad]
    gradients = [one for one in torch.autograd.grad(total, trained, allow_unused=True) if one is not None]
    assert all(one.isfinite().all() for one in gradients)
    assert any(one.any() for one in gradients)
