"""Development and sleep: closed forms, and what a plain network does when it is led through the same steps by hand."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from plastic_rl.cli.parts import rule_text
from plastic_rl.cli.reference import reference
from plastic_rl.errors import ConfigError
from plastic_rl.feedback import Feedback
from plastic_rl.networks import PlasticNetwork, PlasticRNN, State
from plastic_rl.networks.phases import Phased
from plastic_rl.networks.spontaneous import PROCESSES
from plastic_rl.plasticity import make_part
from tests.networks.cases import ACTIONS, INPUTS, PHASES, make_case, make_network

FEATURES = INPUTS - ACTIONS - 3
KEYS = torch.arange(2000) * 12345 + 1
WHOLE = {"granularity": "scalar", "low": 1.0, "high": 1.0, "trainable": False}


def told(batch: int, *, start: bool, reward: float = 0.0, trial: bool = False) -> Feedback:
    yes = torch.ones(batch, dtype=torch.bool)
    action = torch.eye(ACTIONS, dtype=torch.float64)[torch.arange(batch) % ACTIONS]
    rewards = torch.full((batch,), reward, dtype=torch.float64)
    return Feedback(action, rewards, yes & (start or trial), yes & (not start))


def build(config: dict[str, Any], units: int = 6, seed: int = 0, **others: Any) -> PlasticNetwork:
    generator = torch.Generator().manual_seed(seed)
    return make_network({"hidden_size": units, **config}, INPUTS, ACTIONS, generator, **others).to(torch.float64)


def live(network: PlasticNetwork, steps: int, batch: int = 3, seed: int = 0) -> list[tuple[Tensor, State]]:
    """Features and state after each step of newborn lifetimes, in one long trial."""
    generator = torch.Generator().manual_seed(seed)
    params, state = dict(network.named_parameters()), network.initial_state(batch, generator)
    lived, no = [], torch.zeros(batch, dtype=torch.bool)
    with torch.no_grad():
        for step in range(steps):
            x = torch.randn(batch, INPUTS, generator=generator, dtype=torch.float64)
            features, state = network.step(params, x, told(batch, start=step == 0), state, no | (step == 0))
            lived.append((features, state))
    return lived


# --- spontaneous activity --------------------------------------------------------------------------------------------


def drawn(named: Any, size: int, age: int = 0) -> tuple[Tensor, dict[str, Tensor]]:
    """The inputs of 2,000 lifetimes at an age, and the parameters."""
    process = make_part(PROCESSES, named)
    parameters = process.parameters(size, torch.Generator().manual_seed(0))
    params = {name: one.value.to(torch.float64) for name, one in parameters.items()}
    return process.inputs(params, KEYS, torch.full_like(KEYS, age), size), params


@pytest.mark.parametrize("name", PROCESSES)
def test_processes_follow_from_key_and_age_alone(name: str) -> None:
    untouched = torch.get_rng_state()
    first, params = drawn(name, 6)
    assert first.shape == (2000, 6)
    assert torch.equal(first, drawn(name, 6)[0])
    assert not torch.equal(first, drawn(name, 6, age=1)[0])
    assert torch.equal(torch.get_rng_state(), untouched)
    # A population has its own amplitudes, and the numbers of the lifetimes' keys.
    process = make_part(PROCESSES, name)
    twice = {key: torch.stack([value, value]) for key, value in params.items()}
    twice["amplitude"] = torch.tensor([[1.0], [3.0]], dtype=torch.float64)
    together = process.inputs(twice, torch.stack([KEYS, KEYS]), torch.zeros(2, 2000, dtype=torch.int64), 6)
    torch.testing.assert_close(together[0], first, atol=1e-12, rtol=0)
    torch.testing.assert_close(together[1], 3 * first, atol=1e-12, rtol=0)


def test_white_noise_has_unit_variance_and_no_correlation() -> None:
    x, _ = drawn({"name": "white", "amplitude": 2.0}, 4)
    covariance = x.mT @ x / len(x)
    # Four standard errors of a covariance over 2,000 samples: 4 * 4 sqrt(2 / 2000).
    torch.testing.assert_close(covariance, 4 * torch.eye(4, dtype=torch.float64), atol=16 * math.sqrt(2 / 2000), rtol=0)


def test_the_covariance_of_mixed_sources_is_that_of_their_matrix() -> None:
    x, params = drawn({"name": "correlated", "sources": 3, "falloff": 0.5}, 8)
    mixing = params["mixing"]
    gram = mixing.mT @ mixing
    # Variances 1 : 1/4 : 1/16, and a mean square of 1 for each of the 8 inputs.
    expected = 8 * torch.tensor([16.0, 4.0, 1.0], dtype=torch.float64) / 21
    torch.testing.assert_close(gram, torch.diag(expected), atol=1e-5, rtol=0)
    largest = torch.linalg.eigh(x.mT @ x / len(x))
    torch.testing.assert_close(largest.eigenvalues[-3:].flip(0), expected, atol=0, rtol=4 * math.sqrt(2 / 2000))
    cosine = largest.eigenvectors[:, -1] @ mixing[:, 0] / mixing[:, 0].norm()
    assert abs(cosine.item()) > 0.99


def test_poisson_spikes_come_at_their_rate() -> None:
    x, _ = drawn({"name": "poisson", "rate": 0.3}, 5)
    assert set(x.unique().tolist()) == {0.0, 1.0}
    assert abs(x.mean().item() - 0.3) < 4 * math.sqrt(0.3 * 0.7 / 10_000)


def test_a_wave_moves_at_its_speed_and_another_one_follows_it() -> None:
    named = {"name": "waves", "width": 0.5, "speed": 1.0, "duration": 4}
    at = [drawn(named, 8, age)[0] for age in range(5)]
    back, forth = (torch.stack([one.roll(way, -1) for one in at[:3]]) for way in (-1, 1))
    followed = torch.stack(at[1:4])
    ways = [(followed - one).abs().amax((0, -1)) < 1e-12 for one in (back, forth)]
    assert bool((ways[0] ^ ways[1]).all())
    assert 0.4 < ways[0].double().mean().item() < 0.6
    assert ((at[4] - at[3].roll(1, -1)).abs().amax(-1) < 1e-12).double().mean().item() < 0.01
    # The patch's peak is at most half an input away from one.
    assert math.exp(-0.5) <= at[0].amax(-1).min().item() <= at[0].amax(-1).max().item() <= 1.0


# --- development -----------------------------------------------------------------------------------------------------


def expected_openness(network: PlasticNetwork, age: int) -> float:
    tau = network.get_parameter("development.critical_period.tau").item()
    floor = network.get_parameter("development.critical_period.floor").item()
    return floor + (1 - floor) * math.exp(-age / tau)


@pytest.mark.parametrize("steps", [0, 4])
@pytest.mark.parametrize("decay", [False, True])
def test_eta_falls_with_age_by_its_formula(decay: bool, steps: int) -> None:
    period = {"tau": 7.0, "floor": 0.2}
    network = build(
        {
            "kind": "plastic_rnn",
            "rule": "differentiable_plasticity" if decay else "hard_clip",
            "bound": "none",
            "development": {"steps": steps, "critical_period": period},
        }
    )
    eta = network.get_parameter("eta").item()
    lived = live(network, 12)
    for age, ((pre, before), (post, after)) in enumerate(itertools.pairwise(lived), start=steps + 1):
        rate = eta * expected_openness(network, age)
        kept = (1 - rate if decay else 1.0) * before["trace"]
        expected = kept + rate * post.unsqueeze(-1) * pre.unsqueeze(-2)
        torch.testing.assert_close(after["trace"], expected, atol=1e-12, rtol=0)
        assert after["age"].tolist() == [age + 1] * 3


@pytest.mark.parametrize("kind", ["plastic_units", "plastic_feed_forward", "plastic_rnn"])
def test_updates_that_wait_for_a_reward_fall_with_age_too(kind: str) -> None:
    rule: dict[str, Any] = {"rule": "reward_gated", "modulator": {"name": "reward", "reward_average_rate": 0.0}}
    development = {"steps": 0, "critical_period": {"tau": 3.0, "floor": 0.1}}
    if kind == "plastic_feed_forward":
        rule |= {"start": "trained"}
    config = {"kind": kind, "development": development} | ({"input": rule} if kind == "plastic_units" else rule)
    shut, open_ = build(config), build({**config, "development": None})
    assert isinstance(shut, Phased)
    assert not isinstance(open_, Phased)
    params = dict(shut.named_parameters())
    trace = {"plastic_units": "trace.input", "plastic_feed_forward": "trace.0", "plastic_rnn": "trace"}[kind]
    state, no = shut.initial_state(2), torch.zeros(2, dtype=torch.bool)
    generator = torch.Generator().manual_seed(0)
    for age in range(5):
        x = torch.randn(2, INPUTS, generator=generator, dtype=torch.float64)
        feedback = told(2, start=age == 0, reward=0.01)
        # The same step from the same state without a critical period: what it changes is what falls.
        _, other = open_.step(params, x, feedback, {n: state[n] for n in open_.state_entries()}, no | (age == 0))
        before = state[trace]
        _, state = shut.step(params, x, feedback, state, no | (age == 0))
        share = expected_openness(shut, age)
        torch.testing.assert_close(state[trace] - before, share * (other[trace] - before), atol=1e-12, rtol=0)
    assert state[trace].abs().max() > 1e-5


def selectivity(process: Any, steps: int, sources: int = 3) -> Tensor:
    """|cos| between the traces of 8 Oja units and the process's leading principal component, after development."""
    size = 12
    weak = {"granularity": "synapse", "low": -0.05, "high": 0.05, "trainable": False}
    slow = {"granularity": "scalar", "low": 0.01, "high": 0.01}
    config = {
        "kind": "plastic_units",
        "neuron": "linear",
        "inputs": "features",
        "hidden_size": 8,
        "input": {"rule": "oja", "alpha": WHOLE, "eta": slow, "weight": weak},
        "development": {"steps": steps, "process": process},
    }
    inputs = size + ACTIONS + 3
    network = make_network(config, inputs, ACTIONS, torch.Generator().manual_seed(0)).to(torch.float64)
    yes = torch.ones(4, dtype=torch.bool)
    with torch.no_grad():
        x = torch.zeros(4, inputs, dtype=torch.float64)
        state = network.initial_state(4, torch.Generator().manual_seed(1))
        _, state = network.step(dict(network.named_parameters()), x, told(4, start=True), state, yes)
    named = dict(network.named_parameters())
    mixing = named.get("development.process.mixing")
    component = torch.linalg.qr(torch.randn(size, 1, generator=torch.Generator().manual_seed(2)).double())[0][:, 0]
    component = component if mixing is None else mixing[:, 0] / mixing[:, 0].norm()
    return (torch.nn.functional.normalize(state["trace.input"], dim=-1) @ component).abs()


def test_oja_units_become_selective_by_correlated_activity() -> None:
    assert selectivity({"name": "correlated", "falloff": 0.5}, 400).min().item() > 0.95
    # Not so by white noise, nor from the first steps on: mean |cos| of random directions in 12 dimensions is .23.
    assert selectivity("white", 400).mean().item() < 0.5
    assert selectivity({"name": "correlated", "falloff": 0.5}, 2).min().item() < 0.9


def test_the_phase_is_its_steps_on_spontaneous_activity() -> None:
    config = {"kind": "plastic_rnn", "rule": "oja", "development": {"steps": 5, "process": "white"}}
    network, plain = build(config), build({**config, "development": None})
    assert type(plain) is PlasticRNN
    params, start = dict(network.named_parameters()), torch.tensor([False, True, True])
    state = network.initial_state(3, torch.Generator().manual_seed(0))
    x = torch.randn(3, INPUTS, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    streams = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    features, after = network.step(params, x, told(3, start=False)._replace(valid=~start), state, start)
    assert torch.equal(torch.get_rng_state(), streams[0])
    assert np.array_equal(np.random.get_state()[1], streams[1])  # noqa: NPY002
    keys = after["key"]
    assert (keys != state["key"]).tolist() == start.tolist()
    own = {name: torch.zeros_like(state[name]) for name in plain.state_entries()}
    process, no = make_part(PROCESSES, "white"), torch.zeros(3, dtype=torch.bool)
    amplitude = {"amplitude": params["development.process.amplitude"]}
    silent = Feedback(torch.zeros(3, ACTIONS), torch.zeros(3), no, no)
    for age in range(5):
        noise = process.inputs(amplitude, keys, torch.full_like(keys, age), FEATURES)
        padded = torch.cat([noise, torch.zeros(3, INPUTS - FEATURES, dtype=torch.float64)], -1)
        _, own = plain.step(params, padded, silent, own, no)
    developed, own = plain.step(params, x, silent, own, no)
    old, old_state = plain.step(params, x, silent, {name: state[name] for name in own}, no)
    torch.testing.assert_close(features, torch.where(start.unsqueeze(-1), developed, old), atol=1e-12, rtol=0)
    torch.testing.assert_close(after["trace"][start], own["trace"][start], atol=1e-12, rtol=0)
    torch.testing.assert_close(after["trace"][~start], old_state["trace"][~start], atol=1e-12, rtol=0)
    assert after["age"].tolist() == [1, 6, 6]


def test_nothing_gated_by_a_reward_happens_in_the_phase_and_nothing_plastic_when_frozen() -> None:
    development = {"steps": 6, "process": "white"}
    rewarded = build({"kind": "plastic_rnn", "rule": "reward_gated", "development": development})
    hebbian = build({"kind": "plastic_rnn", "rule": "oja", "development": development})
    assert not live(rewarded, 1)[0][1]["trace"].any()
    assert live(hebbian, 1)[0][1]["trace"].any()
    with hebbian.freeze_plasticity():
        (_, state), (_, other) = live(hebbian, 1)[0], live(rewarded, 1)[0]
    assert not state["trace"].any()
    # Activity goes on: it is not that of a lifetime without the phase.
    assert state["age"].tolist() == other["age"].tolist() == [7] * 3
    plain = live(build({"kind": "plastic_rnn", "rule": "oja"}), 1)[0][1]
    assert not torch.allclose(state["activity"], plain["activity"])


def test_gradients_reach_what_is_learned_of_development() -> None:
    config = PHASES["developed_rnn"]
    case = make_case(config, steps=4, batch=2, units=3)
    names = [name for name, own in case.network.named_parameters() if name.startswith("development.")]
    assert sorted(names) == [
        "development.critical_period.floor",
        "development.critical_period.tau",
        "development.process.amplitude",
    ]
    assert all(case.network.get_parameter(name).requires_grad for name in names)
    assert case.network.valid_ranges["development.critical_period.floor"] == (0.0, 1.0)
    starts = torch.ones_like(case.starts[:1])

    def features(*values: Tensor) -> Tensor:
        params = case.params | dict(zip(names, values, strict=True))
        all_starts = torch.cat([starts, torch.zeros_like(case.starts[1:])])
        return case.network.unroll(params, case.xs, case.feedbacks, case.state, all_starts)[0]

    values = [case.params[name].clone().requires_grad_() for name in names]
    assert torch.autograd.gradcheck(features, values)
    assert all(grad.abs().sum() > 0 for grad in torch.autograd.grad(features(*values).sum(), values))


# --- sleep -----------------------------------------------------------------------------------------------------------

LENGTHS = torch.tensor([3, 5, 2, 4])
"""Steps of the first trial of four lifetimes."""


def awake(network: PlasticNetwork, steps: int, reward: float = 0.5) -> tuple[list[Tensor], list[Tensor], State]:
    """Inputs and features of each step of four lifetimes whose first trials have these `LENGTHS`, and the state."""
    generator = torch.Generator().manual_seed(3)
    params, state = dict(network.named_parameters()), network.initial_state(4, torch.Generator().manual_seed(0))
    xs, course = [], []
    with torch.no_grad():
        for step in range(steps):
            xs.append(torch.randn(4, INPUTS, generator=generator, dtype=torch.float64))
            starts = torch.full((4,), step == 0)
            feedback = told(4, start=step == 0, reward=reward)._replace(trial_start=starts | (step == LENGTHS))
            features, state = network.step(params, xs[-1], feedback, state, starts)
            course.append(features)
    return xs, course, state


SLEEPING = {name: config for name, config in PHASES.items() if "sleep" in config}


@pytest.mark.parametrize("config", SLEEPING.values(), ids=SLEEPING)
def test_a_replay_without_plasticity_is_what_was_lived_bit_for_bit(config: dict[str, Any]) -> None:
    network = build(config | {"sleep": {"steps": 5}})
    assert isinstance(network, Phased)
    params = dict(network.named_parameters())
    with network.freeze_plasticity(), torch.no_grad():
        # No first trial but the second one's is over yet, whose lifetime is left out.
        for stop in (2, 3, 4, 5):
            _, course, state = awake(network, stop)
            asleep = stop == LENGTHS
            replayed, after = network.replayed(params, state, asleep)
            assert len(replayed) == stop
            for lived, again in zip(course, replayed, strict=True):
                assert torch.equal(again[asleep], lived[asleep])
            assert all(torch.equal(after[name], state[name]) for name in state)


@pytest.mark.parametrize("order", ["forward", "reverse"])
@pytest.mark.parametrize(
    "rule",
    [
        {"rule": "reward_gated"},
        {"rule": "reward_gated_retroactive"},
        {"rule": "reward_gated", "modulator": {"name": "reward_prediction_error", "discount": 0.5}},
    ],
    ids=["reward", "eligibility", "prediction error"],
)
def test_a_replay_is_its_steps_lived_again_with_what_they_brought(rule: dict[str, Any], order: str) -> None:
    config = {"kind": "plastic_rnn", **rule, "sleep": {"steps": 5, "order": order}}
    network, plain = build(config), build({**config, "sleep": None})
    params, no = dict(network.named_parameters()), torch.zeros(1, dtype=torch.bool)
    inputs = torch.randn(5, 1, INPUTS, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    rewards = [0.0, 0.3, -0.7, 1.0, 0.2]  # what comes with each observation; the fourth begins the second trial
    feedbacks = [told(1, start=step == 0, reward=reward, trial=step == 3) for step, reward in enumerate(rewards)]
    learned = [name for name, entry in plain.state_entries().items() if not entry.momentary]

    def learning(state: State, x: Tensor, feedback: Feedback) -> State:
        return plain.step(params, x, feedback, state, no)[1]

    with torch.no_grad():
        state, own = network.initial_state(1), plain.initial_state(1)
        first = {name: entry for name, entry in own.items() if name not in learned}
        course = []
        for step in range(3):
            _, state = network.step(params, inputs[step], feedbacks[step], state, no | (step == 0))
            own = learning(own, inputs[step], feedbacks[step])
            course.append(own)
        torch.testing.assert_close(state["trace"], own["trace"], atol=0, rtol=0)
        # The last reward of the trial, while awake; the step that brings it changes nothing else of the trace.
        awake_last = own
        own = learning(own, inputs[3], feedbacks[3])
        expected_reward = "value" if "value" in own else "reward_average"
        trace, average = own["trace"], own[expected_reward]
        # Again from the first momentary state, step by step, in either order.
        again = first | {name: own[name] for name in learned}
        steps = [0, 1, 2] if order == "forward" else [2, 1, 0]
        for place, step in enumerate(steps):
            outcome = feedbacks[steps[place - 1] + 1]._replace(trial_start=no, valid=~no)
            begins = Feedback(torch.zeros(1, ACTIONS), torch.zeros(1), ~no, no)
            again = learning(again, inputs[step], begins if place == 0 else outcome)
        again = learning(again, inputs[3], feedbacks[steps[-1] + 1]._replace(trial_start=~no))
        assert not torch.allclose(again["trace"], trace)
        assert not torch.allclose(again[expected_reward], average)
        features, state = network.step(params, inputs[3], feedbacks[3], state, no)
        torch.testing.assert_close(state["trace"], again["trace"], atol=1e-12, rtol=0)
        torch.testing.assert_close(state[expected_reward], again[expected_reward], atol=1e-12, rtol=0)
        # Awake again, with the activity of before: the step is that of a network with these synapses.
        woken = awake_last | {name: again[name] for name in learned}
        # What takes in the last reward, awake, has done so.
        woken |= {name: own[name] for name in ("eligibility", "trial_time") if name in own}
        expected, following = plain.step(params, inputs[3], feedbacks[3]._replace(valid=no), woken, no)
        torch.testing.assert_close(features, expected, atol=1e-12, rtol=0)
        for name in plain.state_entries():
            torch.testing.assert_close(state[name], following[name], atol=1e-12, rtol=0)


@pytest.mark.parametrize("times", [1, 3])
def test_where_activity_does_not_depend_on_the_trace_replays_add_up(times: int) -> None:
    unused = {"granularity": "scalar", "low": 0.0, "high": 0.0}
    rule = {"kind": "plastic_rnn", "rule": "hard_clip", "bound": "none", "alpha": unused}
    network, plain = build(rule | {"sleep": {"steps": 5, "times": times}}), build(rule)
    for step in (2, 3, 4, 5):
        ended = step == LENGTHS
        once, slept = awake(plain, step)[2]["trace"], awake(network, step + 1)[2]["trace"]
        awake_only = awake(plain, step + 1)[2]["trace"]
        torch.testing.assert_close((slept - awake_only)[ended], times * once[ended], atol=1e-12, rtol=0)
        not_yet = step < LENGTHS
        torch.testing.assert_close(slept[not_yet], awake_only[not_yet], atol=1e-12, rtol=0)


def test_the_first_steps_of_the_last_trials_are_stored() -> None:
    network = build({"kind": "plastic_rnn", "sleep": {"steps": 3, "trials": 2}})
    xs, _, state = awake(network, 4, reward=0.25)
    # Rows 0 and 2 are in their second trial, at its first and second step; row 1 and 3 in the first, beyond its third.
    assert state["sleep.steps"].tolist() == [[3, 1], [0, 4], [2, 2], [0, 4]]
    stored = state["sleep.inputs"]
    assert torch.equal(stored[0, 0], torch.stack(xs[:3])[:, 0])
    assert torch.equal(stored[0, 1, 0], xs[3][0])
    assert torch.equal(stored[1, 1], torch.stack(xs[:3])[:, 1])
    assert torch.equal(stored[2, 0, :2], torch.stack(xs[:2])[:, 2])
    assert torch.equal(stored[2, 1, :2], torch.stack(xs[2:4])[:, 2])
    # Each step's reward comes with the next one; that of the step under way is not known yet.
    assert state["sleep.reward"][0].tolist() == [[0.25] * 3, [0.0] * 3]
    assert state["sleep.reward"][1, 1].tolist() == [0.25] * 3
    assert state["sleep.reward"][2].tolist() == [[0.25, 0.25, 0.0], [0.25, 0.0, 0.0]]
    assert state["sleep.action"][2, 0].tolist() == [[1.0, 0.0], [1.0, 0.0], [0.0, 0.0]]
    assert state["sleep.start.age"].tolist() == [[0, 3], [0, 0], [0, 2], [0, 0]]
    assert not any(entry.requires_grad for name, entry in state.items() if name.startswith("sleep."))
    # A new lifetime knows nothing of the last.
    starts = torch.ones(4, dtype=torch.bool)
    params = dict(network.named_parameters())
    _, state = network.step(params, xs[0], told(4, start=True), state, starts)
    assert state["sleep.steps"].tolist() == [[0, 1]] * 4
    assert not state["sleep.reward"].any()


@pytest.mark.parametrize("kind", ["plastic_rnn", "plastic_units", "plastic_feed_forward"])
def test_no_synapse_comes_or_goes_in_sleep(kind: str) -> None:
    """Every two steps of a lifetime some do; a replay of steps 0, 1, 2 is no time lived, and grows nothing."""
    rewire = {"name": "rewire", "density": 0.5, "every": 2, "share": 0.5}
    rule = {"rule": "oja", "structure": rewire}
    own = {"input": rule} if kind == "plastic_units" else rule
    network = build({"kind": kind, "sleep": {"steps": 3}, **own} | ({"start": "trained"} if "feed" in kind else {}))
    params, state = dict(network.named_parameters()), network.initial_state(1)
    assert isinstance(network, Phased)
    (connected,), no, lived = ([name for name in state if name.startswith("connected")][:1], torch.zeros(1) > 0, [])
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for step in range(4):
            x = torch.randn(1, INPUTS, generator=generator, dtype=torch.float64)
            _, state = network.step(params, x, told(1, start=step == 0, trial=step == 3), state, no | (step == 0))
            lived.append(state)
    assert torch.equal(lived[1][connected], lived[0][connected])
    assert not torch.equal(lived[2][connected], lived[1][connected])  # at age 2, awake
    assert torch.equal(lived[3][connected], lived[2][connected])  # asleep through ages 0, 1, 2


def test_gradients_reach_synapses_through_a_replay_and_not_through_what_is_stored() -> None:
    network = build({"kind": "plastic_rnn", "rule": "oja", "sleep": {"steps": 2}})
    params = {name: own.detach().clone().requires_grad_() for name, own in network.named_parameters()}
    xs = torch.randn(3, 1, INPUTS, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    xs = xs.clone().requires_grad_()
    state, no = network.initial_state(1), torch.zeros(1, dtype=torch.bool)
    for step in range(2):
        _, state = network.step(params, xs[step], told(1, start=step == 0), state, no | (step == 0))
    # From here on, with synapses that carry no gradient, the stored inputs are numbers.
    state = {name: entry.detach() for name, entry in state.items()}
    trace = state["trace"].clone().requires_grad_()
    _, after = network.step(params, xs[2], told(1, start=False, trial=True), {**state, "trace": trace}, no)
    grads = torch.autograd.grad(after["trace"].sum(), [params["eta"], trace, xs], allow_unused=True)
    assert grads[0] is not None
    assert grads[0].abs().sum() > 0
    assert grads[1].abs().sum() > 0
    assert not grads[2][:2].any()


# --- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"development": {"steps": 0}}, "steps: 0 without a critical_period would do nothing"),
        ({"development": {"steps": 0, "process": "waves", "critical_period": {}}}, "process would do nothing"),
        ({"development": {"process": "wave"}}, "Did you mean 'waves'"),
        ({"development": {"process": {"name": "correlated", "sources": 4}}}, "must not exceed the 3 features"),
        ({"development": {"critical_period": {"floor": 1.5}}}, "floor"),
        ({"rule": "fixed", "development": {}}, "nothing in this network is plastic"),
        ({"rule": "fixed", "sleep": {"steps": 3}}, r"network\.sleep would do nothing"),
        ({"sleep": {}}, "trials have no fixed length here; give steps"),
        # 4 trials of 100,000 steps of 8 + 2 + 1 numbers of 4 bytes.
        ({"sleep": {"steps": 100_000, "trials": 4}}, r"up to 400,000 stored steps, trials \* steps, take 16\.78 MiB"),
        ({"sleep": {"times": 0, "steps": 1}}, "times"),
    ],
)
def test_what_would_do_nothing_or_cannot_be_is_refused(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build({"kind": "plastic_rnn", **config})


def test_a_critical_period_needs_synapses_that_change() -> None:
    """Thresholds adapt at any age."""
    adapting = {"kind": "plastic_units", "intrinsic": "adapting_threshold"}
    with pytest.raises(ConfigError, match=r"critical_period: no synapses of this network change"):
        build({**adapting, "development": {"critical_period": {}}})
    assert isinstance(build({**adapting, "development": {}}), Phased)


def test_there_must_be_features_to_be_active() -> None:
    with pytest.raises(ConfigError, match="no features that could be active"):
        make_network({"kind": "plastic_rnn", "development": {}}, ACTIONS + 3, ACTIONS)
    with pytest.raises(ConfigError, match="unknown key"):
        build({"kind": "gru", "sleep": {}})
    # Where trials have a fixed length, all of their steps are stored.
    network = build({"kind": "plastic_rnn", "sleep": {}}, steps_per_trial=3)
    assert network.state_entries()["sleep.inputs"].shape == (1, 3, INPUTS)


def test_every_option_of_a_phase_is_listed() -> None:
    text = reference("network", width=500)
    for name in PROCESSES:
        assert f"network.development.process {{name: {name}, ...}}, with options:" in text
        assert f"process {name}\n" in rule_text(name)
    assert "network.development.critical_period.floor: number, from 0 to 1  (default 0.1)" in text
    assert "network.sleep.order: one of forward, reverse  (default forward)" in text
