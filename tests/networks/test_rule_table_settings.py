"""What a rule-table network may be: sizes, published settings, what it never sees, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from plastic_rl.errors import ConfigError, SpaceError
from plastic_rl.networks import NETWORKS, Feedback
from plastic_rl.networks.rule_table.config import RULE_TABLE_PRESETS
from tests.networks.cases import make_network
from tests.networks.rule_table_cases import ALL_LAYERS, KIND, build, observe, told


@pytest.mark.parametrize(
    ("config", "size"),
    [
        ({"rounds": 2, "output_table": "supervised"}, 88),
        ({"rounds": 3, "output_table": "supervised"}, 304),
        ({"rounds": 3, "output_table": "supervised_chosen"}, 336),
        ({"rounds": 3}, 336),
        ({"rounds": 3, "gated": {"input": True, "hidden": True}}, 608),
        ({"rounds": 0, "plastic": {"input": False}}, 8),
    ],
)
def test_sizes_of_tables(config: dict[str, Any], size: int) -> None:
    network = build({"plastic": ALL_LAYERS} | config, 10, 4, labels="output_table" in config)
    assert sum(value.numel() for name, value in network.named_parameters() if name.endswith("_table")) == size


def test_a_label_free_network_refuses_labels_and_never_sees_the_feedback_as_input() -> None:
    network = build({"hidden_size": 6, "cap": 3}, 4, 2)
    params, born = dict(network.named_parameters()), torch.tensor([True])
    state = network.initial_state(1, torch.Generator())
    plain = observe(network, 1, 2, 3, 4)
    poisoned = plain.clone()
    poisoned[:, 4:] = torch.nan
    first, _ = network.step(params, plain, told(0, 1, 2, valid=False), state, born)
    second, _ = network.step(params, poisoned, told(0, 1, 2, valid=False), state, born)
    assert torch.equal(first, second)
    with pytest.raises(SpaceError, match=r"label-free.*Classification-v0"):
        build({}, 3, 2, labels=True)


def test_a_label_is_never_an_input() -> None:
    network = build({"output_table": "supervised", "inputs": "all"}, 3, 2, labels=True)
    assert network.feature_size == 3 + 2 + 3 + 1
    params, born = dict(network.named_parameters()), torch.tensor([True])
    state = network.initial_state(1, torch.Generator())
    poisoned = observe(network, 1, 2, 3)
    poisoned[:, -2:] = torch.nan
    outputs, _ = network.step(params, poisoned, told(0, 0, 2, label=0, valid=False), state, born)
    assert outputs.isfinite().all()


def test_supervised_networks_need_labels_and_all_need_inputs() -> None:
    with pytest.raises(SpaceError, match=r"learns from labels.*SupervisedClassification-v0"):
        build({"output_table": "supervised"}, 4, 2, labels=False)
    for labels in (False, True):
        with pytest.raises(SpaceError, match=r"no features before the feedback; use inputs: all"):
            build({"output_table": "supervised"} if labels else {}, 0, 2, labels=labels)


def test_published_settings() -> None:
    joosten = build({"preset": "joosten_2021"}, 10, 4, labels=True)
    sizes = {name: tuple(value.shape) for name, value in joosten.named_parameters()}
    assert sizes == {
        "input_table": (1, 16),
        "hidden_table": (1, 16, 16),
        "output_table": (16, 2),
        "log_step": (3,),
    }
    assert joosten.hidden_table.std().item() == pytest.approx(1, abs=0.2)
    assert not joosten.log_step.requires_grad
    changed = build({"preset": "joosten_2021", "hidden_size": 30, "step": {"output": 0.5}}, 10, 4, labels=True).config
    assert (changed.hidden_size, changed.step.output, changed.step.hidden, changed.cap) == (30, 0.5, 0.01, 10)
    model = NETWORKS["rule_table"].config_model
    for name in RULE_TABLE_PRESETS:
        resolved = model.model_validate({"preset": name})
        assert model.model_validate(resolved.model_dump()) == resolved


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"preset": "joosten"}, "Did you mean 'joosten_2021'"),
        ({"tables": "label_free_heb"}, "Did you mean 'label_free_hebb'"),
        ({"tables": "label_free_hebb", "output_table": "supervised"}, "fills output_table: label_free"),
        ({"tables": "label_free_hebb", "table_values": {"chosen": 1.0}}, "value of table_values"),
        ({"table_values": {"chosen_rewarded": 1.0}}, "belong to a hand-written table"),
        ({"update_without_outcome": True}, "needs no_outcome"),
        ({"cap": 0}, "cap"),
    ],
)
def test_contradictions_are_refused(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_network(KIND | config, 12, 2)


def test_two_thousand_hidden_units() -> None:
    network = build({"hidden_size": 2000, "cap": 50, "tables": "label_free_hebb"}, 10, 4, double=False)
    state = network.initial_state(2, torch.Generator())
    xs = torch.randn(1, 2, network.input_size, generator=torch.Generator().manual_seed(0)).expand(3, -1, -1)
    starts = torch.tensor([[True, True], [False, False], [False, False]])
    feedbacks = Feedback(torch.eye(4)[:2].expand(3, 2, 4), torch.ones(3, 2), torch.ones_like(starts), ~starts)
    outputs, state = network.unroll(dict(network.named_parameters()), xs, feedbacks, state, starts)
    assert (state["code"].sum(-1) == 50).all()
    # Rewarded for what it did, each lifetime now prefers that.
    assert outputs[-1].argmax(-1).tolist() == [0, 1]
