"""What every network keeps to, whatever its kind or rule."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from plastic_rl.errors import ConfigError, UnknownNameError
from plastic_rl.networks import NETWORKS, Feedback
from plastic_rl.networks.native import NativeRule
from plastic_rl.networks.phases import PhasesConfig
from plastic_rl.plasticity import RULES, StateEntry, Synapse
from tests.networks.cases import (
    ACTIONS,
    ALL,
    INPUTS,
    at,
    gradients,
    largest_difference,
    make_case,
    make_network,
    run_steps,
    tracked,
    weighted_sum,
)

ACTIVITIES = {
    *("activity", "cell", "presynaptic", "code", "preference", "output"),
    *("voltage", "refractory_left", "adaptation", "age"),
    *("conductance", "conductance_source", "facilitation", "resources"),
}
"""State entries (before a dot) that change while plasticity is frozen."""
FORGOTTEN = {"change", "score", "discounted_score", "return", "steps"}
"""Those that wait for a reward of their own, which a frozen lifetime does not see: 0 while plasticity is frozen."""

PHASED_KINDS = {kind for kind, network in NETWORKS.items() if issubclass(network.config_model, PhasesConfig)}
"""Networks that may sleep: what they are at the moment is told from what they have learned."""

NATIVE = [rule for rule in RULES if NativeRule.of(Synapse(RULES[rule], 2, 2)) is not None]

everywhere = pytest.mark.parametrize("config", ALL.values(), ids=ALL.keys())


def test_every_kind_is_covered() -> None:
    assert {config["kind"] for config in ALL.values()} == set(NETWORKS)


@everywhere
def test_unroll_equals_steps_in_values_and_gradients(config: dict[str, str]) -> None:
    case = make_case(config)
    by_step, step_leaves = tracked(case)
    step_features, step_state = run_steps(by_step)
    by_unroll, unroll_leaves = tracked(case)
    features, state = by_unroll.network.unroll(
        by_unroll.params, by_unroll.xs, by_unroll.feedbacks, by_unroll.state, by_unroll.starts
    )
    torch.testing.assert_close(features, step_features, atol=1e-9, rtol=0)
    torch.testing.assert_close(state, step_state, atol=1e-9, rtol=0)
    expected = gradients(weighted_sum(step_features, step_state), step_leaves)
    got = gradients(weighted_sum(features, state), unroll_leaves)
    assert largest_difference(expected, got) < 1e-9


@pytest.mark.parametrize("rule", NATIVE)
def test_in_float32_either_core_is_the_reference(rule: str, each_core: str) -> None:
    """In float64, as all else here is, torch computes whatever the core."""
    case = make_case(ALL[rule], dtype=torch.float32, scale=0.3)
    assert case.network.core_in_use.name == each_core
    found = []
    for unroll in ("unroll_reference", "unroll"):
        copy, leaves = tracked(case)
        features, state = getattr(copy.network, unroll)(copy.params, copy.xs, copy.feedbacks, copy.state, copy.starts)
        found.append((features.detach(), gradients(weighted_sum(features, state), leaves)))
    torch.testing.assert_close(found[1][0], found[0][0], atol=2e-6, rtol=0)
    assert largest_difference(found[0][1], found[1][1]) < 1e-4


@everywhere
def test_acting_without_a_graph_gives_the_same_values(config: dict[str, str]) -> None:
    case = make_case(config)
    features, state = run_steps(tracked(case)[0])
    with torch.no_grad():
        acted, acted_state = run_steps(case)
    torch.testing.assert_close(acted, features.detach(), atol=1e-12, rtol=0)
    for name in state:
        torch.testing.assert_close(acted_state[name], state[name].detach(), atol=1e-12, rtol=0)


@everywhere
def test_what_goes_on_inside_is_what_the_step_does(config: dict[str, str]) -> None:
    case = make_case(config)
    first = (case.xs[0], at(case.feedbacks, 0), case.state, case.starts[0])
    features, following = case.network.step(case.params, *first)
    inside = case.network.inside(case.params, *first)
    assert all(one.dim() == 3 and len(one) == len(features) for one in inside.outputs.values())
    assert all(one.dim() == 3 and one.isfinite().all() for one in inside.weights.values())
    if config["kind"] == "plastic_units":
        for name, outputs in inside.outputs.items():
            torch.testing.assert_close(outputs[:, -1], following[f"activity.{name}"], atol=0, rtol=0)
    elif config.get("readout") != "greedy":  # whose features are not squashed
        last = list(inside.outputs.values())[-1][:, -1, : features.shape[-1]]
        torch.testing.assert_close(last, features, atol=0, rtol=0)


@everywhere
@pytest.mark.parametrize("grad", [True, False])
def test_arguments_are_never_modified(config: dict[str, str], grad: bool) -> None:
    case = make_case(config)
    leaves: list[Tensor] = [case.xs, case.starts, *case.feedbacks[:4], *case.params.values(), *case.state.values()]
    before = [leaf.clone() for leaf in leaves]
    names = list(case.state)
    with torch.set_grad_enabled(grad):
        _, state = case.network.step(case.params, case.xs[0], at(case.feedbacks, 0), case.state, case.starts[0])
        snapshot = {name: value.clone() for name, value in state.items()}
        case.network.step(case.params, case.xs[1], at(case.feedbacks, 1), state, case.starts[1])
        case.network.unroll(case.params, case.xs, case.feedbacks, case.state, case.starts)
    assert list(case.state) == names
    for leaf, kept in zip(leaves, before, strict=True):
        assert torch.equal(leaf, kept)
    for name, value in state.items():
        assert torch.equal(value, snapshot[name])


@everywhere
def test_a_population_is_its_individuals_stacked(config: dict[str, str]) -> None:
    individuals = [make_case(config, seed=seed, steps=4) for seed in range(3)]
    network = individuals[0].network
    params = {name: torch.stack([case.params[name] for case in individuals]) for name in individuals[0].params}
    state = {name: torch.stack([case.state[name] for case in individuals]) for name in individuals[0].state}
    for grad in (True, False):
        together, apart = dict(state), [case.state for case in individuals]
        for step in range(4):
            feedback = Feedback(
                *(
                    None if entries[0] is None else torch.stack(entries)
                    for entries in zip(*(at(case.feedbacks, step) for case in individuals), strict=True)
                )
            )
            xs = torch.stack([case.xs[step] for case in individuals])
            starts = torch.stack([case.starts[step] for case in individuals])
            with torch.set_grad_enabled(grad):
                features, together = network.step(params, xs, feedback, together, starts)
                outcomes = [
                    network.step(case.params, case.xs[step], at(case.feedbacks, step), own, case.starts[step])
                    for case, own in zip(individuals, apart, strict=True)
                ]
            apart = [outcome[1] for outcome in outcomes]
            for index, (feature, own) in enumerate(outcomes):
                torch.testing.assert_close(features[index], feature, atol=1e-12, rtol=0)
                for name in own:
                    torch.testing.assert_close(together[name][index], own[name], atol=1e-12, rtol=0)


@everywhere
def test_a_lifetime_that_starts_forgets_everything_and_disturbs_nobody(config: dict[str, str]) -> None:
    case = make_case(config)
    start = torch.tensor([False, True, False, True, False])
    feedback = Feedback(
        torch.zeros(5, ACTIONS), torch.ones(5, dtype=torch.float64), torch.zeros(5, dtype=torch.bool), ~start
    )
    if case.feedbacks.label is not None:
        feedback = feedback._replace(label=case.feedbacks.label[0])
    spoilt = {name: value.clone() for name, value in case.state.items()}
    for value in spoilt.values():
        if value.is_floating_point():
            value[start] = torch.nan
    # What is random in a newborn follows from its key: with the same one, it is the same newborn.
    keys = {name: value for name, value in case.state.items() if name == "key"}
    newborn = case.network.initial_state(5) | keys
    for grad in (True, False):
        with torch.set_grad_enabled(grad):
            mixed, mixed_state = case.network.step(case.params, case.xs[0], feedback, spoilt, start)
            none, all_of_them = torch.zeros_like(start), torch.ones_like(start)
            old, old_state = case.network.step(
                case.params, case.xs[0], feedback._replace(valid=all_of_them), case.state, none
            )
            new, new_state = case.network.step(
                case.params, case.xs[0], feedback._replace(valid=none), newborn, all_of_them
            )
        torch.testing.assert_close(mixed[start], new[start], atol=1e-12, rtol=0)
        torch.testing.assert_close(mixed[~start], old[~start], atol=1e-12, rtol=0)
        for name, value in mixed_state.items():
            torch.testing.assert_close(value[start], new_state[name][start], atol=1e-12, rtol=0)
            torch.testing.assert_close(value[~start], old_state[name][~start], atol=1e-12, rtol=0)


@everywhere
def test_frozen_synapses_keep_their_state_while_activity_goes_on(config: dict[str, str]) -> None:
    case = make_case(config, start_rate=0)
    if not any(entry.reset == "trial" for entry in case.network.state_entries().values()):
        case.feedbacks.trial_start[::3] = True  # resets nothing, but may be what is learned from
    with case.network.freeze_plasticity():
        features, state = run_steps(case)
        unrolled, _ = case.network.unroll(case.params, case.xs, case.feedbacks, case.state, case.starts)
    assert not case.network.plasticity_frozen
    torch.testing.assert_close(unrolled, features, atol=1e-9, rtol=0)
    entries = case.network.state_entries()
    for name, value in state.items():
        kind = name.split(".")[0]
        if kind in FORGOTTEN:
            assert not value.any()
        elif kind != "sleep":  # what is stored of trials
            assert torch.equal(value, case.state[name]) != (kind in ACTIVITIES)
            momentary = entries[name].momentary or case.network.config.kind not in PHASED_KINDS
            assert momentary or kind not in ACTIVITIES
    thawed, _ = run_steps(case)
    assert torch.equal(thawed, features) == (not case.network.is_plastic)


def test_thawing_restores_what_was_before_also_after_an_error() -> None:
    network = make_case(ALL["oja"]).network
    with pytest.raises(KeyError), network.freeze_plasticity(), network.freeze_plasticity():
        raise KeyError
    assert not network.plasticity_frozen


@everywhere
def test_state_can_be_stored(config: dict[str, str], tmp_path: Path) -> None:
    case = make_case(config)
    _, state = case.network.unroll(case.params, case.xs, case.feedbacks, case.state, case.starts)
    state = {name: value.detach() for name, value in state.items()}
    save_file(state, tmp_path / "state.safetensors")
    loaded = load_file(tmp_path / "state.safetensors")
    torch.testing.assert_close(loaded, state, atol=0, rtol=0)


@everywhere
def test_newborn_state(config: dict[str, str]) -> None:
    network = make_network({**config, "hidden_size": 6}, INPUTS, ACTIONS)
    state = network.initial_state(3)
    assert set(state) == set(network.state_entries())
    for name, entry in network.state_entries().items():
        assert state[name].shape == (3, *entry.shape)
        assert state[name].dtype == (entry.dtype or torch.float32)
        start = network.get_parameter(entry.start) if isinstance(entry.start, str) else entry.start
        assert "key" in state or bool((state[name] == start).all())


@everywhere
def test_start_weights_follow_from_the_generator_alone(config: dict[str, str]) -> None:
    torch.manual_seed(0)
    first = make_network({**config, "hidden_size": 6}, INPUTS, ACTIONS, torch.Generator().manual_seed(5))
    torch.manual_seed(1)
    untouched = torch.get_rng_state()
    second = make_network({**config, "hidden_size": 6}, INPUTS, ACTIONS, torch.Generator().manual_seed(5))
    assert torch.equal(torch.get_rng_state(), untouched)
    torch.testing.assert_close(first.state_dict(), second.state_dict(), atol=0, rtol=0)


@everywhere
def test_plasticity_parameters_are_trained_parameters(config: dict[str, str]) -> None:
    network = make_network({**config, "hidden_size": 6}, INPUTS, ACTIONS)
    trained = {name for name, parameter in network.named_parameters() if parameter.requires_grad}
    assert set(network.plasticity_parameters()) <= trained
    gains = {name.split(".")[-1] for name in network.plasticity_parameters()}
    if "rule" in config and config.get("start") != "random":
        assert ("alpha" in gains) == RULES[config["rule"]].alpha.trainable
    elif config["kind"] == "attractor":
        assert gains == {"rate"}
    elif config["kind"] == "fine_tuning":
        assert gains == ({"inner_rate"} if network.is_plastic else set())
    elif "rule" not in config and config["kind"] not in {"rule_table", "plastic_units"}:
        assert not gains


@pytest.mark.parametrize("kind", NETWORKS)
def test_every_config_field_is_described(kind: str) -> None:
    fields = NETWORKS[kind].config_model.model_fields
    assert [name for name, field in fields.items() if not field.description] == []


def test_unknown_kinds_and_keys_come_with_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'lstm'"):
        make_network({"kind": "lstmm"}, INPUTS, ACTIONS)
    with pytest.raises(ConfigError, match="hidden_size"):
        make_network({"kind": "gru", "hidden_sise": 3}, INPUTS, ACTIONS)
    with pytest.raises(ConfigError, match=r"network\.kind is missing"):
        make_network({"hidden_size": 3}, INPUTS, ACTIONS)


def test_a_config_model_builds_the_same_network_as_its_mapping() -> None:
    model = NETWORKS["plastic_rnn"].config_model.model_validate({"rule": "oja", "hidden_size": 3})
    built = make_network(model, INPUTS, ACTIONS, torch.Generator().manual_seed(0))
    same = make_network(
        {"kind": "plastic_rnn", "rule": "oja", "hidden_size": 3}, INPUTS, ACTIONS, torch.Generator().manual_seed(0)
    )
    torch.testing.assert_close(built.state_dict(), same.state_dict(), atol=0, rtol=0)


def test_only_a_whole_number_named_key_is_drawn() -> None:
    network = make_network({"kind": "rnn"}, INPUTS, ACTIONS)
    assert not network.draws_key
    network._entries = {"key": StateEntry((4,)), "activity": StateEntry((6,))}
    assert not network.draws_key
    assert network.initial_state(3)["key"].tolist() == [[0.0] * 4] * 3
    assert make_network({"kind": "rule_table"}, INPUTS, ACTIONS).draws_key
