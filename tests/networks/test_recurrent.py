"""The controls against torch's own layers."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.networks.cases import INPUTS, make_case

LAYERS: dict[str, type[nn.RNNBase]] = {"rnn": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}


@pytest.mark.parametrize("kind", LAYERS)
def test_controls_are_torchs_layers(kind: str) -> None:
    case = make_case({"kind": kind}, start_rate=0)
    layer = LAYERS[kind](INPUTS, 6).double()
    names = ("input_weight", "recurrent_weight", "input_bias", "recurrent_bias")
    with torch.no_grad():
        for parameter, name in zip(layer.parameters(), names, strict=True):
            parameter.copy_(case.params[name])
        start = tuple(value.unsqueeze(0) for value in case.state.values())
        expected, _ = layer(case.xs, start if kind == "lstm" else start[0])
        features, _ = case.network.unroll(case.params, case.xs, case.feedbacks, case.state, case.starts)
    torch.testing.assert_close(features, expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize("kind", LAYERS)
def test_activity_may_reset_with_the_trial(kind: str) -> None:
    case = make_case({"kind": kind, "reset": {"activity": "trial"}})
    features, state = case.network.unroll(case.params, case.xs, case.feedbacks, case.state, case.starts)
    expected, expected_state = case.network.unroll_reference(
        case.params, case.xs, case.feedbacks, case.state, case.starts
    )
    torch.testing.assert_close(features, expected, atol=1e-12, rtol=0)
    torch.testing.assert_close(state, expected_state, atol=1e-12, rtol=0)
