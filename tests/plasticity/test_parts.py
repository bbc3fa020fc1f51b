"""Bounds, normalisations, gains and the choice of parts."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from plastic_rl.errors import ConfigError, UnknownNameError
from plastic_rl.plasticity import (
    BOUNDS,
    ELIGIBILITIES,
    MODULATORS,
    NORMALISATIONS,
    PARTS,
    RULES,
    TERMS,
    GainConfig,
    RuleConfig,
    Synapse,
    SynapseConfig,
    make_part,
)


def matrix(*rows: list[float]) -> torch.Tensor:
    return torch.tensor([rows], dtype=torch.float64)


def test_hard_clip_stops_at_c_and_passes_gradient_there() -> None:
    kept = torch.tensor([1.5, 1.0, 0.5], dtype=torch.float64, requires_grad=True)
    change = torch.tensor([1.0, 1.0, 1.0], dtype=torch.float64)
    bounded = BOUNDS["hard_clip"](kept, change, 2.0)
    assert bounded.tolist() == [2.0, 2.0, 1.5]
    (gradient,) = torch.autograd.grad(bounded.sum(), kept)
    assert gradient.tolist() == [0.0, 1.0, 1.0]  # 1 + 1 is exactly c: as torch.clamp


def test_soft_clip_is_the_published_formula() -> None:
    generator = torch.Generator().manual_seed(0)
    kept = torch.rand(50, generator=generator, dtype=torch.float64) * 2 - 1
    change = torch.randn(50, generator=generator, dtype=torch.float64) * 2
    published = kept + change.clamp_min(0) * (1 - kept) + change.clamp_max(0) * (1 + kept)
    torch.testing.assert_close(BOUNDS["soft_clip"](kept, change, 9.0), published.clamp(-1, 1), atol=1e-15, rtol=0)


def test_normalisations() -> None:
    trace = matrix([3.0, 4.0], [0.0, 0.0])
    assert NORMALISATIONS["none"](trace) is trace
    assert NORMALISATIONS["incoming_l1"](matrix([1.0, -3.0], [0.0, 0.0])).tolist() == [[[0.25, -0.75], [0.0, 0.0]]]
    assert NORMALISATIONS["incoming_l2"](trace).tolist() == [[[0.6, 0.8], [0.0, 0.0]]]
    assert NORMALISATIONS["outgoing_l2"](trace).tolist() == [[[1.0, 1.0], [0.0, 0.0]]]
    assert NORMALISATIONS["layer_maximum"](trace).tolist() == [[[0.75, 1.0], [0.0, 0.0]]]
    layers = torch.cat([trace, 2 * trace])
    assert NORMALISATIONS["layer_maximum"](layers)[1].tolist() == [[0.75, 1.0], [0.0, 0.0]]


@pytest.mark.parametrize("name", ["incoming_l1", "incoming_l2", "outgoing_l2", "layer_maximum"])
def test_normalising_nothing_leaves_gradients_as_they_are_step_after_step(name: str) -> None:
    trace = torch.zeros(1, 2, 2, dtype=torch.float64, requires_grad=True)
    normalised: torch.Tensor = trace
    for _ in range(100):
        normalised = NORMALISATIONS[name](normalised)
    (gradient,) = torch.autograd.grad(normalised.sum(), trace)
    assert torch.equal(gradient, torch.ones_like(trace))


def test_normalised_trace_in_an_update() -> None:
    # D = y xT = [3 4; 0 0], eta 1: F = [3 4], scaled to length 1.
    synapse = Synapse(SynapseConfig(normalise="incoming_l2"), 2, 2)
    updated = synapse.update(
        {"eta": torch.ones(1, 1, dtype=torch.float64)},
        torch.tensor([[3.0, 4.0]], dtype=torch.float64),
        torch.tensor([[1.0, 0.0]], dtype=torch.float64),
        {"trace": torch.zeros(1, 2, 2, dtype=torch.float64)},
    )
    assert updated["trace"].tolist() == [[[0.6, 0.8], [0.0, 0.0]]]


@pytest.mark.parametrize(("granularity", "shape"), [("scalar", (1, 1)), ("neuron", (3, 1)), ("synapse", (3, 2))])
def test_gains_have_the_shape_of_their_granularity(granularity: str, shape: tuple[int, int]) -> None:
    gain = GainConfig.model_validate({"granularity": granularity, "low": -0.5, "high": 0.25, "trainable": False})
    drawn = gain.draw(3, 2, torch.Generator().manual_seed(0))
    assert tuple(drawn.value.shape) == shape
    assert not drawn.trainable
    assert bool(((drawn.value >= -0.5) & (drawn.value <= 0.25)).all())
    again = gain.draw(3, 2, torch.Generator().manual_seed(0))
    assert torch.equal(drawn.value, again.value)


def test_equal_bounds_are_a_constant() -> None:
    assert GainConfig(low=0.1, high=0.1).draw(2, 2).value.tolist() == [[pytest.approx(0.1)] * 2] * 2


def test_eta_for_each_neuron_scales_rows_and_for_each_synapse_entries() -> None:
    synapse = Synapse(SynapseConfig(), 2, 2)
    state = {"trace": torch.zeros(1, 2, 2)}
    ones = torch.ones(1, 2)
    rows = synapse.update({"eta": torch.tensor([[0.1], [0.2]])}, ones, ones, state)["trace"]
    torch.testing.assert_close(rows, torch.tensor([[[0.1, 0.1], [0.2, 0.2]]]))
    entries = synapse.update({"eta": torch.tensor([[0.1, 0.3], [0.2, 0.4]])}, ones, ones, state)["trace"]
    torch.testing.assert_close(entries, torch.tensor([[[0.1, 0.3], [0.2, 0.4]]]))


def test_a_synapse_whose_alpha_starts_at_zero_is_plastic_unless_it_stays_there() -> None:
    non_plastic = {
        trainable: Synapse(SynapseConfig(alpha=GainConfig(low=0.0, high=0.0, trainable=trainable)), 2, 2).non_plastic
        for trainable in (True, False)
    }
    assert non_plastic == {True: False, False: True}


def test_a_modulator_starts_within_the_reach_of_its_inputs() -> None:
    weight = MODULATORS["simple"]().parameters(400, torch.Generator().manual_seed(0))["modulator_weight"].value
    assert tuple(weight.shape) == (1, 400)
    assert 0.95 / 20 < weight.abs().max().item() <= 1 / 20
    assert weight.std().item() == pytest.approx(1 / 20 / 3**0.5, rel=0.15)


def test_gain_bounds_out_of_order_are_refused() -> None:
    with pytest.raises(ValidationError, match="low must not exceed high"):
        GainConfig(low=1.0, high=0.0)


@pytest.mark.parametrize(
    ("registry", "wrong", "nearest"),
    [
        (TERMS, "hep", "hebb"),
        (MODULATORS, "fanout", "fan_out"),
        (ELIGIBILITIES, "traces", "trace"),
        (BOUNDS, "hardclip", "hard_clip"),
        (NORMALISATIONS, "incomming_l2", "incoming_l2"),
        (RULES, "ojja", "oja"),
    ],
)
def test_unknown_names_come_with_the_nearest(registry: object, wrong: str, nearest: str) -> None:
    with pytest.raises(UnknownNameError, match=f"Did you mean '{nearest}'"):
        registry[wrong]  # type: ignore[index]


@pytest.mark.parametrize("field", ["rule", "term", "modulator", "eligibility", "bound", "normalise"])
def test_configs_refuse_unknown_parts(field: str) -> None:
    with pytest.raises(ValidationError, match="unknown"):
        RuleConfig.model_validate({field: "no_such_part"})


def test_overrides_change_only_what_they_name() -> None:
    synapse = RuleConfig.model_validate(
        {"rule": "backpropamine_retroactive", "clip": 2.0, "alpha": {"granularity": "scalar"}}
    )
    rule = RULES["backpropamine_retroactive"]
    assert synapse.clip == 2.0
    assert synapse.alpha == GainConfig(granularity="scalar", low=rule.alpha.low, high=rule.alpha.high)
    unchanged = synapse.model_copy(update={"clip": rule.clip, "alpha": rule.alpha})
    assert {name: getattr(unchanged, name) for name in SynapseConfig.model_fields} == dict(rule)
    # Written out, it is the rule's name and the changes: another name is another rule.
    written = synapse.model_dump(mode="json")
    assert set(written) == {"rule", "clip", "alpha"}
    assert RuleConfig.model_validate(written) == synapse
    assert RuleConfig.model_validate(written | {"rule": "oja"}).term == "oja"


def test_an_override_that_breaks_a_gain_is_refused() -> None:
    with pytest.raises(ValidationError, match="low must not exceed high"):
        RuleConfig.model_validate({"alpha": {"low": 5.0}})


def test_every_field_is_described() -> None:
    for model in (SynapseConfig, RuleConfig, GainConfig):
        undescribed = [name for name, field in model.model_fields.items() if not field.description]
        assert undescribed == []


@pytest.mark.parametrize("rule", sorted(RULES))
def test_every_parameter_starts_within_its_valid_range(rule: str) -> None:
    for name, parameter in Synapse(RULES[rule], 3, 4).parameters(torch.Generator().manual_seed(0)).items():
        low, high = parameter.valid
        assert bool(((parameter.value >= low) & (parameter.value <= high)).all()), name


@pytest.mark.parametrize(
    ("changes", "valid"),
    [
        ({"rule": "oja"}, (0.0, 1.0)),
        ({"rule": "oja", "anti_hebbian": True}, (-1.0, 1.0)),
        ({"rule": "differentiable_plasticity"}, (0.0, 1.0)),
        ({"rule": "reward_gated"}, (0.0, math.inf)),
        ({"rule": "reward_gated", "anti_hebbian": True}, (-math.inf, math.inf)),
    ],
)
def test_the_range_of_eta_is_that_of_the_rule(changes: dict[str, object], valid: tuple[float, float]) -> None:
    assert Synapse(RuleConfig.model_validate(changes), 2, 2).parameters()["eta"].valid == valid


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rule": "oja", "eta": {"low": 0.5, "high": 1.5}}, "eta must start from 0 to 1, got 0.5 to 1.5"),
        ({"rule": "oja", "eta": {"low": -0.1}}, r"got -0.1 to 0.1 \(below 0: set anti_hebbian to true\)"),
        (
            {"rule": "backpropamine_retroactive", "eta_eligibility": {"high": 2}},
            "eta_eligibility must start",
        ),
        ({"rule": "differentiable_plasticity", "anti_hebbian": True}, "set anti_hebbian to false"),
    ],
)
def test_rates_that_start_outside_their_range_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        RuleConfig.model_validate(changes)


def test_a_rate_that_the_rule_does_not_read_may_be_anything() -> None:
    assert RuleConfig.model_validate({"rule": "backpropamine_simple", "eta": {"low": 5, "high": 5}}).eta.low == 5


@pytest.mark.parametrize(
    ("kind", "part", "idle", "used"),
    [
        ("modulator", {"name": "channels", "channels": ["novelty"]}, "discount", "novelty_rate"),
        ("modulator", {"name": "channels", "channels": ["learned_signal"]}, "serotonin_rate", ""),
        ("term", {"name": "covariance", "threshold": "layer_mean"}, "threshold_post", ""),
        (
            "term",
            {"name": "covariance", "threshold": "parameter"},
            "mean_rate",
            "threshold_post, threshold_pre",
        ),
    ],
)
def test_numbers_that_the_options_do_not_use_cannot_be_learned(
    kind: str, part: dict[str, Any], idle: str, used: str
) -> None:
    there = f"those that would: {used}" if used else "no number of it would"
    with pytest.raises(ConfigError, match=f"learned: {idle} would change nothing with these options; {there}"):
        make_part(PARTS[kind], part | {"learned": [idle]})
    with pytest.raises(ValidationError, match="1 problems") as told:
        RuleConfig.model_validate({kind: part | {"learned": [idle]}})
    assert told.value.errors()[0]["ctx"]["problems"][0].startswith(f"learned: {idle} would change nothing")
    for name in filter(None, used.split(", ")):
        make_part(PARTS[kind], part | {"learned": [name]})
