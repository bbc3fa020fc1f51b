"""Turnover of hidden units in training: who goes and when, what a new unit starts from, and that nobody hears it."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from plastic_rl.algorithms import PlasticA2C
from plastic_rl.algorithms.unit_turnover import UnitTurnover
from plastic_rl.errors import CheckpointError, ConfigError
from plastic_rl.networks.hidden_layers import UnitAxis
from tests.algorithms.a2c_cases import BANDIT, equal, make, params_of

SIZE = 6
_SYNAPSE = {"granularity": "synapse", "low": -0.3, "high": 0.3}
_STAYS = {"granularity": "synapse", "low": 1.0, "high": 1.0, "trainable": False}
NETWORKS: dict[str, dict[str, Any]] = {
    "plastic_rnn": {"kind": "plastic_rnn", "rule": "backpropamine_fan_out", "hidden_size": SIZE},
    "plastic_rnn_channels": {
        "kind": "plastic_rnn",
        "rule": "hard_clip",
        "modulator": {"name": "channels", "channels": ["learned_signal"], "attention": True},
        "hidden_size": SIZE,
    },
    "plastic_units": {
        "kind": "plastic_units",
        "hidden_size": SIZE,
        "branches": 2,
        "dendrites": "sigmoid",
        "recurrent": {"rule": "differentiable_plasticity"},
        "readout": {"rule": "reward_gated", "neuron": "linear", "alpha": _SYNAPSE},
    },
    "plastic_units_head": {
        "kind": "plastic_units",
        "hidden_size": SIZE,
        "neuron": {"name": "lif", "threshold": 0.5, "tau": 3.0, "refractory": 1.0},
        "substeps": 4,
    },
    "feed_forward": {"kind": "plastic_feed_forward", "start": "trained", "rule": "oja", "hidden_size": [SIZE, 4]},
    "rnn": {"kind": "rnn", "hidden_size": SIZE},
    "gru": {"kind": "gru", "hidden_size": SIZE},
    "lstm": {"kind": "lstm", "hidden_size": SIZE},
}
CERTAIN = {"rate": 1e-9, "maturity": 10**6}
everywhere = pytest.mark.parametrize("name", NETWORKS)


def agent_with(name: str = "plastic_rnn", turnover: dict[str, Any] | None = None, **kwargs: Any) -> PlasticA2C:
    settings = {"unit_turnover": CERTAIN if turnover is None else turnover, "n_steps": 5, **kwargs}
    return make(policy="PlasticPolicy", policy_kwargs={"network": NETWORKS[name]}, **settings)


def change_of(agent: PlasticA2C) -> UnitTurnover:
    change = agent._changes["unit_turnover"]
    assert isinstance(change, UnitTurnover)
    return change


def answers(agent: PlasticA2C) -> tuple[Tensor, Tensor]:
    """Action preferences and values over a rollout of whole lifetimes."""
    policy, generator = agent.policy, torch.Generator().manual_seed(7)
    observations = torch.randn(12, 3, policy.input_size, generator=generator)
    starts = torch.zeros(12, 3, dtype=torch.bool)
    starts[0] = True
    params = policy.parameters_by_name()
    with torch.no_grad():
        state = policy.network.initial_state(3, torch.Generator().manual_seed(8))
        features, _ = policy._unrolled(params, observations, state, starts, None, with_activity=False)
        head = policy.head(params, features)
        return head, policy._value(params, features, head)


@everywhere
def test_what_is_put_out_does_not_depend_on_a_new_unit(name: str) -> None:
    """Whatever its own weights are: in whole lifetimes, with plastic synapses, to the last action and value."""
    agent = agent_with(name)
    agent.learn(20)
    change = change_of(agent)
    chosen = torch.tensor([False, True, False, False, True, False])
    layer = next(iter(change.layers.values()))
    before = answers(agent)
    change.replace(layer, chosen)
    replaced = answers(agent)
    assert not torch.allclose(replaced[0], before[0], atol=1e-5)
    generator = torch.Generator().manual_seed(9)
    params: dict[str, Any] = agent.policy.parameters_by_name()
    with torch.no_grad():
        # Gains, rates and weights on the way in; what it lends to a modulator's channels is heard by nobody either.
        for one in layer.own:
            where = one.of(chosen, params[one.parameter])
            noise = torch.rand(params[one.parameter].shape, generator=generator)
            params[one.parameter].copy_(torch.where(where, noise, params[one.parameter]))
    for one, other in zip(answers(agent), replaced, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=0)
    # So a unit that nobody heard is replaced unnoticed.
    change.replace(layer, chosen)
    for one, other in zip(answers(agent), replaced, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=0)


@everywhere
def test_own_weights_are_drawn_as_at_the_start_and_outgoing_ones_are_zero(name: str) -> None:
    agent = agent_with(name)
    agent.learn(40)
    change = change_of(agent)
    layer = next(iter(change.layers.values()))
    chosen = torch.arange(SIZE) == 2
    before = params_of(agent)
    averages = {
        parameter: {key: value.clone() for key, value in state.items()}
        for parameter, state in agent.policy.optimizer.state.items()
    }
    drawn = change.generator.get_state()
    change.replace(layer, chosen)
    fresh = agent.policy.network.rebuilt(torch.Generator().set_state(drawn)).state_dict()
    touched: dict[str, Tensor] = {}
    for outgoing, axes in ((False, layer.own), (True, layer.outgoing)):
        for one in axes:
            where = one.of(chosen, before[one.parameter]).expand_as(before[one.parameter])
            expected = 0.0 if outgoing else fresh[one.parameter.removeprefix("network.")]
            before[one.parameter] = torch.where(where, expected, before[one.parameter])
            touched[one.parameter] = touched.get(one.parameter, torch.zeros_like(where)) | where
    assert equal(params_of(agent), before)
    named = {parameter: own for own, parameter in agent.policy.named_parameters()}
    for parameter, state in agent.policy.optimizer.state.items():
        where = touched.get(named[parameter])
        for key in ("exp_avg", "exp_avg_sq"):
            old = averages[parameter][key]
            assert torch.equal(state[key], old if where is None else torch.where(where, 0.0, old))
        assert torch.equal(state["step"], averages[parameter]["step"])


def test_which_numbers_belong_to_a_unit() -> None:
    found = {
        name: {
            "own": {one.parameter.removeprefix("network."): (one.axis, one.units) for one in layer.own},
            "outgoing": {one.parameter.removeprefix("network."): (one.axis, one.units) for one in layer.outgoing},
        }
        for name in NETWORKS
        for layer in agent_with(name).policy.hidden_layers()[:1]
    }
    each = tuple(range(SIZE))
    assert found["rnn"] == {
        "own": {"input_weight": (0, each), "recurrent_weight": (0, each)}
        | dict.fromkeys(("input_bias", "recurrent_bias"), (0, each)),
        "outgoing": {"recurrent_weight": (1, each), "action_head.weight": (1, each), "value_head.weight": (1, each)},
    }
    assert found["gru"]["own"]["input_weight"] == (0, each * 3)
    assert found["lstm"]["own"]["recurrent_bias"] == (0, each * 4)
    assert found["lstm"]["outgoing"]["recurrent_weight"] == (1, each)
    # The last column is the weight of the bias.
    assert found["feed_forward"]["outgoing"]["layers.1.weight"] == (1, (*each, -1))
    assert found["feed_forward"]["own"]["layers.0.weight"] == (0, each)
    twice = tuple(unit for unit in each for _ in range(2))
    assert found["plastic_units"]["own"]["synapses.input.weight"] == (0, twice)
    assert found["plastic_units"]["outgoing"]["synapses.readout.alpha"] == (1, each)
    assert "synapses.input.branch" not in found["plastic_units"]["own"]
    rnn = found["plastic_rnn"]
    assert {"modulator_weight", "alpha", "recurrent_weight"} < set(rnn["outgoing"])
    assert {"modulator_fan_out", "modulator_offset", "alpha", "input_bias"} < set(rnn["own"])
    assert "modulator_weight" not in rnn["own"]


@everywhere
def test_networks_show_the_outputs_of_their_hidden_layers(name: str) -> None:
    agent = agent_with(name)
    network, seen = agent.policy.network, {}
    params = {key.removeprefix("network."): own for key, own in agent.policy.named_parameters()}
    x, no = torch.randn(3, network.input_size, generator=torch.Generator().manual_seed(3)), torch.zeros(3).bool()
    feedback = agent.policy.feedback(x, no)
    state = network.initial_state(3, torch.Generator().manual_seed(4))
    with torch.no_grad():
        with network.watched(seen.__setitem__):
            features, after = network.step(params, x, feedback, state, no)
        shown = dict(seen)
        network.step(params, 2 * x, feedback, state, no)
    assert all(torch.equal(seen[layer], output) for layer, output in shown.items())  # nobody watches any more
    layers = network.hidden_layers()
    shown = {layer: network.step_output(layer, course) for layer, course in shown.items()}
    assert all(shown[layer.name].shape == (3, layer.size) for layer in layers)
    for layer in layers:
        assert not layer.is_features or torch.equal(shown[layer.name], features)
    if name == "plastic_units":
        assert torch.equal(shown["hidden"], after["activity.hidden"])


def test_utility_is_the_running_mean_of_output_times_outgoing_weights() -> None:
    agent = agent_with("rnn", {"rate": 1e-6, "maturity": 10**6, "utility_rate": 0.25}, learning_rate=0.0)
    agent.learn(20)
    change, policy = change_of(agent), agent.policy
    expected = np.zeros(SIZE)
    for update in range(2):
        rollout, params = agent.rollout, policy.parameters_by_name()
        with torch.no_grad():
            run = params, rollout.observations, agent.state_before, rollout.episode_starts, rollout.recording
            features, _ = policy._unrolled(*run, with_activity=False)
        mean = features.abs().mean((0, 1)).double()
        heard = sum(
            params[name].detach().abs().sum(0).double()
            for name in ("network.recurrent_weight", "action_head.weight", "value_head.weight")
        )
        expected = 0.75 * expected + 0.25 * (mean * heard).numpy()
        assert change.utility["hidden"].numpy() == pytest.approx(expected, rel=1e-5)
        assert change.age["hidden"].tolist() == [update + 1] * SIZE
        agent.learn(20, reset_num_timesteps=False)


@pytest.mark.parametrize(("rate", "maturity"), [(Fraction(1, 10), 3), (Fraction(1, 7), 0), (Fraction(1), 2)])
def test_as_many_are_replaced_as_the_rate_says(rate: Fraction, maturity: int) -> None:
    agent = agent_with("rnn", {"rate": float(rate), "maturity": maturity})
    change = change_of(agent)
    age, due, total = [0] * SIZE, Fraction(0), 0
    for _ in range(25):
        change.utility["hidden"] = torch.rand(SIZE, dtype=torch.float64)
        utility = change.utility["hidden"].tolist()
        replaced = change.after_step(0.5)["replaced_units"] - total
        age = [one + 1 for one in age]
        mature = [unit for unit in range(SIZE) if age[unit] > maturity]
        due += rate * len(mature)
        count = min(int(due), len(mature))
        due -= count
        gone = sorted(mature, key=lambda unit: utility[unit])[:count]
        assert replaced == count
        assert 0 <= change.due["hidden"] == pytest.approx(float(due), abs=1e-8)
        age = [0 if unit in gone else one for unit, one in enumerate(age)]
        assert change.age["hidden"].tolist() == age
        assert not change.utility["hidden"][gone].any()
        total += count
    assert total > 0


def test_each_layer_has_units_to_be_replaced_of_its_own() -> None:
    change = change_of(agent_with("feed_forward", {"rate": 0.25, "maturity": 0}))
    assert {name: layer.size for name, layer in change.layers.items()} == {"0": SIZE, "1": 4}
    # 6/4 and 4/4 a update: 1 and 1, then 2 and 1.
    assert [change.after_step(0.5)["replaced_units"] for _ in range(4)] == [2, 5, 7, 10]


@pytest.mark.parametrize("name", ["plastic_rnn", "feed_forward"])
def test_until_a_unit_goes_nothing_is_changed(name: str) -> None:
    turning, plain = agent_with(name), agent_with(name)
    plain._changes = {}
    for agent in (turning, plain):
        agent.learn(60)
    assert equal(params_of(turning), params_of(plain))
    assert torch.equal(turning._initial.get_state(), plain._initial.get_state())
    assert bool((change_of(turning).utility[next(iter(change_of(turning).layers))] > 0).all())


@pytest.mark.parametrize("name", ["plastic_rnn", "feed_forward", "plastic_units_head"])
def test_a_resumed_run_gives_the_same_bytes(tmp_path: Path, name: str) -> None:
    agent = agent_with(name, {"rate": 0.05, "maturity": 1})
    agent.learn(5 * 20)
    agent.save(tmp_path / "agent.zip")
    loaded = PlasticA2C.load(tmp_path / "agent.zip", env=BANDIT, force_reset=False)
    for one in (agent, loaded):
        one.learn(6 * 20, reset_num_timesteps=False)
    assert equal(params_of(agent), params_of(loaded))
    for layer in change_of(agent).layers:
        assert torch.equal(change_of(agent).utility[layer], change_of(loaded).utility[layer])
        assert torch.equal(change_of(agent).age[layer], change_of(loaded).age[layer])
        assert change_of(agent).due[layer] == change_of(loaded).due[layer]
    assert min(int(age.min()) for age in change_of(agent).age.values()) < 11


def test_new_units_of_sparse_weights_are_sparse() -> None:
    agent = agent_with("rnn", {"rate": 1.0, "maturity": 0}, sparsity={"weights": ("network.*weight",), "density": 0.5})
    agent.learn(2 * 20)
    for own, mask in agent._changes["sparsity"].masks.items():  # type: ignore[attr-defined]
        assert not agent.policy.get_parameter(own).detach()[~mask].any()
    assert not agent.policy.get_parameter("action_head.weight").detach().any()


@pytest.mark.parametrize(
    "network",
    [
        {"kind": "rule_table", "hidden_size": 8, "cap": 3, "inputs": "all"},
        {"kind": "plastic_feed_forward"},
        {"kind": "plastic_feed_forward", "start": "trained", "hidden_size": []},
        {"kind": "plastic_units", "hidden_size": 0, "readout": {}},
        {"kind": "plastic_units", "readout": {"weight": {"granularity": "scalar", "low": 1, "high": 1}}},
        {"kind": "plastic_units", "readout": {"one_to_one": True, "weight": _STAYS, "neuron": "linear"}},
        {"kind": "plastic_units", "inhibitory": {"size": 3, "excitation": {"weight": _STAYS | {"low": 0.0}}}},
    ],
)
def test_networks_without_units_to_replace_are_refused(network: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"unit_turnover needs hidden units .* this {network['kind']} network has"):
        make(policy="PlasticPolicy", policy_kwargs={"network": network}, unit_turnover=CERTAIN)


def test_altered_utilities_are_refused() -> None:
    agent = agent_with("rnn")
    checkpoint = agent.learn(20).get_checkpoint()
    stored = checkpoint.documents["algorithm"]["unit_turnover"]["layers"]["hidden"]
    for key, value in (("utility", np.full(SIZE, np.nan)), ("age", np.full(SIZE, -1)), ("due", 1e6)):
        right, stored[key] = stored[key], value
        with pytest.raises(
            CheckpointError, match="must be finite utilities, ages of 0 or more and at most 6 units due"
        ):
            agent_with("rnn").set_checkpoint(checkpoint)
        stored[key] = right
    agent_with("rnn").set_checkpoint(checkpoint)
    # A run without turnover can go on with it.
    without = make(policy="PlasticPolicy", policy_kwargs={"network": NETWORKS["rnn"]}, n_steps=5).learn(20)
    begun = agent_with("rnn")
    begun.set_checkpoint(without.get_checkpoint())
    assert change_of(begun).age["hidden"].tolist() == [0] * SIZE


def test_sums_by_unit() -> None:
    value = torch.arange(8.0).reshape(2, 4)
    assert UnitAxis("weight", 1, (0, 1, 0, -1)).sums(2, value).tolist() == [0 + 4 + 2 + 6, 1 + 5]
    assert UnitAxis("bias", 0, (0, 1)).sums(2, torch.tensor([3.0, 4.0])).tolist() == [3.0, 4.0]
