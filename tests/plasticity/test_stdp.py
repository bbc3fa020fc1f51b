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
from plastic_rl.neurons import NEURONS, Drive
from plastic_rl.plasticity import RULES, GainConfig, PairSTDP, Part, Synapse, SynapseConfig
from plastic_rl.plasticity.stdp import InhibitorySTDP, OneStepSTDP, TripletSTDP
from plastic_rl.plasticity.terms import TERMS

STEP = 0.25
RULE: dict[str, Any] = {"alpha": GainConfig(granularity="scalar", low=1.0, high=1.0, trainable=False)}


def synapse_of(post: int = 1, pre: int = 1, eligibility: Any = "spike_trace", **term: Any) -> Synapse:
    config = SynapseConfig(term={"name": "stdp_pair", **term}, eligibility=eligibility, modulator="reward", **RULE)
    return Synapse(config, post, pre, STEP)


def numbers(synapse: Synapse, **others: float) -> dict[str, Tensor]:
    """The parts' numbers in double precision, as given."""
    parts = (synapse.term, synapse.eligibility, synapse.modulator)
    values = {name: torch.tensor([value], dtype=torch.float64) for name, value in others.items()}
    values["eta"] = torch.ones(1, 1, dtype=torch.float64)
    return {name: value for part in parts for name, value in exact(part).items()} | values


def exact(part: Part) -> dict[str, Tensor]:
    """A part's numbers in double precision."""
    return {name: torch.tensor([getattr(part.options, name)], dtype=torch.float64) for name in part.numbers()}


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
@pytest.mark.parametrize(
    "term", ["stdp_pair", "stdp_one_step", "stdp_triplet", "stdp_inhibitory", "calcium", "covariance", "hebb"]
)
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


def event_driven(frequency: float, lag: float, pairs: int = 60) -> float:
    """What pairs of spikes at a frequency, Hz, do by the triplet rule: a step is the time between two spikes, ms."""
    between = 1000 / frequency
    first, second = abs(lag), between - abs(lag)
    terms = {step: TripletSTDP(step) for step in (first, second)}
    params = exact(TripletSTDP())
    state = {name: torch.zeros(1, 1).double() for name in TripletSTDP().state_entries(1, 1)}
    silent, spike, total = torch.zeros(1, 1).double(), torch.ones(1, 1).double(), 0.0
    sides = (spike, silent), (silent, spike)
    for _ in range(pairs):
        for step, (pre, post) in zip((second, first), sides if lag > 0 else sides[::-1], strict=True):
            total += terms[step].change(params, pre, post, silent, state).item()
            state |= terms[step].next_state(params, pre, post, silent, state)
    return total


@pytest.mark.parametrize(
    ("lag", "changes"),
    [(10.0, [0.0000, 0.1186, 0.2278, 0.5321, 0.7627]), (-10.0, [-0.3166, -0.3322, -0.3417, 0.1737, 0.7492])],
)
def test_triplets_depend_on_the_frequency_of_pairs_as_measured(lag: float, changes: list[float]) -> None:
    got = [event_driven(frequency, lag) for frequency in (0.1, 10, 20, 40, 50)]
    assert got == pytest.approx(changes, abs=1e-4)


def triplet_synapse(step: float, post: int, pre: int) -> tuple[Synapse, dict[str, Tensor]]:
    config = SynapseConfig(term="stdp_triplet", **RULE)
    synapse = Synapse(config, post, pre, step)
    return synapse, exact(synapse.term)


def test_triplets_of_poisson_spikes_are_a_bcm_rule() -> None:
    """Zero at 19.22 Hz; y, r1 and the o2 before y are independent, so that steady rates give the mean change."""
    step = 0.01
    synapse, params = triplet_synapse(step, 3, 1)
    crossing = 7.1e-3 * 33.7 / (6.5e-3 * 16.8 * 114)
    assert 1000 * crossing == pytest.approx(19.22, abs=0.01)
    pre = torch.full((1, 1), 0.01 * step).double()
    post = torch.tensor([[0.5, 1.0, 2.0]]).double() * crossing * step
    taus = {"presynaptic_trace": 16.8, "postsynaptic_trace": 33.7, "slow_presynaptic_trace": 101.0}
    taus["slow_postsynaptic_trace"] = 114.0
    state = {}
    for name, tau in taus.items():
        rate = post if "post" in name else pre
        state[name] = rate / (1 - math.exp(-step / tau))
    change = synapse.term.change(params, pre, post, torch.zeros(1, 3, 1).double(), state)
    mean = change.flatten() / (pre * post)[0] * step
    torch.testing.assert_close(mean, 7.1e-3 * 33.7 * torch.tensor([-0.5, 0.0, 1.0]).double(), atol=2e-3 * 0.24, rtol=0)


def test_random_spikes_are_depressed_below_the_crossing_and_potentiated_above() -> None:
    generator = torch.Generator().manual_seed(0)
    synapse, params = triplet_synapse(1.0, 40, 40)
    rates = torch.tensor([10.0, 30.0]).repeat_interleave(20) / 1000
    state, total = start(synapse), torch.zeros(1, 40, 40).double()
    for _ in range(20):
        pre = (torch.rand(1, 500, 40, generator=generator) < 0.02).double()
        post = (torch.rand(1, 500, 40, generator=generator) < rates).double()
        change, moved = synapse.lived(params, pre, post, state)
        state |= moved
        total += change
    low, high = total[0, :20].mean().item(), total[0, 20:].mean().item()
    # 10 s of steady rates y, x per ms: x y (A3+ tau+ tau_y y - A2- tau-), less what traces miss at the start.
    expected = [1e4 * 0.02 * y * (6.5e-3 * 16.8 * 114 * y - 7.1e-3 * 33.7) for y in (0.01, 0.03)]
    assert [low, high] == pytest.approx(expected, rel=0.15)


@pytest.mark.parametrize("centred", ["none", "pre", "both"])
@pytest.mark.parametrize("pairing", ["all", "nearest"])
def test_triplets_spike_by_spike(pairing: str, centred: str) -> None:
    """Against the definition, with every amplitude at work."""
    generator = torch.Generator().manual_seed(2)
    pre, post = ((torch.rand(1, 60, size, generator=generator) < 0.2).double() for size in (4, 3))
    options = {"a_plus": 0.3, "a_minus": 0.5, "a3_plus": 0.7, "a3_minus": 0.9, "pairing": pairing, "centred": centred}
    term = TripletSTDP(STEP, **options)
    params = exact(term)
    state = {name: torch.zeros(1, *entry.shape).double() for name, entry in term.state_entries(3, 4).items()}
    taus = {"r1": 16.8, "r2": 101.0, "o1": 33.7, "o2": 114.0}
    traces = {name: torch.zeros(4 if name[0] == "r" else 3).double() for name in taus}
    for x, y in zip(pre[0], post[0], strict=True):
        traces = {name: trace * math.exp(-STEP / taus[name]) for name, trace in traces.items()}
        arrived = x * (0.5 + 0.9 * traces["r2"])
        traces |= {name: traces[name] + x * (1 if pairing == "all" else 1 - traces[name]) for name in ("r1", "r2")}
        r, o, fired = traces["r1"], traces["o1"], y * (0.3 + 0.7 * traces["o2"])
        if centred in {"pre", "both"}:
            r, arrived = r - r.mean(), arrived - arrived.mean()
        if centred == "both":
            o, fired = o - o.mean(), fired - fired.mean()
        expected = torch.outer(fired, r) - torch.outer(o, arrived)
        got = term.change(params, x.unsqueeze(0), y.unsqueeze(0), torch.zeros(1, 3, 4).double(), state)
        torch.testing.assert_close(got[0], expected, atol=1e-12, rtol=0)
        state |= term.next_state(params, x.unsqueeze(0), y.unsqueeze(0), torch.zeros(1, 3, 4).double(), state)
        traces |= {name: traces[name] + y * (1 if pairing == "all" else 1 - traces[name]) for name in ("o1", "o2")}


def test_the_window_of_inhibitory_pairs_is_symmetric() -> None:
    """`exp(-|Delta| / tau)` either way, and every presynaptic spike takes `2 rho tau`."""
    term = InhibitorySTDP(STEP, target_rate=5.0, tau=20.0)
    params = exact(term)

    def change(pre: float, post: float) -> float:
        state, total = {name: torch.zeros(1, 1).double() for name in term.state_entries(1, 1)}, 0.0
        for x, y in zip(spikes(520, pre).unbind(1), spikes(520, post).unbind(1), strict=True):
            total += term.change(params, x, y, torch.zeros(1, 1, 1).double(), state).item()
            state |= term.next_state(params, x, y, torch.zeros(1, 1, 1).double(), state)
        return total

    for lag in (-60.0, -5.0, 0.0, 5.0, 60.0):
        assert change(65, 65 + lag) == pytest.approx(math.exp(-abs(lag) / 20) - 2 * 0.005 * 20, abs=1e-12)


def test_inhibition_settles_where_the_unit_fires_at_the_target_rate() -> None:
    """A leaky unit under more excitation than it takes to fire at 100 Hz; inhibition holds it at the target."""
    generator = torch.Generator().manual_seed(0)
    rule = RULES["inhibitory_stdp"].model_copy(update={"term": {"name": "stdp_inhibitory", "target_rate": 20.0}})
    synapse, neuron = Synapse(rule.model_copy(update={"clip": 100.0}), 4, 50), NEURONS["lif"](1.0)
    params = {name: parameter.value for name, parameter in synapse.parameters().items()}
    params["eta"] = torch.full((1, 1), 0.3)
    numbers = {name: parameter.value for name, parameter in neuron.parameters(4).items()}
    state = {name: torch.zeros(1, *entry.shape) for name, entry in synapse.state_entries().items()}
    unit = {name: torch.zeros(1, *entry.shape) for name, entry in neuron.state_entries(4).items()}
    counts = []
    with torch.no_grad():
        for _ in range(300):
            arriving = (torch.rand(1, 50, 50, generator=generator) < 0.02).float()
            current = 30 + 10 * torch.randn(1, 50, 4, generator=generator)
            current = current - (arriving @ state["trace"].mT)
            fired = []
            for step in range(50):
                spike, unit = neuron.step(numbers, Drive(current[:, step]), unit)
                fired.append(spike)
            course = torch.stack(fired, 1)
            change, moved = synapse.lived(params, arriving, course, state)
            state |= moved
            state |= synapse.gated(params, course[:, -1], change, state)
            counts.append(course.sum(1))
    rates = 20 * torch.cat(counts)
    assert rates[:2].mean().item() > 80
    assert rates[-100:].mean().item() == pytest.approx(20, rel=0.1)
    assert bool((state["trace"] >= 0).all())


def test_neighbouring_steps_change_a_synapse_by_their_order() -> None:
    """`A+ y(t) x(t-1) - A- y(t-1) x(t)`: only pairs that are one step apart, whatever a step's length is in ms."""
    for lag, expected in ((-2, 0.0), (-1, -0.3), (0, 0.0), (1, 0.7), (2, 0.0)):
        synapse = synapse_of()
        synapse.term = term = OneStepSTDP(STEP, a_plus=0.7, a_minus=0.3)
        params = numbers(synapse, tau_eligibility=math.inf) | exact(term)
        brought, state = synapse.lived(params, spikes(8, 1.0), spikes(8, 1.0 + lag * STEP), start(synapse))
        assert brought.item() == pytest.approx(expected, abs=1e-12)
    assert state["presynaptic_trace"].data_ptr() != state["postsynaptic_trace"].data_ptr()


def test_pictures_show_the_windows() -> None:
    pair, inhibitory, triplet = (kind().curves() for kind in (PairSTDP, InhibitorySTDP, TripletSTDP))
    lags, window = pair.x, pair.lines[""]
    expected = torch.where(lags >= 0, torch.exp(-lags / 20), -torch.exp(lags / 20))
    torch.testing.assert_close(window, expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(inhibitory.lines[""], torch.exp(-lags.abs() / 20) - 0.2, atol=1e-6, rtol=0)
    steps = OneStepSTDP(a_minus=0.5).curves()
    inside = (steps.x - steps.x.round()).abs() < 0.49  # not where it jumps
    expected = (steps.x.round() == 1).float() - 0.5 * (steps.x.round() == -1).float()
    assert torch.equal(steps.lines[""][inside], expected[inside])
    rates, mean = triplet.x, triplet.lines[""]
    # y (A3+ tau+ tau_y y - A2- tau-), y per ms.
    per_ms = rates / 1000
    torch.testing.assert_close(mean, per_ms * (6.5e-3 * 16.8 * 114 * per_ms - 7.1e-3 * 33.7), atol=1e-4, rtol=0)
    assert rates[mean.argmin() :][mean[mean.argmin() :] < 0].max().item() == pytest.approx(19.22, abs=0.5)
