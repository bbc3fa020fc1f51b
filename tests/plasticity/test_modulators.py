"""The reward prediction error against its closed form."""

from __future__ import annotations

import math

import pytest
import torch

from plastic_rl.feedback import Feedback
from plastic_rl.plasticity.modulators import RewardPredictionError

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
            state = modulator.next_state(params, feedback, state)
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
    moved = modulator.next_state(params, Feedback(torch.zeros(1, 1), torch.tensor([0.7]).double(), no, ~no), state)
    assert moved["value"].tolist() == [[0.0, pytest.approx(0.7)]]
    assert moved["trial_time"].tolist() == [6.0]
