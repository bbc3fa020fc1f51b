"""Time that calcium spends above its thresholds, against the published numbers of one pair and against fine steps."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from plastic_rl.plasticity.calcium import Calcium

# ms above 1.3 and above 1 of one pair, by t_post - t_pre; the paper's set DP.
PAIRS = {-30.0: (8.62, 17.93), -10.0: (12.92, 23.42), 0.0: (17.32, 27.65), 10.0: (18.04, 23.29), 30.0: (12.62, 17.87)}


def zeros(*shape: int) -> Tensor:
    return torch.zeros(1, *shape, dtype=torch.float64)


def start(term: Calcium) -> dict[str, Tensor]:
    return {name: zeros(*entry.shape) for name, entry in term.state_entries(1, 1).items()}


def changed(pre: float, post: float, trace: float, step_size: float, **options: Any) -> float:
    """What a presynaptic and a postsynaptic spike at these times, ms, do to a trace that is held, in 150 ms."""
    term = Calcium(step_size, **options)
    params = {name: parameter.value.double() for name, parameter in term.numbers().items()}
    state, total = start(term), 0.0
    for step in range(round(150 / step_size)):
        x, y = (zeros(1) + (step == round(time / step_size)) for time in (pre, post))
        total += term.change(params, x, y, zeros(1, 1) + trace, state).item()
        state |= term.next_state(params, x, y, zeros(1, 1), state)
    return total


@pytest.mark.parametrize("step_size", [0.5, 1.0, 5.0])
@pytest.mark.parametrize(("lag", "times"), PAIRS.items())
def test_times_above_the_thresholds_of_one_pair(lag: float, times: tuple[float, float], step_size: float) -> None:
    # F = 0 is potentiated by gamma_p T_p / tau, F = 1 depressed by gamma_d T_d / tau.
    above = (
        changed(40, 40 + lag, 0.0, step_size) * 150_000 / 321.808,
        -changed(40, 40 + lag, 1.0, step_size) * 150_000 / 200,
    )
    assert above == pytest.approx(times, abs=0.02)


def test_depression_where_post_comes_first_and_potentiation_where_pre_does() -> None:
    signs = [math.copysign(1, changed(40, 40 + lag, 0.5, 1.0)) for lag in PAIRS]
    assert signs == [-1, -1, 1, 1, 1]


@pytest.mark.parametrize("delay", [0.0, 0.3, 1.0, 2.6, 13.7])
def test_any_step_gives_the_same_where_spikes_fall_on_it(delay: float) -> None:
    for trace in (0.0, 0.7):
        coarse, fine = (changed(20, 26, trace, size, delay=delay, c_pre=1.6) for size in (1.0, 0.1))
        assert coarse == pytest.approx(fine, abs=1e-9)


def test_a_delay_of_whole_steps_keeps_as_many_spikes_and_no_rest() -> None:
    kept = {
        delay: (term.delay_steps, term.delay_rest) for delay in (0.0, 0.3, 1.2) for term in [Calcium(0.4, delay=delay)]
    }
    assert kept == {0.0: (0, 0.0), 0.3: (0, 0.3), 1.2: (3, 0.0)}
    assert "delayed_spikes" not in Calcium(0.4, delay=0.3).state_entries(1, 1)
    assert Calcium(0.4, delay=1.2).state_entries(1, 2)["delayed_spikes"].shape == (3, 2)


def test_gradients() -> None:
    term = Calcium(1.0, delay=1.3)
    params = {name: parameter.value.double().requires_grad_() for name, parameter in term.numbers().items()}
    generator = torch.Generator().manual_seed(0)
    pre, post = (torch.rand(4, 2, size, generator=generator).double() * 2 for size in (3, 2))

    def run(trace: Tensor, *values: Tensor) -> Tensor:
        numbers = dict(zip(params, values, strict=True))
        state = {name: torch.zeros(2, *entry.shape).double() for name, entry in term.state_entries(2, 3).items()}
        for x, y in zip(pre, post, strict=True):
            trace = trace + 100 * term.change(numbers, x, y, trace, state)
            state |= term.next_state(numbers, x, y, trace, state)
        return trace

    begun = torch.full((2, 2, 3), 0.4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(run, (begun, *params.values()))


def test_the_picture_shows_the_window_of_pairs() -> None:
    curves = Calcium().curves()
    places = [int((curves.x == lag).nonzero()) for lag in PAIRS]
    expected = {"F 0": [above[0] * 321.808 / 150_000 for above in PAIRS.values()]}
    expected["F 1"] = [-above[1] * 200 / 150_000 for above in PAIRS.values()]
    for name, changes in expected.items():
        assert curves.lines[name][places].tolist() == pytest.approx(changes, abs=5e-5)
