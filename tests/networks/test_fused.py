"""The fused unroll against the plain one: values and every gradient, over the family."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch

import plastic_rl.networks.fused.forward as fused
from plastic_rl.networks import PlasticRNN
from plastic_rl.networks.fused.rule import FusedRule
from plastic_rl.plasticity import TERMS, Synapse, SynapseConfig
from plastic_rl.plasticity.terms import Hebb
from tests.networks.cases import (
    ACTIONS,
    ALL,
    FUSED,
    INPUTS,
    Case,
    gradients,
    largest_difference,
    make_case,
    make_network,
    run_steps,
    tracked,
    weighted_sum,
)

VARIANTS: dict[str, dict[str, Any]] = {
    "as it is": {},
    "eligibility": {"eligibility": "trace"},
    "activity per trial": {"reset": {"activity": "trial"}},
    "trace per trial": {"reset": {"trace": "trial"}},
    "clipped early": {"bound": "hard_clip", "clip": 0.3},
    "clipped decay": {"bound": "hard_clip", "clip": 0.3, "decay": True, "eligibility": "trace"},
    "oja, fan-out": {"term": "oja", "modulator": "fan_out", "bound": "hard_clip", "clip": 0.4},
    "oja, soft, eligibility": {"term": "oja", "bound": "soft_clip", "clip": 0.3, "eligibility": "trace"},
}


@pytest.fixture(autouse=True)
def _torch_core(monkeypatch: pytest.MonkeyPatch) -> None:
    """The native core would serve these rules in float32."""
    monkeypatch.setenv("PLASTIC_RL_CORE", "torch")


LOSSES = ["features and final state", "features", "features, recorded"]
"""What the loss is of: training has it of the features alone, after acting has recorded what it computed."""

over_losses = pytest.mark.parametrize("loss", LOSSES)


def both(case: Case, loss: str = LOSSES[0]) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor], float]:
    """Gradients by the plain and the fused unroll, and the largest difference in values."""
    recording = case.network.recording(len(case.xs)) if loss == LOSSES[2] else None
    if recording is not None:
        with torch.no_grad():
            run_steps(case, recording)
    found = []
    values = []
    for name, own in (("unroll_reference", {}), ("unroll", {"recorded": recording})):
        copy, leaves = tracked(case)
        features, state = getattr(copy.network, name)(
            copy.params, copy.xs, copy.feedbacks, copy.state, copy.starts, **own
        )
        found.append(gradients(weighted_sum(features, state if loss == LOSSES[0] else {}), leaves))
        values.append({"features": features.detach(), **{key: value.detach() for key, value in state.items()}})
    difference = max((values[0][key] - values[1][key]).abs().max().item() for key in values[0])
    return found[0], found[1], difference


def is_fused(network: object) -> bool:
    assert isinstance(network, PlasticRNN)
    return network.recording(1) is not None


@over_losses
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("granularity", ["scalar", "neuron", "synapse"])
@pytest.mark.parametrize("rule", FUSED)
def test_fused_equals_plain_in_float64(rule: str, granularity: str, variant: str, loss: str) -> None:
    gains = {name: {"granularity": granularity} for name in ("alpha", "eta", "eta_eligibility")}
    config = ALL[rule] | gains | VARIANTS[variant]
    if config.get("decay") and rule == "soft_clip":
        config |= {"bound": "hard_clip"}
    case = make_case(config)
    # Softly clipped decay is the one combination here that is not of the family.
    assert is_fused(case.network) == (not (rule == "differentiable_plasticity" and "soft" in variant))
    plain, quick, difference = both(case, loss)
    assert difference < 1e-9
    assert largest_difference(plain, quick) < 1e-9


@over_losses
@pytest.mark.parametrize(("alpha", "eta"), list(itertools.product(["scalar", "neuron", "synapse"], repeat=2)))
def test_granularities_mix(alpha: str, eta: str, loss: str) -> None:
    config = ALL["backpropamine_retroactive"] | {
        "alpha": {"granularity": alpha},
        "eta_eligibility": {"granularity": eta},
    }
    plain, quick, difference = both(make_case(config), loss)
    assert difference < 1e-9
    assert largest_difference(plain, quick) < 1e-9


@over_losses
@pytest.mark.parametrize("rule", FUSED)
def test_fused_equals_plain_in_float32_with_the_clip_active(rule: str, loss: str) -> None:
    clip = {} if rule == "soft_clip" else {"bound": "hard_clip", "clip": 0.15}
    decay = {"decay": False} if rule == "soft_clip" else {}
    # Contracting weights: strong plasticity is chaotic, and then rounding grows with time whatever the code.
    case = make_case(ALL[rule] | clip | decay, steps=60, units=12, scale=0.05, dtype=torch.float32, start_rate=0.02)
    case.params["recurrent_weight"] = 0.5 * case.params["recurrent_weight"]
    if "eta" in case.params:
        case.params["eta"] = torch.full_like(case.params["eta"], 0.4)
    _, state = run_steps(case)
    bound = 0.99 if rule == "soft_clip" else 0.15
    assert rule == "soft_clip" or (state["trace"].abs() >= bound).float().mean().item() > 0.01
    plain, quick, difference = both(case, loss)
    assert difference < 1e-5
    assert largest_difference(plain, quick) < 5e-5


@pytest.mark.parametrize("loss", LOSSES[1:])
def test_gradient_passes_where_the_trace_is_at_the_bound_without_being_clipped(loss: str) -> None:
    # Traces start at exactly +-c and nothing pushes them: silent input and no bias keep y = 0, so F + 0 is exactly c.
    case = make_case(ALL["backpropamine_simple"] | {"clip": 0.5}, steps=6, start_rate=0)
    case.params["input_bias"] = torch.zeros_like(case.params["input_bias"])
    case.xs[:4] = 0
    case.state = {"activity": torch.zeros_like(case.state["activity"]), "trace": 0.5 * case.state["trace"].sign()}
    plain, quick, difference = both(case, loss)
    assert plain["initial trace"].abs().max().item() > 1e-3
    assert difference < 1e-9
    assert largest_difference(plain, quick) < 1e-9


@over_losses
@pytest.mark.parametrize("rule", ["backpropamine_fan_out", "backpropamine_retroactive", "soft_clip"])
@pytest.mark.parametrize("group_bytes", [1, 6 * 6 * 8 * 2, 10**9])
def test_groups_of_lifetimes_change_nothing(
    rule: str, group_bytes: int, loss: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fused, "GROUP_BYTES", group_bytes)
    plain, quick, difference = both(make_case(ALL[rule]), loss)
    assert difference < 1e-9
    assert largest_difference(plain, quick) < 1e-9


@over_losses
@pytest.mark.parametrize("steps", [1, 2, 3, 50])
def test_any_number_of_steps(steps: int, loss: str) -> None:
    for rule in ("backpropamine_fan_out", "backpropamine_retroactive", "differentiable_plasticity"):
        plain, quick, difference = both(make_case(ALL[rule], steps=steps), loss)
        assert difference < 1e-9
        assert largest_difference(plain, quick) < 1e-9


def test_a_loss_on_few_steps_or_on_the_final_state_alone() -> None:
    case = make_case(ALL["backpropamine_retroactive"])
    for pick in ("features", "activity", "trace", "eligibility"):
        found = []
        for name in ("unroll_reference", "unroll"):
            copy, leaves = tracked(case)
            features, state = getattr(copy.network, name)(copy.params, copy.xs, copy.feedbacks, copy.state, copy.starts)
            loss = features[7, 2].sum() if pick == "features" else state[pick].sum()
            found.append(gradients(loss, leaves))
        assert largest_difference(*found) < 1e-9


def test_parameters_that_are_not_trained_may_lack_gradients() -> None:
    network = make_network({**ALL["hard_clip"], "hidden_size": 6, "alpha": {"trainable": False}}, INPUTS, ACTIONS)
    case = make_case(ALL["hard_clip"], dtype=torch.float32)
    features, _ = network.unroll(
        dict(network.named_parameters()), case.xs, case.feedbacks, network.initial_state(5), case.starts
    )
    features.sum().backward()
    missing = {name for name, parameter in network.named_parameters() if parameter.grad is None}
    assert missing == {"alpha"}


def test_a_recording_of_another_length_is_refused() -> None:
    case = make_case(ALL["backpropamine_simple"])
    recording = case.network.recording(case.xs.shape[0])
    assert recording is not None
    with pytest.raises(ValueError, match="recording of 0 steps"):
        case.network.unroll(case.params, case.xs, case.feedbacks, case.state, case.starts, recording)


def test_a_recording_can_be_used_twice_and_stays_out_of_the_graph() -> None:
    case = make_case(ALL["backpropamine_fan_out"])
    recording = case.network.recording(case.xs.shape[0])
    assert recording is not None
    with torch.no_grad():
        run_steps(case, recording)
    found = []
    for _ in range(2):
        copy, leaves = tracked(case)
        features, _ = copy.network.unroll(copy.params, copy.xs, copy.feedbacks, copy.state, copy.starts, recording)
        found.append(gradients(weighted_sum(features, {}), leaves))
    assert largest_difference(*found) == 0.0
    assert not recording.activities.requires_grad


def test_rules_outside_the_family_take_the_plain_way() -> None:
    for config in (
        ALL["reward_gated"],
        ALL["hard_clip"] | {"normalise": "incoming_l2"},
        ALL["soft_clip"] | {"decay": True},
        ALL["hard_clip"] | {"unroll": "reference"},
    ):
        assert not is_fused(make_network({**config, "hidden_size": 3}, INPUTS, ACTIONS))
    assert is_fused(make_network({**ALL["hard_clip"], "hidden_size": 3}, INPUTS, ACTIONS))


def test_a_users_own_term_is_not_mistaken_for_a_built_in_one() -> None:
    class Other(Hebb):
        pass

    built_in = TERMS["hebb"]
    try:
        TERMS.register("hebb", Other, replace=True)
        assert FusedRule.of(Synapse(SynapseConfig(), 2, 2)) is None
    finally:
        TERMS.register("hebb", built_in, replace=True)
    assert FusedRule.of(Synapse(SynapseConfig(), 2, 2)) is not None
