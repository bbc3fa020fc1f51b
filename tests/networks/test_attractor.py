"""The attractor network: steps by hand, that it is a Hopfield memory, and that it completes patterns as an agent."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import Tensor

from plastic_rl.algorithms import CMAES
from plastic_rl.envs import make_vector
from plastic_rl.errors import ConfigError, SpaceError
from plastic_rl.feedback import FeedbackLayout
from plastic_rl.memories import Hopfield
from plastic_rl.networks import Feedback, PlasticNetwork, State, make_network
from plastic_rl.policies import PlasticPolicy

UNITS: dict[str, Any] = {"kind": "attractor", "readout": "units"}


def build(bits: int, **config: Any) -> PlasticNetwork:
    network = make_network(UNITS | config, 2 * bits + 3, FeedbackLayout.after(bits, bits))
    return network.double()


def see(network: PlasticNetwork, state: State, *features: float) -> tuple[Tensor, State]:
    columns = torch.zeros(1, network.input_size, dtype=torch.float64)
    columns[0, : len(features)] = torch.tensor(features, dtype=torch.float64)
    nothing = torch.zeros(1, dtype=torch.bool)
    feedback = Feedback(columns[:, :0], torch.zeros(1), nothing, ~nothing)
    params = {name: value.detach() for name, value in network.named_parameters()}
    return network.step(params, columns, feedback, state, nothing)


def test_two_steps_by_hand() -> None:
    """Two units, one round: g = .5, beta = 2, threshold 0, rate 1."""
    network = build(2, rounds=1, input_gain=0.5, beta=2.0)
    newborn = network.initial_state(1)
    # W = 0: the drive is beta g x. Then W = (1 / 2) x xT.
    features, state = see(network, newborn, 1, -1)
    torch.testing.assert_close(features, torch.tensor([[1.0, -1.0]], dtype=torch.float64))
    assert state["weight"].tolist() == [[[0.5, -0.5], [-0.5, 0.5]]]
    assert not newborn["weight"].any()
    # The second unit is unknown: S_0 = (tanh 1, 0), h = (0, -.5 tanh 1) + (.5, 0).
    features, state = see(network, state, 1, 0)
    assert features[0].tolist() == pytest.approx([1.0, -math.tanh(1.0)], abs=1e-12)
    assert state["weight"].tolist() == [[[1.0, -0.5], [-0.5, 0.5]]]
    assert network.readout({}, features)[0].tolist() == pytest.approx([2.0, -2 * math.tanh(1.0)], abs=1e-12)


def test_the_threshold_makes_bits_of_ones_and_zeros_signs() -> None:
    network = build(2, rounds=1, threshold=0.5)
    _, state = see(network, network.initial_state(1), 1, 0)
    assert state["weight"].tolist() == [[[0.125, -0.125], [-0.125, 0.125]]]


def test_the_delta_rule_stores_once_and_leaves_what_is_unknown_alone() -> None:
    network = build(3, storage="delta")
    _, once = see(network, network.initial_state(1), 1, -1, 1)
    pattern = torch.tensor([[1.0, -1.0, 1.0]], dtype=torch.float64)
    torch.testing.assert_close((once["weight"] @ pattern.unsqueeze(-1)).squeeze(-1), pattern, atol=1e-12, rtol=0)
    _, twice = see(network, once, 1, -1, 1)
    torch.testing.assert_close(twice, once, atol=1e-12, rtol=0)
    _, cued = see(network, once, 1, -1, 0)
    assert torch.equal(cued["weight"][0, 2], once["weight"][0, 2])
    assert not torch.equal(cued["weight"][0, 0], once["weight"][0, 0])
    _, blank = see(network, once, 0, 0, 0)
    assert torch.equal(blank["weight"], once["weight"])


@pytest.mark.parametrize("rounds", [1, 2, 5])
def test_without_noise_it_is_a_hopfield_memory(rounds: int) -> None:
    """At a high beta, units are signs, and r rounds are r synchronous updates; inputs only set where they start."""
    network = build(60, rounds=rounds, beta=100.0)
    # Outside of its valid range, so that tanh is a sign, and inputs are weaker than any field (a multiple of 1 / 60).
    with torch.no_grad():
        network.get_parameter("beta").fill_(1e6)
        network.get_parameter("input_gain").fill_(1e-3)
    generator = np.random.default_rng(rounds)
    memory = Hopfield(60)
    memory = memory.store(memory.random_patterns(7, generator))
    state = network.initial_state(1)
    for pattern in memory.patterns:
        _, state = see(network, state, *pattern)
    cues = memory.patterns * (generator.random((7, 60)) < 0.5)
    for cue in cues:
        features, _ = see(network, state, *cue)
        expected = memory.recall(cue, steps=rounds).state
        decided = memory.field(memory.recall(cue, steps=rounds - 1).state) != 0
        np.testing.assert_array_equal(np.sign(features[0].numpy())[decided], expected[decided])


def test_what_cannot_be_built_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"leaves 3 units, but 5 are needed.*inputs: all, or readout: head"):
        make_network(UNITS, 11, FeedbackLayout.after(3, 5))
    with pytest.raises(ConfigError, match="leaves 0 units, but 1 are needed"):
        make_network({"kind": "attractor"}, 5, FeedbackLayout.after(0, 2))
    with pytest.raises(ConfigError, match=r"beta: .*less than or equal to 100"):
        make_network({"kind": "attractor", "beta": 200.0}, 5, FeedbackLayout.after(2, 0))
    with pytest.raises(SpaceError, match=r"answers with bits"):
        PlasticPolicy(
            spaces.Box(-1, 1, (8,)), spaces.Box(-1, 1, (3,)), feedback=FeedbackLayout.after(3, 2), network=UNITS
        )


ENV_ID = "plastic_rl/PatternCompletion-v0"


def completed(agent: Any, *, sampled: bool = False, **kwargs: Any) -> float:
    """Share of missing bits that an agent completes, on 100 tasks."""
    env = make_vector(ENV_ID, 100, env_kwargs=kwargs, split="test")
    observations, _ = env.reset(seed=2)
    state, total = None, np.zeros(100)
    for _ in range(env.metadata["lifetime_steps"]):
        actions, state = agent.predict(observations, state, deterministic=not sampled)
        observations, rewards, *_ = env.step(actions)
        total += rewards
    return float(total.mean())


def untrained(**config: Any) -> PlasticPolicy:
    env = make_vector(ENV_ID, 1)
    layout = FeedbackLayout.from_dict(env.metadata["feedback"])
    return PlasticPolicy(env.single_observation_space, env.single_action_space, feedback=layout, network=UNITS | config)


def test_untrained_it_completes_patterns_and_without_plasticity_it_guesses() -> None:
    for storage in ("hebb", "delta"):
        policy = untrained(storage=storage)
        assert completed(policy) > 0.99
        assert completed(policy, sampled=True) > 0.985
        with policy.freeze_plasticity():
            # Without weights a missing bit's logit is 0.
            assert completed(policy, sampled=True) == pytest.approx(0.5, abs=4 * 0.5 / 2500**0.5)
    assert completed(untrained(rate=0.0), sampled=True) == pytest.approx(0.5, abs=4 * 0.5 / 2500**0.5)


def test_it_evolves_and_is_saved(tmp_path: Path) -> None:
    small = {"bits": 12, "patterns": 2}
    agent = CMAES(
        "PlasticPolicy",
        ENV_ID,
        env_kwargs=small,
        policy_kwargs={"network": UNITS | {"rate": 0.05, "beta": 0.5}},
        population_size=8,
        lifetimes=8,
        seed=1,
    )
    assert agent.search.mean.shape == (4,)
    # So uncertain of its bits at the start that it might as well guess.
    assert completed(agent, sampled=True, **small) < 0.65
    agent.learn(generations=15)
    assert completed(agent, sampled=True, **small) > 0.85
    agent.save(tmp_path / "agent.zip")
    loaded = CMAES.load(tmp_path / "agent.zip")
    assert loaded.action_space == spaces.MultiBinary(12)
    assert completed(loaded, **small) == completed(agent, **small)


@pytest.mark.parametrize("storage", ["hebb", "delta"])
def test_a_threshold_that_learning_moved_leaves_the_unknown_unknown(storage: str) -> None:
    """Zeros are unknown where the threshold starts at 0, wherever it is now: they drive and store nothing."""
    network = build(4, storage=storage)
    with torch.no_grad():
        dict(network.named_parameters())["threshold"].fill_(0.05)
    _, state = see(network, network.initial_state(1), 1, -1, 1, -1)
    _, after_blank = see(network, state, 0, 0, 0, 0)
    assert torch.equal(after_blank["weight"], state["weight"])
    completed, _ = see(network, state, 1, 0, 0, -1)
    assert torch.sign(completed).tolist() == [[1, -1, 1, -1]]


def test_bits_are_no_choice_among_actions() -> None:
    box, layout = spaces.Box(-1, 1, (9,)), FeedbackLayout.after(4, 2)
    with pytest.raises(SpaceError, match=r"answers with bits \(MultiBinary\), got the actions Discrete\(2\)"):
        PlasticPolicy(box, spaces.Discrete(2), feedback=layout, network=UNITS)
