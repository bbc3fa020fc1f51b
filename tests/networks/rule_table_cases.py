"""Rule-table networks, and what they are shown and told, as their tests share them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from plastic_rl.networks import Feedback, State
from plastic_rl.networks.rule_table.network import RuleTableNetwork
from tests.networks.cases import make_network

KIND = {"kind": "rule_table"}
ALL_LAYERS = {"input": True, "hidden": True, "output": True}
UNSCALED = {"input": "none", "hidden": "none", "output": "none"}
NOBODY = torch.tensor([False])


def build(
    config: dict[str, Any], features: int, actions: int, *, labels: bool = False, double: bool = True
) -> RuleTableNetwork:
    inputs = features + actions + 3 + labels * actions
    network = make_network(KIND | config, inputs, actions, torch.Generator(), labels=labels)
    assert isinstance(network, RuleTableNetwork)
    return network.double() if double else network


def observe(network: RuleTableNetwork, *features: float) -> Tensor:
    columns = torch.zeros(1, network.input_size, dtype=torch.float64)
    columns[0, : len(features)] = torch.tensor(features)
    return columns


def told(chosen: int, reward: float, actions: int, label: int | None = None, valid: bool = True) -> Feedback:
    eye = torch.eye(actions, dtype=torch.float64)
    return Feedback(
        eye[chosen : chosen + 1],
        torch.tensor([reward], dtype=torch.float64),
        torch.tensor([True]),
        torch.tensor([valid]),
        None if label is None else eye[label : label + 1],
    )


def newborn(network: RuleTableNetwork, **weights: list[list[float]]) -> State:
    """The state of one lifetime with weights set by hand."""
    state = network.initial_state(1, torch.Generator())
    return state | {f"{name}_weight": torch.tensor([value], dtype=torch.float64) for name, value in weights.items()}
