"""The plastic feed-forward network: start weights, what it sees, the order of updates, the readout."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from plastic_rl import networks
from plastic_rl.errors import ConfigError
from plastic_rl.feedback import FeedbackLayout
from plastic_rl.networks import Feedback, PlasticFeedForward, State
from plastic_rl.networks.start_weights import next_keys, normal_weights
from tests.networks.cases import make_network

INPUTS, ACTIONS = 9, 2
FEATURES = INPUTS - ACTIONS - 3


def build(seed: int = 0, **config: Any) -> PlasticFeedForward:
    network = make_network(
        {"kind": "plastic_feed_forward", **config}, INPUTS, ACTIONS, torch.Generator().manual_seed(seed)
    )
    assert isinstance(network, PlasticFeedForward)
    return network


def feedback(batch: int, reward: float = 0.0, first: bool = False) -> Feedback:
    starts = torch.full((batch,), first)
    return Feedback(torch.zeros(batch, ACTIONS), torch.full((batch,), reward), starts, ~starts)


def live(network: PlasticFeedForward, xs: Tensor, state: State, rewards: list[float] | None = None) -> list[State]:
    """States after each step of new lifetimes."""
    states = []
    params = dict(network.named_parameters())
    with torch.no_grad():
        for step, x in enumerate(xs):
            starts = torch.full((x.shape[0],), step == 0)
            given = feedback(x.shape[0], 0.0 if rewards is None else rewards[step], step == 0)
            _, state = network.step(params, x, given, state, starts)
            states.append(state)
    return states


def test_random_start_weights_follow_from_the_key_and_change_with_each_lifetime() -> None:
    network = build(hidden_size=[5], start_scale=0.5)
    assert not [name for name, _ in network.named_parameters() if "weight" in name]
    state = network.initial_state(2, torch.Generator().manual_seed(3))
    torch.testing.assert_close(state["trace.1"], 0.5 * normal_weights(state["key"], 1, (ACTIONS, 6)))
    with network.freeze_plasticity():
        params = dict(network.named_parameters())
        starts = torch.tensor([True, False])
        _, after = network.step(params, torch.zeros(2, INPUTS), feedback(2), state, starts)
    keys = next_keys(state["key"], starts)
    assert torch.equal(after["key"], keys)
    torch.testing.assert_close(after["trace.0"], 0.5 * normal_weights(keys, 0, (5, FEATURES + 1)))
    assert torch.equal(after["trace.0"][1], state["trace.0"][1])
    assert not torch.equal(after["trace.0"][0], state["trace.0"][0])


def test_start_weights_have_the_scale_of_the_fan_in() -> None:
    state = build(hidden_size=[400], inputs="all", bias=False).initial_state(20, torch.Generator().manual_seed(0))
    assert state["trace.0"].std().item() == pytest.approx(INPUTS**-0.5, rel=0.02)
    assert state["trace.1"].std().item() == pytest.approx(400**-0.5, rel=0.02)
    trained = build(hidden_size=[400], inputs="all", bias=False, start="trained")
    assert dict(trained.named_parameters())["layers.0.weight"].std().item() == pytest.approx(INPUTS**-0.5, rel=0.05)


def test_a_population_that_shares_keys_shares_start_weights() -> None:
    network = build()
    state = network.initial_state(3, torch.Generator().manual_seed(0))
    together = {name: entry.expand(4, *entry.shape) for name, entry in state.items()}
    params = {name: torch.stack([value] * 4) for name, value in network.named_parameters()}
    starts = torch.ones(4, 3, dtype=torch.bool)
    given = Feedback(torch.zeros(4, 3, ACTIONS), torch.zeros(4, 3), starts, ~starts)
    with network.freeze_plasticity():
        _, after = network.step(params, torch.zeros(4, 3, INPUTS), given, together, starts)
    for name in ("trace.0", "trace.1", "trace.2"):
        assert torch.equal(after[name][0], after[name][3])
        assert not torch.equal(after[name][0, 0], after[name][0, 1])


def test_one_abcd_step_by_hand() -> None:
    # No hidden layer, no bias, one action's row of two inputs: h = (1, 2), W = (.5, -.25): y = tanh(0) = 0.
    # A = 0, B = 1, C = 3, D = .5, eta .1: dW = .1 (x + .5) = (.15, .25): W = (.65, 0), divided by .65.
    network = make_network(
        {
            "kind": "plastic_feed_forward",
            "hidden_size": [],
            "bias": False,
            "inputs": "features",
            "coefficients": {"granularity": "scalar", "low": 1.0, "high": 1.0},
        },
        6,
        1,
    )
    params: dict[str, Tensor] = dict(network.named_parameters())
    for name, value in (("a", 0.0), ("b", 1.0), ("c", 3.0), ("d", 0.5)):
        params[f"layers.0.coefficient_{name}"] = torch.full((1, 1), value)
    state = {"trace.0": torch.tensor([[[0.5, -0.25]]]), "key": torch.tensor([1])}
    x = torch.tensor([[1.0, 2.0, 9.0, 9.0, 9.0, 9.0]])
    with torch.no_grad():
        features, after = network.step(params, x, feedback(1), state, torch.tensor([False]))
    assert features.item() == 0.0
    torch.testing.assert_close(after["trace.0"], torch.tensor([[[1.0, 0.0]]]))


def test_features_alone_are_seen_unless_all_are_asked_for() -> None:
    x = torch.randn(1, INPUTS, generator=torch.Generator().manual_seed(0))
    other = x.clone()
    other[:, FEATURES:] += 1.0
    for inputs, blind in (("features", True), ("all", False)):
        network = build(inputs=inputs)
        state = network.initial_state(1, torch.Generator().manual_seed(1))
        one, two = live(network, x[None], state)[0], live(network, other[None], state)[0]
        assert torch.equal(one["trace.1"], two["trace.1"]) == blind


def test_the_bias_lets_a_network_act_that_sees_nothing() -> None:
    bandit = ACTIONS + 3
    with pytest.raises(ConfigError, match=r"inputs=all or network\.bias=true"):
        make_network({"kind": "plastic_feed_forward", "bias": False}, bandit, ACTIONS)
    network = make_network({"kind": "plastic_feed_forward", "hidden_size": []}, bandit, ACTIONS)
    state = {"trace.0": torch.tensor([[[0.3], [-0.2]]]), "key": torch.tensor([1])}
    params = dict(network.named_parameters())
    features, _ = network.step(params, torch.ones(1, bandit), feedback(1), state, torch.tensor([False]))
    torch.testing.assert_close(features, torch.tensor([[0.3, -0.2]]).tanh())


def test_labels_are_not_mistaken_for_features() -> None:
    layout = FeedbackLayout.after(3, ACTIONS, ACTIONS)
    network = networks.make_network({"kind": "plastic_feed_forward"}, layout.stop, layout)
    assert isinstance(network, PlasticFeedForward)
    assert network.seen == 3
    assert network.output_size == ACTIONS


def test_a_reward_gated_update_waits_for_the_reward_and_reaches_every_layer() -> None:
    network = build(hidden_size=[3], rule="reward_gated", start="trained", bias=False, bound="none")
    params = dict(network.named_parameters())
    x = torch.randn(3, 1, INPUTS, generator=torch.Generator().manual_seed(5))
    first, second, third = live(network, x, network.initial_state(1), rewards=[9.0, 2.0, 0.0])
    assert not first["trace.0"].any()
    # Both updates have eta 1; the average is 0, then .1 * 2.
    h = [x[:, 0, :FEATURES]]
    for layer in range(2):
        h.append(torch.tanh(h[-1] @ params[f"layers.{layer}.weight"].mT).detach())
    for layer in range(2):
        outer = torch.outer(h[layer + 1][0], h[layer][0])
        torch.testing.assert_close(second[f"trace.{layer}"][0], 2 * outer)
        torch.testing.assert_close(
            second[f"activity.{layer}"][0], h[layer][1] if layer == 0 else second["activity.1"][0]
        )
        post, pre = second[f"activity.{layer + 1}"][0], second[f"activity.{layer}"][0]
        torch.testing.assert_close(third[f"trace.{layer}"][0], 2 * outer - 0.2 * torch.outer(post, pre))


def test_the_fixed_rule_is_a_plain_network_without_state() -> None:
    network = build(rule="fixed", start="trained", hidden_size=[4])
    assert network.state_entries() == {}
    assert not network.is_plastic
    params = dict(network.named_parameters())
    x = torch.randn(5, INPUTS, generator=torch.Generator().manual_seed(0))
    features, state = network.step(params, x, feedback(5), {}, torch.ones(5, dtype=torch.bool))
    one = torch.ones(5, 1)
    hidden = torch.tanh(torch.cat([x[:, :FEATURES], one], 1) @ params["layers.0.weight"].mT)
    torch.testing.assert_close(features, torch.tanh(torch.cat([hidden, one], 1) @ params["layers.1.weight"].mT))
    assert state == {}


def test_readouts() -> None:
    features = torch.tensor([[0.5, -0.5], [0.2, 0.2]])
    softmax = build(readout_scale=3.0)
    params = dict(softmax.named_parameters())
    torch.testing.assert_close(softmax.readout(params, features), 3.0 * features)
    population = {"readout_scale": torch.tensor([[1.0], [2.0]])}
    both = softmax.readout(population, torch.stack([features, features]))
    torch.testing.assert_close(both, torch.stack([features, 2 * features]))
    greedy = build(readout="greedy").readout({}, features)
    assert torch.softmax(greedy, -1).tolist() == [[1.0, 0.0], [0.5, 0.5]]
    # Outputs that saturate to 1 in float32 still differ.
    network = build(readout="greedy", hidden_size=[], bias=False)
    state = {"trace.0": torch.tensor([[[30.0] * FEATURES, [40.0] * FEATURES]]), "key": torch.tensor([1])}
    with network.freeze_plasticity():
        step = network.step(
            dict(network.named_parameters()), torch.ones(1, INPUTS), feedback(1), state, torch.tensor([False])
        )
    assert torch.softmax(network.readout({}, step[0]), -1).tolist() == [[0.0, 1.0]]
    probabilities = torch.log_softmax(greedy, -1)
    assert bool((probabilities.exp() * probabilities).isfinite().all())
    assert build(readout="mean").readout({}, features) is features


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"rule": "fixed"}, "use start: trained"),
        ({"alpha": {"low": 0.5, "high": 0.5}}, "leave alpha out"),
        ({"hidden_size": [3, 0]}, "1 unit or more"),
        ({"rule": "abdc"}, "Did you mean 'abcd'"),
    ],
)
def test_configs_that_make_no_sense_are_refused(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(**config)


def test_abcd_has_five_numbers_for_each_synapse_with_biases() -> None:
    # (4 + 1) 8 + (8 + 1) 8 + (8 + 1) 2 = 130 synapses; with eta for each, as published, 650 numbers.
    network = build(hidden_size=[8, 8])
    genes = sum(parameter.numel() for name, parameter in network.named_parameters() if parameter.requires_grad)
    assert genes == 650 + 1
    shared = build(hidden_size=[8, 8], coefficients={"granularity": "scalar"}, eta={"granularity": "scalar"})
    genes = sum(parameter.numel() for name, parameter in shared.named_parameters() if parameter.requires_grad)
    assert genes == 3 * 5 + 1
