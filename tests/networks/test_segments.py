"""Learning step by step: computing segments a second time changes nothing, and is done where it saves memory."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
import torch
from torch import Tensor

from plastic_rl.networks import segments
from plastic_rl.neurons import COMPETITIONS, DENDRITES, INTRINSICS, NEURONS
from plastic_rl.plasticity import PARTS
from tests.networks.cases import (
    ALL,
    ONE_TO_ONE,
    PHASES,
    UNITS,
    gradients,
    largest_difference,
    make_case,
    tracked,
    weighted_sum,
)

RECURRENT: dict[str, Any] = {"kind": "plastic_units", "recurrent": {"rule": "reward_gated_retroactive"}, "substeps": 2}
OF_UNITS = {"neuron": NEURONS, "intrinsic": INTRINSICS, "dendrites": DENDRITES, "competition": COMPETITIONS}
EVERY: dict[str, dict[str, Any]] = (
    ALL
    | {
        f"{kind} {name}": RECURRENT | {"recurrent": {"rule": "reward_gated_retroactive", kind: name}}
        for kind, registry in PARTS.items()
        for name in registry
    }
    | {f"{kind} {name}": RECURRENT | {kind: name} for kind, registry in OF_UNITS.items() for name in registry}
)
EVERY["competition k_cap"] |= {"competition": {"name": "k_cap", "k": 3}}
"""All networks of the contract, and one with each part that is registered."""


def learned(config: dict[str, Any], length: int | None, monkeypatch: pytest.MonkeyPatch, **options: Any) -> list[Any]:
    """Values, and gradients of two losses, with every loop cut into segments of so many steps; None: into none."""
    monkeypatch.setattr(segments, "segment_length", lambda *arguments: length or arguments[-1])
    case, leaves = tracked(make_case(config, start_rate=0.2, **options))
    assert case.starts[1:].any()
    run = case.network.prepared(case.params), case.xs, case.feedbacks, case.state, case.starts
    features, state = case.network.unroll_reference(*run)
    of_features = torch.autograd.grad(
        weighted_sum(features, {}), list(leaves.values()), allow_unused=True, retain_graph=True
    )
    return [features, state, of_features, gradients(weighted_sum(features, state), leaves)]


@pytest.mark.parametrize("config", EVERY.values(), ids=EVERY.keys())
def test_values_and_gradients_are_those_of_one_loop_to_the_last_bit(
    config: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected, found = (learned(config, length, monkeypatch, steps=7) for length in (None, 3))
    assert [one.requires_grad for one in expected[1].values()] == [one.requires_grad for one in found[1].values()]
    torch.testing.assert_close(found, expected, atol=0, rtol=0)


@pytest.mark.parametrize("name", [name for name in PHASES if "development" in PHASES[name]])
def test_spontaneous_steps_are_segments_within_segments(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    expected, found = (learned(PHASES[name], length, monkeypatch, steps=5) for length in (None, 2))
    torch.testing.assert_close(found[:2], expected[:2], atol=0, rtol=0)
    assert largest_difference(expected[3], found[3]) < 1e-12


@pytest.mark.parametrize("config", [UNITS["units_spiking"], ONE_TO_ONE["one_to_one_reward_gated"]])
def test_the_activity_of_hidden_units_too(config: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    outcomes = []
    for length in (8, 3):
        monkeypatch.setattr(segments, "segment_length", lambda *_, length=length: length)
        case, leaves = tracked(make_case(config, steps=8))
        run = case.params, case.xs, case.feedbacks, case.state, case.starts
        features, activity, state = case.network.unroll_with_activity(*run)
        outcomes.append((activity, gradients(weighted_sum(features, state | {"shown": activity}), leaves)))
    torch.testing.assert_close(outcomes[1], outcomes[0], atol=0, rtol=0)


@pytest.mark.parametrize("frozen", ["while steps are taken", "on the way back"])
def test_steps_are_computed_again_in_the_contexts_of_the_first_time(
    frozen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcomes = []
    for length in (8, 3):
        monkeypatch.setattr(segments, "segment_length", lambda *_, length=length: length)
        case, leaves = tracked(make_case(ALL["bcm"], steps=8))
        first, second = case.network.freeze_plasticity(), contextlib.nullcontext()
        if frozen == "on the way back":
            first, second = second, first
        with first:
            features, state = case.network.unroll(case.params, case.xs, case.feedbacks, case.state, case.starts)
        with second, case.network.watched(lambda *_: pytest.fail("shown again")):
            outcomes.append(gradients(weighted_sum(features, state), leaves))
        assert case.network.plasticity_frozen is False
    torch.testing.assert_close(outcomes[1], outcomes[0], atol=0, rtol=0)


def test_only_a_gradient_that_nobody_watches_costs_a_second_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segments, "segment_length", lambda *_: 3)
    case, _ = tracked(make_case(ALL["bcm"], steps=8))
    run = case.params, case.xs, case.feedbacks, case.state, case.starts
    taken: list[None] = []
    step = type(case.network).step
    monkeypatch.setattr(type(case.network), "step", lambda *own: taken.append(None) or step(*own))
    shown: list[Tensor] = []
    with case.network.watched(lambda _, course: shown.append(course)):
        watched, _ = case.network.unroll(*run)
    watched.sum().backward()
    assert (len(taken), len(shown)) == (8, 8)
    with torch.no_grad():
        case.network.unroll(*run)
    assert len(taken) == 16
    features, _ = case.network.unroll(*run)
    assert len(taken) == 24
    features.sum().backward()
    assert len(taken) == 32


def test_what_was_modified_since_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segments, "segment_length", lambda *_: 3)
    case, _ = tracked(make_case(ALL["bcm"], steps=8))
    features, _ = case.network.unroll(case.params, case.xs, case.feedbacks, case.state, case.starts)
    with torch.no_grad():
        case.params["alpha"].mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        features.sum().backward()


def test_the_length_of_segments_by_hand() -> None:
    """Of two sines autograd keeps both arguments, the state and one more; at 4 MB each, 100 steps are cut into 10."""

    def step(params: Any, own: Any, state: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        return {}, {"trace": state["trace"].sin().sin(), "key": state["key"]}

    state = {"trace": torch.zeros(1000, 1000), "key": torch.zeros(1000, dtype=torch.int64)}
    assert segments.measured(step, {}, {}, state) == (4_000_000, 4_000_000)
    assert segments.segment_length(step, {}, {}, state, 100) == 10
    assert segments.segment_length(step, {}, {}, state, 60) == 60
