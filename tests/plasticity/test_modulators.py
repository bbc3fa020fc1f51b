"""The reward prediction error against its closed form."""

from __future__ import annotations

import math

import pytest
import torch

from plastic_rl.errors import ConfigError
from plastic_rl.feedback import Feedback
from plastic_rl.plasticity import Synapse, SynapseConfig
from plastic_rl.plasticity.modulators import Channels, RewardPredictionError

RATE, DISCOUNT = 0.2, 0.9


def test_values_of_a_chain_are_their_closed_form_and_the_error_moves_to_its_start() -> None:
    """Three steps a trial, reward 1 for the last: V of k steps before it is gamma^k P(more than k successes in n)."""
    modulator = RewardPredictionError(value_rate=RATE, discount=DISCOUNT, trial_steps=3)
    values = {"value_rate": RATE, "value_start": 0.0, "discount": DISCOUNT}
    params = {name: torch.tensor([value], dtype=torch.float64) for name, value in values.items()}
    params["eta"] = torch.ones(1, 1, dtype=torch.float64)
    state = {"value": torch.zeros(1, 3).double(), "trial_time": torch.zeros(1).double()}
    errors = []
    for trial in range(1, 41):
        for step in range(3):
            last = torch.tensor([step == 2])
            feedback = Feedback(torch.zeros(1, 1), last.double(), last, torch.ones(1, dtype=torch.bool))
            errors.append(modulator.gate(params, torch.zeros(1, 1).double(), feedback, state).item())
            state = modulator.next_state(params, torch.zeros(1, 1).double(), feedback, state)
        for before in range(3):
            at_most = sum(math.comb(trial, n) * RATE**n * (1 - RATE) ** (trial - n) for n in range(before + 1))
            expected = DISCOUNT**before * (1 - at_most)
            assert state["value"][0, 2 - before].item() == pytest.approx(expected, abs=1e-12)
    by_trial = torch.tensor(errors).reshape(40, 3)
    assert by_trial[0].tolist() == [0.0, 0.0, 1.0]
    largest = by_trial.argmax(0)
    assert largest[2] < largest[1] < largest[0]
    assert by_trial[-1].abs().max() < 0.02


def test_steps_beyond_the_last_share_its_value() -> None:
    modulator = RewardPredictionError(value_rate=1.0, trial_steps=2)
    params = {name: parameter.value.double() for name, parameter in modulator.numbers().items()}
    state = {"value": torch.zeros(1, 2).double(), "trial_time": torch.tensor([5.0]).double()}
    no = torch.zeros(1, dtype=torch.bool)
    told = Feedback(torch.zeros(1, 1), torch.tensor([0.7]).double(), no, ~no)
    moved = modulator.next_state(params, torch.zeros(1, 1).double(), told, state)
    assert moved["value"].tolist() == [[0.0, pytest.approx(0.7)]]
    assert moved["trial_time"].tolist() == [6.0]


def told(reward: float) -> Feedback:
    no = torch.zeros(1, dtype=torch.bool)
    return Feedback(torch.zeros(1, 1), torch.tensor([reward]).double(), no, ~no)


def test_novelty_is_one_at_first_sight_and_falls_as_a_running_mean_comes_near() -> None:
    """`(1 - rate)^(n - 1)` at the n-th sight; what is orthogonal is as new as ever, what has faded is new again."""
    rate = 0.25
    modulator = Channels(channels=("novelty",), novelty_rate=rate)
    assert not modulator.reward_modulated
    params = {"channel_weight": torch.tensor([[1.0, -0.5]]).double(), "novelty_rate": torch.tensor([rate]).double()}
    state = {"familiar": torch.zeros(1, 2).double()}
    seen, other = torch.tensor([[0.6, 0.0]]).double(), torch.tensor([[0.0, 3.0]]).double()
    for sight in range(1, 30):
        novelty = modulator.gate(params, seen, None, state).flatten()
        expected = (1 - rate) ** (sight - 1)
        assert novelty.tolist() == pytest.approx([expected, -0.5 * expected], abs=1e-12)
        assert modulator.gate(params, other, None, state)[0, 0].item() == pytest.approx(1.0, abs=1e-12)
        state = modulator.next_state(params, seen, None, state)
    known = 1 - (1 - rate) ** 29
    for away in range(1, 5):
        state = modulator.next_state(params, other, None, state)
        novelty = modulator.gate(params, seen, None, state).flatten()[0].item()
        assert novelty == pytest.approx(1 - known * (1 - rate) ** away, abs=1e-12)


def test_a_silent_layer_is_new_and_its_gradient_is_of_the_size_of_what_is_familiar() -> None:
    modulator = Channels(channels=("novelty",))
    params = {"channel_weight": torch.ones(1, 2).double(), "novelty_rate": torch.tensor([0.1]).double()}
    silent = torch.zeros(1, 2, dtype=torch.float64, requires_grad=True)
    gate = modulator.gate(params, silent, None, {"familiar": torch.tensor([[0.3, -0.2]]).double()})
    assert gate.flatten().tolist() == [1.0, 1.0]
    (gradient,) = torch.autograd.grad(gate[0, 0, 0], silent)
    assert gradient.abs().max().item() == pytest.approx(0.3)


def test_each_neuron_weighs_the_channels_in_its_own_way() -> None:
    # r = 2: r - rbar = 1.5; delta = 2 + 0 - .75; novelty of (1, 2) beside (.5, 0): 1 - .5/5; serotonin .25;
    # learned tanh(.5 - .5 * 2) of weights (.5, -.5). Attention sigmoid(ln 3) = .75 and sigmoid(0) = .5.
    names = ("reward", "reward_prediction_error", "novelty", "serotonin", "learned_signal")
    modulator = Channels(channels=names, attention=True, trial_steps=2)
    assert modulator.reward_modulated
    drawn = modulator.parameters(2, torch.Generator().manual_seed(0))
    params = {name: parameter.value.double() for name, parameter in drawn.items()}
    params |= {"channel_weight": torch.tensor([[1.0, 0], [2, 0], [3, 0], [4, 1], [5, -1]]).double()}
    params |= {"modulator_weight": torch.tensor([[0.5, -0.5]]).double()}
    params |= {"attention_weight": torch.tensor([[math.log(3), 0.0], [0.0, 0.0]], dtype=torch.float64)}
    state = {
        "reward_average": torch.tensor([0.5]).double(),
        "value": torch.tensor([[0.75, 0.0]]).double(),
        "trial_time": torch.zeros(1).double(),
        "familiar": torch.tensor([[0.5, 0.0]]).double(),
        "serotonin": torch.tensor([0.25]).double(),
    }
    assert set(state) == set(modulator.state_entries(2))
    post = torch.tensor([[1.0, 2.0]]).double()
    first = 1.5 + 2 * 1.25 + 3 * 0.9 + 4 * 0.25 + 5 * math.tanh(-0.5)
    expected = [0.75 * first, 0.5 * (0.25 - math.tanh(-0.5))]
    assert modulator.gate(params, post, told(2.0), state).flatten().tolist() == pytest.approx(expected, abs=1e-6)
    moved = modulator.next_state(params, post, told(2.0), state)
    assert set(moved) == set(state)
    # .01 of the way from .25 to 2.
    assert moved["serotonin"].item() == pytest.approx(0.2675, abs=1e-6)


def test_only_what_the_channels_need_are_parameters() -> None:
    of = {
        "reward": {"reward_average_rate", "reward_average_start"},
        "reward_prediction_error": {"value_rate", "value_start", "discount"},
        "novelty": {"novelty_rate"},
        "serotonin": {"serotonin_rate"},
        "learned_signal": {"modulator_weight", "modulator_bias"},
    }
    for channel, names in of.items():
        assert set(Channels(channels=(channel,)).parameters(3)) == {"channel_weight", *names}
    with pytest.raises(ConfigError, match="channels"):
        Channels(channels=("dopamine",))
    synapse = Synapse(SynapseConfig(modulator={"name": "channels", "channels": ["novelty", "learned_signal"]}), 2, 2)
    assert not synapse.reward_modulated
    assert "eta" not in synapse.parameters()
