"""Spike-timing rules against their closed forms, and substeps taken together against substeps one by one."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from plastic_rl.errors import ConfigError
from plastic_rl.feedback import Feedback
from plastic_rl.plasticity import GainConfig, PairSTDP, Synapse, SynapseConfig
from plastic_rl.plasticity.terms import TERMS

STEP = 0.25
RULE: dict[str, Any] = {"alpha": GainConfig(granularity="scalar", low=1.0, high=1.0, trainable=False)}


def synapse_of(post: int = 1, pre: int = 1, eligibility: Any = "spike_trace", **term: Any) -> Synapse:
    config = SynapseConfig(term={"name": "stdp_pair", **term}, eligibility=eligibility, modulator="reward", **RULE)
    return Synapse(config, post, pre, STEP)


def numbers(synapse: Synapse, **others: float) -> dict[str, Tensor]:
    """The parts' numbers in double precision, as given."""
    parts = (synapse.term, synapse.eligibility, synapse.modulator)
    values = {name: getattr(part.options, name) for part in parts for name in part.numbers()} | others
    return {name: torch.tensor([value], dtype=torch.float64) for name, value in values.items()} | {
        "eta": torch.ones(1, 1, dtype=torch.float64)
    }


def start(synapse: Synapse, batch: int = 1) -> dict[str, Tensor]:
    entries = synapse.state_entries().items()
    return {name: torch.zeros(batch, *entry.shape, dtype=torch.float64) for name, entry in entries}


def spikes(length: int, *times: float) -> Tensor:
    """One unit's spikes, `(1, S, 1)`, at these times in ms."""
    train = torch.zeros(1, length, 1, dtype=torch.float64)
    for time in times:
        train[0, round(time / STEP), 0] = 1
    return train


def change(pre: list[float], post: list[float], **term: Any) -> float:
    """What the spikes of one pre and one post unit do to the synapse, with an eligibility that does not decay."""
    synapse = synapse_of(**term)
    params = numbers(synapse, tau_eligibility=math.inf)
    brought, _ = synapse.lived(params, spikes(800, *pre), spikes(800, *post), start(synapse))
    return brought.item()


@pytest.mark.parametrize("lag", [0.0, 0.25, 5.0, 10.0, 60.0])
def test_the_window_of_pairs(lag: float) -> None:
    options = {"a_plus": 0.7, "a_minus": 0.9, "tau_plus": 16.8, "tau_minus": 33.7}
    assert change([20], [20 + lag], **options) == pytest.approx(0.7 * math.exp(-lag / 16.8), abs=1e-12)
    if lag:
        assert change([20 + lag], [20], **options) == pytest.approx(-0.9 * math.exp(-lag / 33.7), abs=1e-12)


def test_all_spikes_pair_or_the_nearest_alone() -> None:
    decays = [math.exp(-lag / 20) for lag in (10, 30)]
    assert change([0, 20], [30]) == pytest.approx(sum(decays), abs=1e-12)
    assert change([0, 20], [30], pairing="nearest") == pytest.approx(decays[0], abs=1e-12)
    assert change([30], [0, 20]) == pytest.approx(-sum(decays), abs=1e-12)
    assert change([30], [0, 20], pairing="nearest") == pytest.approx(-decays[0], abs=1e-12)


def test_negative_amplitudes_turn_the_rule_round() -> None:
    assert change([0], [10], a_plus=-1.0) == pytest.approx(-math.exp(-0.5), abs=1e-12)


@pytest.mark.parametrize("centred", ["none", "pre", "both"])
def test_centred_traces_are_the_covariance_form(centred: str) -> None:
    """Against the definition, spike by spike."""
    generator = torch.Generator().manual_seed(0)
    pre, post = ((torch.rand(2, 40, size, generator=generator) < 0.1).double() for size in (4, 3))
    synapse = synapse_of(3, 4, centred=centred)
    params = numbers(synapse, tau_eligibility=math.inf)
    brought, _ = synapse.lived(params, pre, post, start(synapse, 2))

    def less_mean(values: Tensor, sides: str) -> Tensor:
        return values - values.mean(-1, keepdim=True) if centred in sides.split() else values

    r, o, expected = torch.zeros(2, 4).double(), torch.zeros(2, 3).double(), torch.zeros(2, 3, 4).double()
    decay = math.exp(-STEP / 20)
    for x, y in zip(pre.unbind(1), post.unbind(1), strict=True):
        r, o = decay * r + x, decay * o
        expected += torch.einsum("bo,bi->boi", less_mean(y, "both"), less_mean(r, "pre both"))
        expected -= torch.einsum("bo,bi->boi", less_mean(o, "both"), less_mean(x, "pre both"))
        o = o + y
    torch.testing.assert_close(brought, expected, atol=1e-12, rtol=0)
    assert bool(expected.any())


class Plain(PairSTDP):
    """Without factors: substeps are then taken one by one."""

    def change(self, params: Any, pre: Tensor, post: Tensor, trace: Tensor, state: Mapping[str, Tensor]) -> Tensor:
        return super().change(params, pre, post, trace, state)


@pytest.mark.parametrize("eligibility", ["none", "trace", {"name": "spike_trace", "tau_eligibility": 30.0}])
@pytest.mark.parametrize("term", ["stdp_pair", "hebb"])
def test_substeps_together_are_substeps_one_by_one(term: str, eligibility: Any) -> None:
    generator = torch.Generator().manual_seed(1)
    pre, post = ((torch.rand(5, 30, size, generator=generator) < 0.2).double() for size in (4, 3))
    config = SynapseConfig(term=term, eligibility=eligibility, modulator="reward", **RULE)
    together = Synapse(config, 3, 4, STEP)
    apart = Synapse(config, 3, 4, STEP)
    apart._factored = False
    params = numbers(together)
    begun = {name: torch.rand(entry.shape, generator=generator).double() for name, entry in start(together, 5).items()}
    brought, state = together.lived(params, pre, post, begun)
    expected_brought, expected = apart.lived(params, pre, post, begun)
    torch.testing.assert_close(state, expected, atol=1e-12, rtol=0)
    torch.testing.assert_close(brought, expected_brought, atol=1e-12, rtol=0)
    if isinstance(eligibility, dict):  # taken in afterwards is taken in in every substep
        current = begun
        for x, y in zip(pre.unbind(1), post.unbind(1), strict=True):
            current = current | together.update(params, x, y, current, told(0.0)) | {"trace": begun["trace"]}
        _, taken_in = together.taken_in(params, brought, begun | state)
        torch.testing.assert_close(taken_in["eligibility"], current["eligibility"], atol=1e-12, rtol=0)


def test_a_subclass_with_a_change_of_its_own_is_not_taken_by_its_parents_factors() -> None:
    TERMS.register("plain", Plain)
    try:
        assert not Synapse(SynapseConfig(term="plain", **RULE), 1, 1)._factored
    finally:
        del TERMS._entries["plain"]
    assert synapse_of()._factored


def told(reward: float) -> Feedback:
    no = torch.zeros(1, dtype=torch.bool)
    return Feedback(torch.zeros(1, 1), torch.tensor([reward], dtype=torch.float64), no, ~no)


def test_a_late_reward_reaches_what_is_left_of_the_eligibility() -> None:
    """`exp(-d T / tau_E)` of what it was, d steps of T ms after the acting one; nothing without a reward."""
    substeps, tau = 40, 50.0
    synapse = synapse_of(eligibility={"name": "spike_trace", "tau_eligibility": tau})
    params = numbers(synapse, reward_average_rate=0.0)
    quiet = torch.zeros(1, substeps, 1, dtype=torch.float64)
    brought, moved = synapse.lived(params, spikes(substeps, 2), spikes(substeps, 7), start(synapse))
    state = start(synapse) | moved
    state |= synapse.taken_in(params, brought, state)[1]
    first = state["eligibility"].item()
    assert first == pytest.approx(math.exp(-5 / 20) * math.exp(-(substeps * STEP - 7 - STEP) / tau), abs=1e-12)
    for late in range(4):
        untouched = synapse.gated(params, quiet[:, 0], state["eligibility"], state, told(0.0))
        assert untouched["trace"].item() == 0.0
        rewarded = synapse.gated(params, quiet[:, 0], state["eligibility"], state, told(1.0))
        expected = first * math.exp(-late * substeps * STEP / tau)
        assert rewarded["trace"].item() == pytest.approx(expected, abs=1e-12)
        state |= synapse.lived(params, quiet, quiet, state)[1]


def test_options_out_of_range_are_refused_with_the_nearest_name() -> None:
    with pytest.raises(ConfigError, match=r"tau_plus: must be greater than or equal to 0.1, got 0"):
        PairSTDP(tau_plus=0)
    with pytest.raises(ConfigError, match=r"tau_pluss: unknown key. Did you mean 'tau_plus'"):
        PairSTDP(tau_pluss=1)
    with pytest.raises(ConfigError, match=r"unknown number of this part 'tau'"):
        PairSTDP(learned=("tau",))
    assert PairSTDP(learned=("a_plus",)).numbers()["a_plus"].trainable
    assert not PairSTDP(learned=("a_plus",)).numbers()["a_minus"].trainable
    assert PairSTDP().numbers()["tau_plus"].valid == (0.1, 1e6)
