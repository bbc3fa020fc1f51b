"""Three steps of two post and two pre neurons under each rule, worked out by hand.

step      1          2           3
x       (1, 0)     (1, 1)     (0, -1)
y       (1, -1)    (1/2, 0)   (1, 1)
a=y xT  [ 1  0]    [.5 .5]    [0 -1]
        [-1  0]    [ 0  0]    [0 -1]
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import pytest
import torch
from torch import Tensor

from plastic_rl.feedback import Feedback
from plastic_rl.plasticity import RULES, Synapse

PRE = torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, -1.0]], dtype=torch.float64)
POST = torch.tensor([[1.0, -1.0], [0.5, 0.0], [1.0, 1.0]], dtype=torch.float64)
Matrix = list[list[float]]

# M = tanh(w y_1) with tanh(w) = .6: at y_1 = 1 it is .6; at y_1 = 1/2, tanh(w/2) = (1 - sqrt(1 - .36)) / .6 = 1/3.
SIGNAL = {"modulator_weight": [[math.atanh(0.6), 0.0]], "modulator_bias": [0.0]}

# Oja's rule in the general form: theta[0,1,1] = 1, theta[1,2,0] = -1.
THETA = [
    [[[[float((i, j) == (1, 1)) if c == 0 else -float((c, i, j) == (1, 2, 0))]] for j in range(3)] for i in range(3)]
    for c in range(3)
]

EXAMPLES: dict[str, tuple[Mapping[str, object], list[float] | None, list[Matrix]]] = {
    # eta .5. F1 = .5 a1; F2 = .5 F1 + .5 a2 = [.25+.25 .25; -.25 0]; F3 = .5 F2 + .5 a3 = [.25 .125-.5; -.125 -.5].
    "differentiable_plasticity": (
        {"eta": [[0.5]]},
        None,
        [[[0.5, 0], [-0.5, 0]], [[0.5, 0.25], [-0.25, 0]], [[0.25, -0.375], [-0.125, -0.5]]],
    ),
    # eta .5. F1 = .5 a1. Step 2, row 1 (y = .5): x - y F = (1 - .25, 1), times .5 * .5: (.1875, .25); row 2 stays.
    # Step 3, row 1 (y = 1): x - F = (-.6875, -1.25), halved: (-.34375, -.625); row 2: (.5, -1) halved: (.25, -.5).
    "oja": (
        {"eta": [[0.5]]},
        None,
        [[[0.5, 0], [-0.5, 0]], [[0.6875, 0.25], [-0.5, 0]], [[0.34375, -0.375], [-0.25, -0.5]]],
    ),
    # eta .5. F1 = .5 a1. Step 2, row 1 (y = .5): x - F = (.5, 1), times .25: (.125, .25); row 2 stays. Step 3, row 1:
    # (-.625, -1.25) halved; row 2: (.5, -1) halved.
    "instar": (
        {"eta": [[0.5]]},
        None,
        [[[0.5, 0], [-0.5, 0]], [[0.625, 0.25], [-0.5, 0]], [[0.3125, -0.375], [-0.25, -0.5]]],
    ),
    # eta .8, c 1. F1 = .8 a1; F2: .8 + .4 = 1.2 is clipped to 1; F3 = F2 + .8 a3 (from 1, not from 1.2).
    "hard_clip": (
        {"eta": [[0.8]]},
        None,
        [[[0.8, 0], [-0.8, 0]], [[1, 0.4], [-0.8, 0]], [[1, -0.4], [-0.8, -0.8]]],
    ),
    # eta .5. F1 = .5 a1 (from 0: factor 1). Step 2: D = .25: .5 + .25 (1 - .5) = .625; 0 + .25.
    # Step 3: D = -.5: .25 - .5 (1 + .25) = -.375; 0 - .5.
    "soft_clip": (
        {"eta": [[0.5]]},
        None,
        [[[0.5, 0], [-0.5, 0]], [[0.625, 0.25], [-0.5, 0]], [[0.625, -0.375], [-0.5, -0.5]]],
    ),
    # M = .6, 1/3, .6. F1 = .6 a1; F2 = F1 + a2 / 3 = [.6+1/6 1/6; -.6 0]; F3 = F2 + .6 a3.
    "backpropamine_simple": (
        SIGNAL,
        None,
        [[[0.6, 0], [-0.6, 0]], [[23 / 30, 1 / 6], [-0.6, 0]], [[23 / 30, -13 / 30], [-0.6, -0.6]]],
    ),
    # f = (2, 0), g = (0, .5): G = (2 M, .5). F1: 1.2 clipped to 1, -.5. F2, row 1 (G = 2/3): 1 + 1/3 clipped to 1, 1/3.
    # F3, row 1 (G = 1.2): 1, 1/3 - 1.2; row 2: -.5, -.5.
    "backpropamine_fan_out": (
        SIGNAL | {"modulator_fan_out": [2.0, 0.0], "modulator_offset": [0.0, 0.5]},
        None,
        [[[1, 0], [-0.5, 0]], [[1, 1 / 3], [-0.5, 0]], [[1, 1 / 3 - 1.2], [-0.5, -0.5]]],
    ),
    # eta_E .5; F uses the old E. E = 0 so F1 = 0; E1 = .5 a1. F2 = M2 E1 = E1 / 3;
    # E2 = .5 E1 + .5 a2 = [.5 .25; -.25 0]. F3 = F2 + .6 E2 = [1/6+.3 .15; -1/6-.15 0].
    "backpropamine_retroactive": (
        SIGNAL | {"eta_eligibility": [[0.5]]},
        None,
        [[[0, 0], [0, 0]], [[1 / 6, 0], [-1 / 6, 0]], [[7 / 15, 0.15], [-19 / 60, 0]]],
    ),
    # r = 1, 0, 1; rate .5: rbar before each = 0, .5, .25; M = 1, -.5, .75.
    # F1 = a1; F2 = F1 - .5 a2 = [.75 -.25; -1 0]; F3 = F2 + .75 a3 = [.75 -1; -1 -.75].
    "reward_gated": (
        {"eta": [[1.0]], "reward_average_rate": [0.5]},
        [1.0, 0.0, 1.0],
        [[[1, 0], [-1, 0]], [[0.75, -0.25], [-1, 0]], [[0.75, -1], [-1, -0.75]]],
    ),
    # M as above, E as in the retroactive row. F1 = 0; F2 = -.5 E1 = [-.25 0; .25 0]; F3 = F2 + .75 E2.
    "reward_gated_retroactive": (
        {"eta": [[1.0]], "reward_average_rate": [0.5], "eta_eligibility": [[0.5]]},
        [1.0, 0.0, 1.0],
        [[[0, 0], [0, 0]], [[-0.25, 0], [0.25, 0]], [[0.125, 0.1875], [0.0625, 0]]],
    ),
    # A, B, C, D = 1, .5, .25, -.25, eta 1: D = (y + .5) x + .25 (y - 1), then division by the largest.
    # F1: [1.5 0; -1 -.5] / 1.5. F2: [1 + .875 .875; -2/3 + .25 -1/3 + .25] / 1.875.
    # F3: [1 7/15 - 1.5; -2/9 -2/45 - 1.5] / (139/90).
    "abcd": (
        {
            "eta": [[1.0]],
            "coefficient_a": [[1.0]],
            "coefficient_b": [[0.5]],
            "coefficient_c": [[0.25]],
            "coefficient_d": [[-0.25]],
        },
        None,
        [
            [[1, 0], [-2 / 3, -1 / 3]],
            [[1, 7 / 15], [-2 / 9, -2 / 45]],
            [[90 / 139, -93 / 139], [-20 / 139, -1]],
        ],
    ),
    # As Oja above; nothing reaches the clip at 1.
    "general": (
        {"eta": [[0.5]], "theta": THETA},
        None,
        [[[0.5, 0], [-0.5, 0]], [[0.6875, 0.25], [-0.5, 0]], [[0.34375, -0.375], [-0.25, -0.5]]],
    ),
    # eta .5, threshold .5: y - .5 = (.5, -1.5), (0, -.5), (.5, .5).
    "presynaptically_gated": (
        {"eta": [[0.5]], "threshold": [[0.5]]},
        None,
        [[[0.25, 0], [-0.75, 0]], [[0.25, 0], [-1, -0.25]], [[0.25, -0.25], [-1, -0.5]]],
    ),
    # eta .5, rate .5: theta before each step (0, 0), (.5, .5), (.375, .25); y (y - theta) = (1, 1), (0, 0), (.625, .75)
    "bcm": (
        {"eta": [[0.5]], "bcm_rate": [0.5]},
        None,
        [[[0.5, 0], [0.5, 0]], [[0.5, 0], [0.5, 0]], [[0.5, -0.3125], [0.5, -0.375]]],
    ),
    # eta .5: y - F x = (1, -1), then (.5, 0) - (.5, -.5) = (0, .5), then (1, 1) - (0, -.25) = (1, 1.25).
    "delta": (
        {"eta": [[0.5]]},
        None,
        [[[0.5, 0], [-0.5, 0]], [[0.5, 0], [-0.25, 0.25]], [[0.5, -0.5], [-0.25, -0.375]]],
    ),
}
# Traces halve in a step: tau = 1 / ln 2. r: (1, 0), (1.5, 1), (.75, -.5); o before: 0, (.5, -.5), (.5, -.25).
# D = y rT - o xT: [1 0; -1 0], [.25 0; .5 .5], [.75 0; .75 -.75].
HALF = [1 / math.log(2)]
PAIR = {"a_plus": [1.0], "a_minus": [1.0], "tau_plus": HALF, "tau_minus": HALF}
EXAMPLES |= {
    # eta .5, c 1: F3 = .625 + .375 is just within the bound.
    "stdp": (
        {"eta": [[0.5]], **PAIR},
        None,
        [[[0.5, 0], [-0.5, 0]], [[0.625, 0], [-0.25, 0.25]], [[1, 0], [0.125, -0.125]]],
    ),
    # E halves too, and takes D in before it is gated: [1 0; -1 0], [.75 0; 0 .5], [1.125 0; .75 -.5].
    # rbar before each reward 1, 0, 1 (rate .5): 0, .5, .25; eta .5: G = .5, -.25, .375.
    "r_stdp": (
        {
            "eta": [[0.5]],
            "tau_eligibility": HALF,
            "reward_average_rate": [0.5],
            "reward_average_start": [0.0],
            **PAIR,
        },
        [1.0, 0.0, 1.0],
        [[[0.5, 0], [-0.5, 0]], [[0.3125, 0], [-0.5, -0.125]], [[0.734375, 0], [-0.21875, -0.3125]]],
    ),
}
EXAMPLES |= {
    # eta .5, means halve their distance in a step: before each (0, 0), (.5, -.5), (.5, -.25) of y; (0, 0), (.5, 0),
    # (.75, .5) of x. D = [1 0; -1 0], [0 0; .25 .5], [.5; 1.25] (-.75 -1.5).
    "covariance": (
        {"eta": [[0.5]], "mean_rate": [0.5]},
        None,
        [[[0.5, 0], [-0.5, 0]], [[0.5, 0], [-0.375, 0.25]], [[0.3125, -0.375], [-0.84375, -0.6875]]],
    ),
    # r1 and o1 as r and o above; r2 and o2 before their own spikes: (0, 0), (.5, 0), (.75, .5) and o. All A 1, eta .5.
    # y (1 + o2) = (1, -1), (.75, 0), (1.5, .75); x (1 + r2) = (1, 0), (1.5, 1), (0, -1.5).
    # D = [1 0; -1 0], [1.125-.75 .75-.5; .75 .5], [1.125 -.75+.75; .5625 -.375-.375]; F3: 1.25 is clipped to 1.
    "triplet": (
        {"eta": [[0.5]], **PAIR, "a3_plus": [1.0], "a3_minus": [1.0], "tau_x": HALF, "tau_y": HALF},
        None,
        [[[0.5, 0], [-0.5, 0]], [[0.6875, 0.125], [-0.125, 0.25]], [[1, 0.125], [0.15625, -0.125]]],
    ),
    # Traces as above; 2 rho tau = .5; eta .5. o - .5 = (-.5, -.5), (0, -1), (0, -.75).
    # D = [1-.5 0; -1-.5 0], [.75 .5; -1 -1], [.75 -.5; .75 -.5+.75]; F1 below 0 is clipped, F3 just reaches 1.
    "inhibitory_stdp": (
        {"eta": [[0.5]], "tau": HALF, "target_rate": [250 * math.log(2)]},
        None,
        [[[0.25, 0], [0, 0]], [[0.625, 0.25], [0, 0]], [[1, 0], [0.375, 0.125]]],
    ),
    # D: nothing; [.5 0; 0 0] - [1 1; -1 -1]; [1 1; 1 1] - [0 -.5; 0 0]. eta .5: F2 = [-.25 -.5; .5 .5], clipped at 0;
    # F3 = [.5 .75; 1 1]; rows are divided by their sums.
    "sorn": (
        {"eta": [[0.5]], "a_plus": [1.0], "a_minus": [1.0]},
        None,
        [[[0, 0], [0, 0]], [[0, 0], [0.5, 0.5]], [[0.4, 0.6], [0.5, 0.5]]],
    ),
    # Calcium halves in a step, presynaptic calcium is still on its way (13.7 steps): c = (4, -4), (4, -2), (6, 3) after
    # the jumps by 4 y. Time above theta_p = 2 sqrt 2: log2(c) - 1.5 = .5, .5, 1 (all of the step); log2(3) - 1.5 for
    # the second unit; above theta_d = 1: 1 wherever c > 1. F += .5 (1 - F) T_p - .25 F T_d.
    "calcium": (
        {
            "eta": [[1.0]],
            "c_pre": [1.0],
            "c_post": [4.0],
            "tau_calcium": HALF,
            "theta_p": [8**0.5],
            "theta_d": [1.0],
            "gamma_p": [0.5],
            "gamma_d": [0.25],
            "tau_weight": [1.0],
        },
        None,
        [[[0.25] * 2, [0] * 2], [[0.375] * 2, [0] * 2], [[0.59375] * 2, [0.5 * (math.log2(3) - 1.5)] * 2]],
    ),
}


def start(synapse: Synapse, batch: int = 1) -> dict[str, Tensor]:
    entries = synapse.state_entries().items()
    return {name: torch.zeros(batch, *entry.shape, dtype=torch.float64) for name, entry in entries}


def told(reward: float) -> Feedback:
    """What a step with one lifetime brought."""
    no = torch.zeros(1, dtype=torch.bool)
    return Feedback(torch.zeros(1, 2), torch.tensor([reward], dtype=torch.float64), no, ~no)


def given(values: Mapping[str, object]) -> dict[str, Tensor]:
    return {name: torch.tensor(value, dtype=torch.float64) for name, value in values.items()}


def test_every_rule_but_the_fixed_one_has_an_example() -> None:
    assert set(EXAMPLES) == set(RULES) - {"fixed"}


@pytest.mark.parametrize("rule", EXAMPLES)
def test_synapse_follows_the_example(rule: str) -> None:
    values, rewards, expected = EXAMPLES[rule]
    synapse = Synapse(RULES[rule], 2, 2)
    state = start(synapse)
    for step in range(3):
        feedback = None if rewards is None else told(rewards[step])
        state = synapse.update(given(values), PRE[step : step + 1], POST[step : step + 1], state, feedback)
        torch.testing.assert_close(
            state["trace"][0], torch.tensor(expected[step], dtype=torch.float64), atol=1e-12, rtol=0
        )


def test_eligibility_and_reward_average_follow_the_example() -> None:
    # E3 = .5 E2 + .5 a3 = [.25 .125-.5; -.125 -.5]; rbar after r = 1, 0, 1 at rate .5: .5, .25, .625.
    values, rewards, _ = EXAMPLES["reward_gated_retroactive"]
    assert rewards is not None
    synapse = Synapse(RULES["reward_gated_retroactive"], 2, 2)
    state = start(synapse)
    averages = []
    for step in range(3):
        state = synapse.update(given(values), PRE[step : step + 1], POST[step : step + 1], state, told(rewards[step]))
        averages.append(state["reward_average"].item())
    assert averages == [0.5, 0.25, 0.625]
    assert state["eligibility"][0].tolist() == [[0.25, -0.375], [-0.125, -0.5]]


def test_the_fixed_rule_has_no_trace() -> None:
    synapse = Synapse(RULES["fixed"], 2, 2)
    assert synapse.non_plastic
    assert synapse.state_entries() == {}
    assert synapse.update({}, PRE[:1], POST[:1], {}) == {}
    assert synapse.current({}, PRE[:1], {}).tolist() == [[0.0, 0.0]]
