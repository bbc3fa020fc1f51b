"""Fine-tuning within a lifetime: a step by hand, and the inner and outer gradients beside autograd's."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import Tensor

from plastic_rl.algorithms import CMAES, PlasticA2C
from plastic_rl.envs import make_vector
from plastic_rl.errors import ConfigError, SpaceError
from plastic_rl.feedback import FeedbackLayout
from plastic_rl.networks import Feedback, PlasticNetwork, State, make_network
from plastic_rl.policies import PlasticPolicy

FEATURES, ACTIONS, STEPS, LIVES = 3, 3, 23, 4
Weights = list[Tensor]


def build(features: int = FEATURES, actions: int = ACTIONS, **config: Any) -> PlasticNetwork:
    layout = FeedbackLayout.after(features, actions)
    generator = torch.Generator().manual_seed(3)
    # Larger start weights than the default, so that no part of a gradient is small.
    config = {"kind": "fine_tuning", "hidden_size": 4, "output_scale": 1.5} | config
    return make_network(config, features + actions + 3, layout, generator).double()


def rate(value: float) -> dict[str, Any]:
    return {"granularity": "scalar", "low": value, "high": value}


def test_one_step_by_hand() -> None:
    """One unit: W1 = (.5, .1), W2 rows (1, 0) and (-1, .2); o = 2, action 0, reward 1; b = .25, rate .3."""
    network = build(1, 2, hidden_size=1, inner_rate=rate(0.3), baseline_start=0.25, baseline_rate=0.4)
    params = {name: value.detach().clone() for name, value in network.named_parameters()}
    params["hidden.weight"][:] = torch.tensor([[0.5, 0.1]])
    params["output.weight"][:] = torch.tensor([[1.0, 0.0], [-1.0, 0.2]], dtype=torch.float64)
    yes, no = torch.ones(1, dtype=torch.bool), torch.zeros(1, dtype=torch.bool)
    nothing = Feedback(torch.zeros(1, 2).double(), torch.zeros(1).double(), yes, no)
    observation = torch.tensor([[2.0, 0, 0, 0, 0, 0]], dtype=torch.float64)
    logits, state = network.step(params, observation, nothing, network.initial_state(1), yes)
    h = math.tanh(1.1)
    assert logits[0].tolist() == pytest.approx([h, 0.2 - h], abs=1e-7)
    p = 1 / (1 + math.exp(-(h - (0.2 - h))))
    paid = Feedback(torch.tensor([[1.0, 0.0]]).double(), torch.ones(1).double(), yes, yes)
    logits, state = network.step(params, observation, paid, state, no)
    step = 0.3 * (1 - 0.25)
    output = [[step * (1 - p) * h, step * (1 - p)], [-step * (1 - p) * h, -step * (1 - p)]]
    # W2^T d = (1 - p) * 1 + -(1 - p) * -1
    behind = 2 * (1 - p) * (1 - h * h)
    hidden = [[step * behind * 2, step * behind]]
    np.testing.assert_allclose(state["trace.output"][0], output, atol=1e-7)
    np.testing.assert_allclose(state["trace.hidden"][0], hidden, atol=1e-7)
    assert state["baseline"].tolist() == pytest.approx([0.25 + 0.4 * 0.75], abs=1e-7)
    again = math.tanh((0.5 + hidden[0][0]) * 2 + 0.1 + hidden[0][1])
    expected = [(1 + output[0][0]) * again + output[0][1], (-1 + output[1][0]) * again + 0.2 + output[1][1]]
    assert logits[0].tolist() == pytest.approx(expected, abs=1e-6)


def test_what_goes_on_inside_are_both_layers_and_their_weights() -> None:
    network = build()
    params = {name: value.detach() for name, value in network.named_parameters()}
    generator = torch.Generator().manual_seed(0)
    state = {
        name: torch.randn(value.shape, generator=generator, dtype=torch.float64) if value.is_floating_point() else value
        for name, value in network.initial_state(2).items()
    }
    x = torch.randn(2, network.input_size, generator=generator, dtype=torch.float64)
    no = torch.zeros(2, dtype=torch.bool)
    told = Feedback(torch.zeros(2, ACTIONS).double(), torch.zeros(2).double(), no, no)
    inside = network.inside(params, x, told, state, no)
    assert set(inside.weights) == set(inside.outputs) == {"hidden", "output"}
    for layer, weight in inside.weights.items():
        torch.testing.assert_close(weight, params[f"{layer}.weight"] + state[f"trace.{layer}"], atol=1e-12, rtol=0)
    row = torch.nn.functional.pad(inside.outputs["hidden"][:, -1], (0, 1), value=1.0)
    logits = (inside.weights["output"] @ row.unsqueeze(-1)).squeeze(-1)
    torch.testing.assert_close(inside.outputs["output"][:, -1], logits, atol=1e-12, rtol=0)
    without = build(inner_rate={**rate(0.0), "trainable": False})
    own = dict(without.named_parameters())
    weights = without.weights(own, without.initial_state(2))
    assert torch.equal(weights["hidden"], own["hidden.weight"].unsqueeze(0))


class Lives:
    """Random lifetimes: observations, actions, rewards, and where trials start."""

    def __init__(self, seed: int, lives: int = LIVES) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.seen = torch.randn(STEPS, lives, FEATURES, generator=generator, dtype=torch.float64)
        self.actions = torch.randint(ACTIONS, (STEPS, lives), generator=generator)
        self.rewards = torch.randn(STEPS, lives, generator=generator, dtype=torch.float64) + 0.5
        self.trial_starts = torch.rand(STEPS, lives, generator=generator) < 0.35
        self.trial_starts[0] = True

    def inputs(self) -> tuple[Tensor, Feedback, Tensor]:
        """Observations, feedback and starts, as `unroll` takes them."""
        lives = self.seen.shape[1]
        begun = torch.zeros(STEPS, lives, dtype=torch.bool)
        begun[0] = True
        before = torch.eye(ACTIONS, dtype=torch.float64)[self.actions]
        action = torch.cat([torch.zeros_like(before[:1]), before[:-1]])
        reward = torch.cat([torch.zeros_like(self.rewards[:1]), self.rewards[:-1]])
        xs = torch.cat([self.seen, torch.zeros(STEPS, lives, ACTIONS + 3, dtype=torch.float64)], -1)
        return xs, Feedback(action, reward, self.trial_starts, ~begun), begun


def logits_of(weights: Weights, seen: Tensor) -> Tensor:
    one = torch.ones(*seen.shape[:-1], 1, dtype=seen.dtype)
    hidden = torch.tanh(torch.cat([seen, one], -1) @ weights[0].mT)
    return torch.cat([hidden, one], -1) @ weights[1].mT


def by_autograd(network: PlasticNetwork, params: dict[str, Tensor], lives: Lives, row: int) -> tuple[Tensor, Weights]:
    """One lifetime, whose inner gradient is autograd's of the REINFORCE loss; the logits and the last weights."""
    config = network.config
    names = ("hidden", "output")
    weights = [params[f"{name}.weight"].clone() for name in names]
    second_order = not config.first_order
    baseline = params["baseline_start"][0] if config.baseline == "running_mean" else torch.zeros(())
    segment: list[int] = []
    gradients: list[Weights] = []
    logits = []
    for time in range(STEPS):
        whole = len(segment) == config.segment_steps if config.segment_steps else lives.trial_starts[time, row]
        if segment and whole:
            rewards = lives.rewards[segment, row].tolist()
            since = [
                sum(config.discount**delay * reward for delay, reward in enumerate(rewards[first:]))
                for first in range(len(rewards))
            ]
            credited = since if config.credit == "reward_to_go" else [since[0]] * len(rewards)
            log_p = torch.log_softmax(logits_of(weights, lives.seen[segment, row]), -1)
            chosen = log_p[torch.arange(len(segment)), lives.actions[segment, row]]
            reinforce = (chosen * (torch.tensor(credited, dtype=torch.float64) - baseline)).sum()
            found = torch.autograd.grad(reinforce, weights, create_graph=second_order, retain_graph=True)
            if not second_order and config.baseline == "running_mean":
                # The baseline is no part of what first order takes for a constant.
                score = torch.autograd.grad(chosen.sum(), weights, retain_graph=True)
                found = tuple(one - baseline * s + baseline.detach() * s for one, s in zip(found, score, strict=True))
            gradients.append(list(found))
            if config.baseline == "running_mean":
                credit = sum(credited) / len(credited)
                baseline = baseline + params["baseline_rate"][0] * (credit - baseline)
            segment = []
            if len(gradients) == config.segments:
                means = [torch.stack(one).mean(0) for one in zip(*gradients, strict=True)]
                rates = [params[f"{name}.inner_rate"] for name in names]
                weights = [weight + r * mean for weight, r, mean in zip(weights, rates, means, strict=True)]
                gradients = []
        logits.append(logits_of(weights, lives.seen[time, row]))
        segment.append(time)
    return torch.stack(logits), weights


SETTINGS = [
    {"credit": credit, "discount": discount, "segment_steps": steps, "segments": segments, "baseline": baseline}
    for credit, (discount, steps, segments, baseline) in itertools.product(
        ("return", "reward_to_go"),
        (
            (1.0, None, 1, "running_mean"),
            (0.7, None, 2, "none"),
            (0.6, 4, 1, "running_mean"),
            (1.0, 3, 2, "none"),
            (0.0, 1, 1, "running_mean"),
        ),
    )
]


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda settings: "-".join(map(str, settings.values())))
@pytest.mark.parametrize("first_order", [False, True])
def test_inner_and_outer_gradients_are_autograds(settings: dict[str, Any], first_order: bool) -> None:
    synapse = {"granularity": "synapse", "low": 0.1, "high": 0.4}
    network = build(first_order=first_order, inner_rate=synapse, baseline_start=0.2, baseline_rate=0.3, **settings)
    lives = Lives(seed=5)
    own = {name: value.detach().clone().requires_grad_() for name, value in network.named_parameters()}
    xs, feedbacks, begun = lives.inputs()
    logits, state = network.unroll(own, xs, feedbacks, network.initial_state(LIVES), begun)
    expected, weights = [], []
    for row in range(LIVES):
        seen, last = by_autograd(network, own, lives, row)
        expected.append(seen)
        weights.append(last)
    torch.testing.assert_close(logits, torch.stack(expected, 1), atol=1e-10, rtol=0)
    for layer, name in enumerate(("hidden", "output")):
        moved = torch.stack([one[layer] for one in weights]) - own[f"{name}.weight"]
        assert moved.abs().max() > 0.1
        torch.testing.assert_close(state[f"trace.{name}"], moved, atol=1e-10, rtol=0)
    factors = torch.randn(logits.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    leaves = list(own.values())
    got = torch.autograd.grad((factors * logits).sum(), leaves, retain_graph=True)
    outer = torch.autograd.grad((factors * torch.stack(expected, 1)).sum(), leaves)
    for name, one, other in zip(own, got, outer, strict=True):
        assert other.abs().max() > 1e-3, name
        torch.testing.assert_close(one, other, atol=1e-9, rtol=1e-9, msg=name)


def test_first_order_changes_only_the_outer_gradient() -> None:
    lives = Lives(seed=6)
    xs, feedbacks, begun = lives.inputs()
    outcomes = []
    for first_order in (False, True):
        network = build(first_order=first_order, inner_rate=rate(0.3))
        own = dict(network.named_parameters())
        logits, _ = network.unroll(own, xs, feedbacks, network.initial_state(LIVES), begun)
        outcomes.append((logits, torch.autograd.grad(logits.square().sum(), own["output.weight"])[0]))
    (second, exact), (first, approximate) = outcomes
    assert torch.equal(second, first)
    assert (exact - approximate).abs().max() > 0.1


def test_its_expectation_is_the_gradient_of_the_expected_reward() -> None:
    """Policy gradient theorem: sum_a p_a (r_a - b) grad log p_a = grad sum_a p_a r_a, whatever b is."""
    network = build(inner_rate=rate(1.0), segment_steps=1, baseline_start=0.8)
    params = {name: value.detach().clone().requires_grad_() for name, value in network.named_parameters()}
    seen = torch.randn(FEATURES, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    lives = Lives(seed=0, lives=ACTIONS)
    lives.seen[:] = seen
    lives.actions[:] = torch.arange(ACTIONS)
    lives.rewards[:] = torch.tensor([1.0, -0.5, 2.0])
    xs, feedbacks, begun = lives.inputs()
    with torch.no_grad():
        _, state = network.unroll(
            params, xs[:2], Feedback(*(one[:2] for one in feedbacks[:4])), network.initial_state(ACTIONS), begun[:2]
        )
    weights = [params["hidden.weight"], params["output.weight"]]
    p = torch.softmax(logits_of(weights, seen), -1)
    gradients = torch.autograd.grad((p * lives.rewards[0]).sum(), weights)
    for name, gradient in zip(("hidden", "output"), gradients, strict=True):
        mean = (p.detach()[:, None, None] * state[f"trace.{name}"]).sum(0)
        torch.testing.assert_close(mean, gradient, atol=1e-12, rtol=0)


def test_weights_move_only_when_enough_trials_have_ended() -> None:
    network = build(segments=2, inner_rate=rate(0.5))
    lives = Lives(seed=1, lives=1)
    lives.trial_starts[:] = torch.tensor([step % 3 == 0 for step in range(STEPS)]).unsqueeze(1)
    xs, feedbacks, begun = lives.inputs()
    params, state = dict(network.named_parameters()), network.initial_state(1)
    moved = []
    for time in range(STEPS):
        before = state["trace.output"]
        _, state = network.step(params, xs[time], feedbacks.at(time), state, begun[time])
        if not torch.equal(before, state["trace.output"]):
            moved.append(time)
    assert moved == [6, 12, 18]


def test_the_baseline_is_a_running_mean_of_returns() -> None:
    network = build(baseline_start=0.5, baseline_rate=0.25, discount=0.5, segment_steps=2)
    lives = Lives(seed=1, lives=1)
    lives.rewards[:6, 0] = torch.tensor([1.0, 2.0, 0.0, 4.0, 1.0, 0.0])
    xs, feedbacks, begun = lives.inputs()
    _, state = network.unroll(
        dict(network.named_parameters()),
        xs[:7],
        Feedback(*(one[:7] for one in feedbacks[:4])),
        network.initial_state(1),
        begun[:7],
    )
    # Returns 2, 2 and 1.
    expected = 0.75**3 * 0.5 + 0.25 * (0.75**2 * 2 + 0.75 * 2 + 1)
    assert state["baseline"].tolist() == pytest.approx([expected], abs=1e-7)


def test_without_an_inner_rate_it_is_a_plain_policy_that_carries_nothing() -> None:
    frozen = {"granularity": "scalar", "low": 0.0, "high": 0.0, "trainable": False}
    network = build(inner_rate=frozen)
    assert not network.is_plastic
    assert network.state_entries() == {}
    assert set(dict(network.named_parameters())) == {"hidden.weight", "output.weight"}
    plastic = build()
    xs, feedbacks, begun = Lives(seed=2).inputs()
    params = dict(network.named_parameters())
    logits, _ = network.unroll(params, xs, feedbacks, {}, begun)
    expected = logits_of([params["hidden.weight"], params["output.weight"]], xs[..., :FEATURES])
    torch.testing.assert_close(logits, expected, atol=1e-12, rtol=0)
    with plastic.freeze_plasticity():
        held, _ = plastic.unroll(dict(plastic.named_parameters()), xs, feedbacks, plastic.initial_state(LIVES), begun)
    torch.testing.assert_close(held, logits, atol=1e-12, rtol=0)


def test_a_step_acted_while_frozen_is_credited_to_itself() -> None:
    """After a freeze, the first reward taken in is that of the last frozen step, with what that step saw."""
    network = build(segment_steps=1, inner_rate=rate(0.5))
    lives = Lives(seed=3, lives=1)
    xs, feedbacks, begun = lives.inputs()
    params = {name: value.detach() for name, value in network.named_parameters()}
    with network.freeze_plasticity():
        _, held = network.unroll(
            params, xs[:5], Feedback(*(one[:5] for one in feedbacks[:4])), network.initial_state(1), begun[:5]
        )
    _, thawed = network.step(params, xs[5], feedbacks.at(5), held, begun[5])
    # The same as a lifetime that begins with that step.
    _, first = network.step(params, xs[4], feedbacks.at(4), network.initial_state(1), torch.ones(1, dtype=torch.bool))
    _, own = network.step(params, xs[5], feedbacks.at(5), first, begun[5])
    torch.testing.assert_close(thawed, own, atol=0, rtol=0)
    assert thawed["trace.output"].abs().max() > 0.01


def test_a_segment_that_a_freeze_cut_is_forgotten() -> None:
    """Trials of 6 steps, frozen in steps 8 to 13: of the second trial, what is not in the gradient yet is lost."""
    network = build(inner_rate=rate(0.5), baseline="none", credit="reward_to_go", discount=0.5)
    lives = Lives(seed=4, lives=1)
    lives.trial_starts[:] = torch.tensor([step % 6 == 0 for step in range(STEPS)]).unsqueeze(1)
    xs, feedbacks, begun = lives.inputs()
    params = {name: value.detach() for name, value in network.named_parameters()}

    def lived(state: State, first: int, last: int) -> State:
        part = Feedback(*(one[first:last] for one in feedbacks[:4]))
        return network.unroll(params, xs[first:last], part, state, begun[first:last])[1]

    before = lived(network.initial_state(1), 0, 8)
    with network.freeze_plasticity():
        frozen = lived(before, 8, 14)
    for name in ("trace.hidden", "trace.output", "gradient.output", "segments"):
        assert torch.equal(frozen[name], before[name])
    assert before["discounted_score.output"].any()
    assert not frozen["discounted_score.output"].any()
    assert frozen["steps"].tolist() == [0]
    # Learned from are steps 13 to 17, and what the gradient had: step 6, whose reward came before the freeze.
    thawed = lived(frozen, 14, 19)
    fresh = frozen | {name: torch.zeros_like(frozen[name]) for name in frozen if name.startswith("gradient.")}
    own = lived(fresh, 14, 19)
    for layer in ("hidden", "output"):
        earlier = 0.5 * before[f"gradient.{layer}"]
        assert earlier.abs().max() > 1e-3
        torch.testing.assert_close(thawed[f"trace.{layer}"], own[f"trace.{layer}"] + earlier, atol=1e-12, rtol=0)


ARMS: dict[str, Any] = {"arms": 2, "steps": 100}
BANDIT = "plastic_rl/BernoulliBandit-v0"


def lived(policy: PlasticPolicy, rows: int = 1000) -> float:
    """Expected reward of a lifetime, over as many tasks."""
    env = make_vector(BANDIT, rows, env_kwargs=ARMS, split="test")
    observations, _ = env.reset(seed=2)
    state, total = None, np.zeros(rows)
    policy.sampling.manual_seed(0)
    for _ in range(ARMS["steps"]):
        actions, state = policy.predict(observations, state)
        observations, _, _, _, infos = env.step(actions)
        total += infos["expected_reward"]
    return float(total.mean())


def test_untrained_it_learns_a_bandit_within_its_life_and_frozen_it_does_not() -> None:
    """Without features it is the gradient bandit (Sutton & Barto 2018, section 2.8)."""
    env = make_vector(BANDIT, 1, env_kwargs=ARMS)
    layout = FeedbackLayout.from_dict(env.metadata["feedback"])
    spaces_of = (env.single_observation_space, env.single_action_space)
    network = {"kind": "fine_tuning", "hidden_size": 8, "inner_rate": rate(1.0), "baseline_start": 0.5}
    policy = PlasticPolicy(*spaces_of, feedback=layout, network=network)
    assert lived(policy) > 61.0  # random 50, Thompson sampling 63.8
    with policy.freeze_plasticity():
        assert lived(policy) == pytest.approx(50, abs=1)


@pytest.mark.parametrize("first_order", [False, True])
def test_it_is_trained_by_gradient_and_saved(first_order: bool, tmp_path: Path) -> None:
    network = {"kind": "fine_tuning", "hidden_size": 4, "first_order": first_order}
    agent = PlasticA2C("PlasticPolicy", BANDIT, env_kwargs=ARMS, n_envs=8, policy_kwargs={"network": network}, seed=0)
    before = {name: value.clone() for name, value in agent.policy.named_parameters()}
    agent.learn(1600)
    for name, value in agent.policy.named_parameters():
        # Without features the hidden weights have biases alone, which start at 0 but have gradients.
        assert not torch.equal(value, before[name]), name
    agent.save(tmp_path / "agent.zip")
    loaded = PlasticA2C.load(tmp_path / "agent.zip")
    torch.testing.assert_close(loaded.policy.state_dict(), agent.policy.state_dict(), atol=0, rtol=0)
    assert lived(loaded.policy, 20) == lived(agent.policy, 20)


def test_it_evolves() -> None:
    network = {"kind": "fine_tuning", "hidden_size": 2, "inner_rate": rate(0.01), "baseline_start": 0.5}
    agent = CMAES(
        "PlasticPolicy",
        BANDIT,
        env_kwargs=ARMS,
        policy_kwargs={"network": network},
        population_size=12,
        lifetimes=32,
        seed=1,
    )
    assert lived(agent.policy) < 53
    agent.learn(generations=15)
    assert lived(agent.policy) > 58


def test_what_is_left_out_of_the_inner_rate_has_its_default() -> None:
    kept = build(inner_rate={"trainable": False})
    rates = {name: own for name, own in kept.named_parameters() if name.endswith("inner_rate")}
    assert {name: (tuple(own.shape), own.requires_grad) for name, own in rates.items()} == {
        "hidden.inner_rate": ((1, 1), False),
        "output.inner_rate": ((1, 1), False),
    }
    assert kept.is_plastic
    assert kept.plasticity_parameters() == []
    by_weight = build(inner_rate={"granularity": "synapse", "high": 0.3})
    assert by_weight.get_parameter("output.inner_rate").shape == (ACTIONS, 5)
    assert 0.1 <= by_weight.get_parameter("output.inner_rate").min() < 0.2


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"discount: .*less than or equal to 1"):
        build(discount=1.5)
    with pytest.raises(ConfigError, match=r"segment_steps: .*greater than or equal to 1"):
        build(segment_steps=0)
    box, layout = spaces.Box(-1, 1, (9,)), FeedbackLayout.after(4, 2)
    with pytest.raises(SpaceError, match="a fine_tuning network chooses among the actions of one Discrete space"):
        PlasticPolicy(box, spaces.Box(-1, 1, (2,)), feedback=layout, network={"kind": "fine_tuning"})
