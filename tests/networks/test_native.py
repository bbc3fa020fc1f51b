"""The native core against the plain reference in float64, its levels against each other, and acting against both."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from plastic_rl._native import Core, extension, levels
from plastic_rl.networks import PlasticRNN
from plastic_rl.networks.native import LANES, MOST_PROBABLE, OUTPUTS, SAMPLES, Acting, NativeRule
from plastic_rl.plasticity import TERMS, Synapse, SynapseConfig
from plastic_rl.plasticity.terms import Hebb
from tests.networks.cases import Case, gradients, make_case, run_steps, tracked, weighted_sum

pytestmark = pytest.mark.skipif(not levels(), reason="the package is installed without its compiled core")

COVARIANCE = {"name": "covariance", "threshold": "parameter", "threshold_post": 0.2, "threshold_pre": -0.1}
RULES: dict[str, dict[str, Any]] = {
    "decay": {"rule": "differentiable_plasticity"},
    "decay, clipped": {"rule": "differentiable_plasticity", "bound": "hard_clip", "clip": 0.3},
    "decay, eligibility": {"rule": "differentiable_plasticity", "eligibility": "trace"},
    "oja": {"rule": "oja"},
    "oja, fan-out, clipped": {"rule": "oja", "modulator": "fan_out", "bound": "hard_clip", "clip": 0.4},
    "oja, soft, eligibility": {"rule": "oja", "bound": "soft_clip", "eligibility": "trace"},
    "hard clip": {"rule": "hard_clip", "clip": 0.3},
    "soft clip": {"rule": "soft_clip"},
    "simple": {"rule": "backpropamine_simple", "clip": 0.3},
    "fan-out": {"rule": "backpropamine_fan_out", "clip": 0.3},
    "fan-out, decay": {"rule": "backpropamine_fan_out", "decay": True},
    "retroactive": {"rule": "backpropamine_retroactive", "clip": 0.3},
    "reward": {"rule": "reward_gated", "clip": 0.3},
    "reward, retroactive": {"rule": "reward_gated_retroactive", "clip": 0.3},
    "prediction error": {
        "rule": "reward_gated",
        "modulator": {"name": "reward_prediction_error", "learned": ["value_rate"], "discount": 0.5},
    },
    "channels": {
        "rule": "reward_gated",
        "modulator": {"name": "channels", "channels": ["reward", "learned_signal", "serotonin"]},
    },
    "channels at once": {
        "rule": "backpropamine_retroactive",
        "modulator": {"name": "channels", "channels": ["learned_signal"]},
    },
    "covariance": {"rule": "covariance", "term": COVARIANCE, "clip": 0.3},
    "covariance, reward, eligibility": {"rule": "reward_gated_retroactive", "term": COVARIANCE},
    "sparse": {"rule": "backpropamine_retroactive", "structure": {"name": "sparse", "density": 0.4}},
    "sparse oja": {"rule": "oja", "structure": {"name": "sparse", "density": 0.4}},
}
RESETS: dict[str, dict[str, Any]] = {
    "by lifetime": {},
    "activity by trial": {"reset": {"activity": "trial"}},
    "trace by trial": {"reset": {"trace": "trial"}},
}
GRANULARITIES = ["scalar", "neuron", "synapse"]


def contracting(config: dict[str, Any], **sizes: Any) -> Case:
    """A case in which rounding does not grow: strong plasticity is chaotic, and then it does whatever the code."""
    case = make_case({"kind": "plastic_rnn", **config}, scale=0.05, **sizes)
    case.params["recurrent_weight"] = 0.5 * case.params["recurrent_weight"]
    return case


def cast(case: Case, dtype: torch.dtype) -> Case:
    def own(values: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: value.to(dtype) if value.is_floating_point() else value for name, value in values.items()}

    feedbacks = case.feedbacks._replace(action=case.feedbacks.action.to(dtype), reward=case.feedbacks.reward.to(dtype))
    return replace(case, params=own(case.params), xs=case.xs.to(dtype), state=own(case.state), feedbacks=feedbacks)


def computed(case: Case, how: str, core: Core, *, of_state: bool = True) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Values and gradients of a loss on the features, and on the final state where asked for."""
    case.network.core = core
    own, leaves = tracked(case)
    unroll = getattr(own.network, how)
    features, state = unroll(own.params, own.xs, own.feedbacks, own.state, own.starts)
    found = gradients(weighted_sum(features, state if of_state else {}), leaves)
    return {"features": features.detach(), **{name: one.detach() for name, one in state.items()}}, found


def check_against_the_reference(case: Case, *, of_state: bool = True) -> None:
    assert isinstance(case.network, PlasticRNN)
    assert case.network._native is not None
    values, found = computed(cast(case, torch.float64), "unroll_reference", Core(None, ""), of_state=of_state)
    first = None
    for level in levels():
        own_values, own = computed(cast(case, torch.float32), "unroll", Core(level, ""), of_state=of_state)
        for name, value in values.items():
            assert (own_values[name] - value).abs().max() < 2e-6, (level, name)
        largest = max(one.abs().max().item() for one in found.values())
        for name, one in found.items():
            assert (own[name] - one).abs().max() < 5e-5 * largest, (level, name)
        bits = own_values | {f"gradient by {name}": one for name, one in own.items()}
        first = bits if first is None else first
        assert all(torch.equal(first[name], one) for name, one in bits.items()), level


@pytest.mark.parametrize("resets", RESETS)
@pytest.mark.parametrize("granularity", GRANULARITIES)
@pytest.mark.parametrize("rule", RULES)
def test_values_and_gradients_are_those_of_the_reference_in_float64(rule: str, granularity: str, resets: str) -> None:
    """And every level of instructions computes the same bits."""
    gains = {name: {"granularity": granularity} for name in ("alpha", "eta", "eta_eligibility")}
    # 50 steps, and a unit more than whole vectors have.
    case = contracting(RULES[rule] | gains | RESETS[resets], steps=50, batch=3, units=17)
    check_against_the_reference(case, of_state=resets != "by lifetime")


@given(
    st.sampled_from(sorted(RULES)),
    st.integers(1, 4),
    st.integers(1, 9),
    st.sampled_from([1, 2, 5, 15, 16, 33, 70]),
    st.integers(0, 2**20),
)
@settings(max_examples=40, deadline=None)
def test_any_shape(rule: str, batch: int, steps: int, units: int, seed: int) -> None:
    sparse = units == 1 and "sparse" in rule
    config = RULES["simple" if sparse else rule]
    check_against_the_reference(contracting(config, batch=batch, steps=steps, units=units, seed=seed, start_rate=0.2))


@pytest.mark.parametrize("rule", ["simple", "retroactive", "decay"])
def test_a_hundred_units_over_two_hundred_steps(rule: str) -> None:
    """In float64 the two agree over a whole lifetime: what grows beyond is chaos, and no error."""
    case = contracting(RULES[rule], steps=200, batch=2, units=100, start_rate=0.01)
    check_against_the_reference(case)


# --- acting ----------------------------------------------------------------------------------------------------------


def acted(case: Case, kept: int, *, shape: tuple[int, ...] | None = None) -> tuple[list[Tensor], Acting]:
    """Features of every step, by acting in place with `kept` steps kept."""
    steps, batch = case.xs.shape[0], case.xs.shape[-2]
    acting = case.network.acting(case.params, case.state, shape or (batch,), kept)
    assert isinstance(acting, Acting)
    features = []
    for step in range(steps):
        rows = case.xs[step].reshape(-1, case.xs.shape[-1]).numpy()
        acting.step(rows, case.starts[step].reshape(-1).numpy())
        features.append(acting.features.clone())
    return features, acting


def observed(case: Case) -> Case:
    """A case whose feedback is that of its observations, as a policy would cut it out."""
    layout, _ = case.network._surroundings
    xs = case.xs.clone()
    xs[..., layout.reward[0]] = case.feedbacks.reward
    xs[..., layout.trial_start[0]] = case.feedbacks.trial_start.to(xs.dtype)
    return replace(case, xs=xs)


@pytest.mark.parametrize("kept", [23, 4])
@pytest.mark.parametrize("rule", RULES)
def test_acting_is_the_reference_step_by_step(rule: str, kept: int) -> None:
    case = observed(cast(contracting(RULES[rule] | RESETS["activity by trial"], steps=23, units=18), torch.float32))
    case.network.core = Core(levels()[-1], "")
    features, acting = acted(case, kept)
    case.network.core = Core(None, "")
    expected, state = run_steps(case)
    assert torch.allclose(torch.stack(features), expected, atol=2e-6)
    assert set(acting) == set(state)
    for name, value in state.items():
        assert torch.allclose(acting[name], value, atol=2e-6), name


@pytest.mark.parametrize("rule", ["simple", "decay", "reward, retroactive", "covariance", "sparse"])
def test_what_was_acted_is_learned_from_as_it_is(rule: str) -> None:
    """With what acting left, gradients are those of computing it anew, to the last bit."""
    case = observed(cast(contracting(RULES[rule], steps=23, units=18), torch.float32))
    case.network.core = Core(levels()[-1], "")
    _, acting = acted(case, 23)
    found = []
    for recorded in (None, acting):
        own, leaves = tracked(case)
        features, state = own.network.unroll(
            own.params, own.xs, own.feedbacks, own.state, own.starts, recorded=recorded
        )
        found.append({"features": features.detach(), **gradients(weighted_sum(features, {}), leaves)})
        assert torch.equal(state["trace"], acting["trace"])
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


def test_a_parameter_changed_meanwhile_is_not_acted_by() -> None:
    """Sixteen units fill whole vectors: nothing needs padding, and all is copied the same."""
    case = observed(cast(contracting(RULES["fan-out"], steps=6, units=16), torch.float32))
    undisturbed, _ = acted(case, 6)
    acting = case.network.acting(case.params, case.state, (case.xs.shape[1],), 6)
    assert acting is not None
    for value in case.params.values():
        value.mul_(2)
    for step in range(6):
        acting.step(case.xs[step].numpy(), case.starts[step].numpy())
        assert torch.equal(acting.features, undisturbed[step])


def test_looking_at_the_state_changes_nothing() -> None:
    case = observed(cast(contracting(RULES["retroactive"], steps=12, units=18), torch.float32))
    undisturbed, _ = acted(case, 12)
    acting = case.network.acting(case.params, case.state, (case.xs.shape[1],), 12)
    assert acting is not None
    for step in range(12):
        acting.step(case.xs[step].numpy(), case.starts[step].numpy())
        before = acting.state()["trace"].clone()
        assert torch.equal(acting["trace"], before)
        assert torch.equal(acting.features, undisturbed[step])


def test_the_state_is_that_of_the_last_step_whenever_it_is_read() -> None:
    """Also where two reads are as many steps apart as are kept; a copy stays as it was."""
    case = observed(cast(contracting(RULES["retroactive"], steps=12, units=18), torch.float32))
    acting = case.network.acting(case.params, case.state, (case.xs.shape[1],), 4)
    assert acting is not None
    copies = []
    for step in range(12):
        acting.step(case.xs[step].numpy(), case.starts[step].numpy())
        if step % 4 == 2:
            copies.append((step, copy.deepcopy(acting)))
    case.network.core = Core(None, "")
    for step, kept in copies:
        _, expected = run_steps(replace(case, xs=case.xs[: step + 1]))
        assert type(kept) is dict
        for name, value in expected.items():
            assert torch.allclose(kept[name], value, atol=2e-6), (step, name)


def test_units_that_are_the_actions_do_not_act_in_place() -> None:
    """Their features are fewer than the units; `step` tells them apart."""
    case = make_case({"kind": "plastic_rnn", "rule": "hard_clip", "readout": "units"}, dtype=torch.float32, units=9)
    assert case.network.acting(case.params, case.state, (case.xs.shape[1],), 4) is None


@pytest.mark.parametrize("rule", ["simple", "retroactive", "reward"])
def test_a_population_is_its_individuals(rule: str) -> None:
    case = observed(cast(contracting(RULES[rule], steps=9, batch=4, units=18), torch.float32))
    generator = torch.Generator().manual_seed(3)
    params = {
        name: torch.stack([one, one + 0.05 * torch.randn(one.shape, generator=generator)])
        for name, one in case.params.items()
    }
    state = {name: torch.stack([one, 0.5 * one]) for name, one in case.state.items()}
    both = replace(
        case, params=params, state=state, xs=torch.stack([case.xs] * 2, 1), starts=torch.stack([case.starts] * 2, 1)
    )
    features, acting = acted(both, 9, shape=(2, 4))
    for place in range(2):
        alone = replace(
            case,
            params={name: one[place] for name, one in params.items()},
            state={name: one[place] for name, one in state.items()},
        )
        own, own_acting = acted(alone, 9)
        assert torch.equal(torch.stack(features)[:, place], torch.stack(own))
        assert torch.equal(acting["trace"][place], own_acting["trace"])


@pytest.mark.parametrize("rule", ["simple", "decay, eligibility", "reward"])
def test_frozen_synapses_stay(rule: str) -> None:
    case = observed(cast(contracting(RULES[rule], steps=9, units=18, start_rate=0.0), torch.float32))
    with case.network.freeze_plasticity():
        features, acting = acted(case, 4)
        case.network.core = Core(None, "")
        expected, _ = run_steps(case)
    assert torch.allclose(torch.stack(features), expected, atol=2e-6)
    assert torch.equal(acting["trace"], case.state["trace"])


def test_outputs_and_choices_of_a_head() -> None:
    case = cast(contracting(RULES["simple"], steps=40, batch=50, units=18), torch.float32)
    head = torch.randn(5, 18, generator=torch.Generator().manual_seed(1)), torch.randn(5)
    acting = case.network.acting(case.params, case.state, (50,), 40, head)
    assert acting is not None
    drawn = np.random.default_rng(0).random((40, 50), dtype=np.float32)
    for step in range(40):
        choice = (OUTPUTS, SAMPLES, MOST_PROBABLE)[step % 3]
        assert acting.step(case.xs[step].numpy(), case.starts[step].numpy(), choice, drawn[step])
        outputs = torch.nn.functional.linear(acting.features, *head)
        assert torch.allclose(acting.outputs, outputs, atol=1e-5)
        cumulative = torch.softmax(acting.outputs, -1).cumsum(-1)
        if choice == MOST_PROBABLE:
            assert acting.actions.tolist() == acting.outputs.argmax(-1).tolist()
        if choice == SAMPLES:
            noise = torch.from_numpy(drawn[step]).unsqueeze(-1)
            assert acting.actions.tolist() == (cumulative[:, :-1] <= noise).sum(-1).tolist()
    head[1][0] = torch.nan
    acting = case.network.acting(case.params, case.state, (50,), 1, head)
    assert acting is not None
    assert not acting.step(case.xs[0].numpy(), case.starts[0].numpy(), SAMPLES, drawn[0])


def test_a_gain_that_is_not_finite_is_not_swallowed_by_a_clip() -> None:
    case = cast(contracting(RULES["fan-out"], steps=4, units=18, start_rate=0.0), torch.float32)
    case.params["modulator_offset"][3] = torch.inf
    for level in levels():
        case.network.core = Core(level, "")
        features, _ = acted(case, 4)
        assert features[1][:, 3].isnan().all()
        assert features[-1].isnan().all()


# --- the plan --------------------------------------------------------------------------------------------------------


def plan(**changes: Any) -> Any:
    core = extension()
    assert core is not None
    flags = ("oja", "shifted", "traced", "decays", "soft", "gate_by_synapse", "computes_signal")
    sizes = {"individuals": 1, "lifetimes": 2, "steps": 3, "units": 5, "inputs": 4, "signals": 0}
    given: dict[str, Any] = {**dict.fromkeys(flags, False), "simple": True, "clip": 1.0, **sizes, **changes}
    return core.Plan(given.pop("level", levels()[0]), **given)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("post", torch.zeros(4, 2, LANES, dtype=torch.float64), "post must be a writable array of float32"),
        ("post", torch.zeros(4, LANES, 2).mT, "in C order on the CPU"),
        ("post", torch.zeros(4, 2, 5), r"post must be of shape \(4, 2, 16\), got \(4, 2, 5\)"),
        ("flags", torch.zeros(4, 2), "flags must be a writable array of uint8"),
        ("post", [[0.0]], "post must be a writable array"),
        ("possed", torch.zeros(1), "a plan has no array possed"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(name: str, value: Any, message: str) -> None:
    """A converted copy would swallow what is written to it."""
    with pytest.raises((TypeError, ValueError), match=message):
        plan().bind(**{name: value})


def test_a_plan_that_is_not_complete_takes_no_step() -> None:
    with pytest.raises(ValueError, match="an array that this rule needs is not bound"):
        plan().step(0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"level": "mmx"}, "no level mmx here; there are baseline"),
        ({"units": 0}, "at least one"),
        ({"units": 20000}, "at most 16384 units"),
        ({"oja": True}, "a simple rule has Hebb's term"),
        ({"computes_signal": True}, "the first of the signals"),
    ],
)
def test_plans_that_make_no_sense_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        plan(**changes)


def test_tanh_is_accurate_and_the_same_at_every_level() -> None:
    core = extension()
    assert core is not None
    values = torch.cat([torch.linspace(-12, 12, 40000), torch.logspace(-30, 2, 40000), -torch.logspace(-30, 2, 40000)])
    values = torch.cat([values, torch.tensor([torch.inf, -torch.inf, torch.nan, 0.0])])
    values = torch.cat([values, torch.zeros(-len(values) % LANES)])
    found = []
    for level in levels():
        found.append(torch.empty_like(values))
        core.tanh(level, values, found[-1])
    exact = torch.tanh(values.double())
    finite = ~values.isnan()
    assert ((found[0] - exact)[finite].abs() <= 1.5 * 2**-23 * exact[finite].abs()).all()
    assert found[0][~finite].isnan().all()
    assert all(torch.equal(found[0][finite], own[finite]) for own in found)


# --- which rules -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {"normalise": "incoming_l2"},
        {"metaplasticity": "importance"},
        {"homeostasis": "synaptic_scaling"},
        {"consolidation": "two_speeds"},
        {"structure": {"name": "rewire"}},
        {"structure": {"name": "sparse", "drawn": "lifetime"}},
        {"term": "abcd"},
        {"term": "covariance"},
        {"modulator": {"name": "channels", "channels": ["novelty"]}},
        {"modulator": {"name": "channels", "channels": ["reward"], "attention": True}},
        {"bound": "soft_clip", "decay": True},
    ],
)
def test_other_rules_are_left_to_the_reference(changes: dict[str, Any]) -> None:
    assert NativeRule.of(Synapse(SynapseConfig(), 3, 3)) is not None
    assert NativeRule.of(Synapse(SynapseConfig(**changes), 3, 3)) is None


def test_a_users_term_under_a_builtin_name_is_not_taken_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    class Own(Hebb):
        pass

    monkeypatch.setitem(TERMS._entries, "hebb", Own)
    assert NativeRule.of(Synapse(SynapseConfig(), 3, 3)) is None
