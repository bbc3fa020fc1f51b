"""Layer normalisation: against torch's own, its moments, what it is blind to, and what it changes in a network."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from plastic_rl.errors import ConfigError
from plastic_rl.networks.layer_norm import EPSILON, layer_normalised
from tests.networks.cases import ACTIONS, INPUTS, Case, make_case, make_network

RECURRENT = {"kind": "plastic_rnn", "rule": "oja", "layer_norm": 1.0}
UNITS = {"kind": "plastic_units", "recurrent": {"rule": "oja"}, "layer_norm": 1.0}
both = pytest.mark.parametrize("config", [RECURRENT, UNITS], ids=["plastic_rnn", "plastic_units"])


def drawn(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(len(shape)), dtype=torch.float64)


def test_it_is_torchs_layer_norm() -> None:
    drive, gain = 3 * drawn(7, 5, 20) + 1, drawn(20)
    expected = torch.nn.functional.layer_norm(drive, (20,), gain, eps=EPSILON)
    torch.testing.assert_close(layer_normalised(drive, gain), expected, atol=1e-12, rtol=0)


def test_mean_is_0_and_variance_1() -> None:
    normalised = layer_normalised(3 * drawn(500, 30) + 5, torch.ones(30, dtype=torch.float64))
    assert normalised.mean(-1).abs().max().item() < 1e-6
    assert (normalised.var(-1, correction=0) - 1).abs().max().item() < 1e-6


def test_individuals_have_gains_of_their_own() -> None:
    drive, gains = drawn(3, 5, 20), drawn(3, 20)
    together = layer_normalised(drive, gains)
    for index in range(3):
        torch.testing.assert_close(together[index], layer_normalised(drive[index], gains[index]), atol=0, rtol=0)


def test_a_layer_of_equal_drives_has_drive_0_and_a_finite_gradient() -> None:
    drive = torch.full((1, 4), 2.0, requires_grad=True)
    normalised = layer_normalised(drive, torch.ones(4))
    assert normalised.tolist() == [[0.0] * 4]
    normalised[0, 0].backward()  # type: ignore[no-untyped-call]
    assert drive.grad is not None
    assert drive.grad.isfinite().all()


def test_its_gradient() -> None:
    drive, gain = drawn(3, 5).requires_grad_(), drawn(5).requires_grad_()
    assert torch.autograd.gradcheck(layer_normalised, (drive, gain))


def first_step(case: Case, params: dict[str, Tensor]) -> Tensor:
    no = torch.zeros_like(case.starts[0])
    with torch.no_grad():
        return case.network.step(params, case.xs[0], case.feedbacks.at(0), case.state, no)[0]


@both
def test_a_networks_step_normalises_all_that_reaches_its_units(config: dict[str, Any]) -> None:
    """By hand: `tanh(LN(U o + (W0 + alpha F) y; g) + b)`; with one gain for all, whatever the scale of the weights."""
    case = make_case(config)
    case.feedbacks = case.feedbacks._replace(trial_start=torch.zeros_like(case.feedbacks.trial_start))
    rnn = config is RECURRENT
    names = ("input_weight", "input_bias", "recurrent_weight", "alpha", "norm_gain", "trace", "activity")
    if not rnn:
        of = "synapses.recurrent."
        names = ("synapses.input.weight", "units.hidden.bias", f"{of}weight", f"{of}alpha", "units.hidden.norm_gain")
        names = (*names, "trace.recurrent", "activity.hidden")
    u, b, w, alpha, gain, trace, activity = ((case.params | case.state)[name] for name in names)
    drive = case.xs[0] @ u.mT + ((w + alpha * trace) @ activity.unsqueeze(-1)).squeeze(-1)
    expected = torch.tanh(torch.nn.functional.layer_norm(drive, drive.shape[-1:], gain, b, EPSILON))
    features = first_step(case, case.params)
    torch.testing.assert_close(features, expected, atol=1e-12, rtol=0)
    scaled = case.params | {name: 7 * case.params[name] for name in (names[0], names[2], names[3])}
    torch.testing.assert_close(first_step(case, scaled), features, atol=1e-6, rtol=0)


@both
def test_without_it_there_is_no_gain(config: dict[str, Any]) -> None:
    plain = {name: value for name, value in config.items() if name != "layer_norm"}
    networks = [
        make_network({**one, "hidden_size": 6}, INPUTS, ACTIONS, torch.Generator().manual_seed(0))
        for one in (plain, config)
    ]
    without, with_it = (dict(network.named_parameters()) for network in networks)
    assert {name.split(".")[-1] for name in set(with_it) - set(without)} == {"norm_gain"}
    for name, value in without.items():
        assert torch.equal(value, with_it[name])


@both
def test_one_unit_cannot_be_normalised(config: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="there are 1 hidden units; give hidden_size 2 or more, or layer_norm: null"):
        make_network({**config, "hidden_size": 1}, INPUTS, ACTIONS)


def test_conductances_alone_leave_nothing_to_normalise() -> None:
    """They are left as they are: with no current onto the hidden units the gain would do nothing."""
    own = {"conductance": {"excitatory": 6.0, "inhibitory": -3.0}}
    config: dict[str, Any] = {"kind": "plastic_units", "neuron": "lif", "layer_norm": 1.0, "hidden_size": 3}
    for conducting in ({"input": own}, {"input": own, "recurrent": own}):
        with pytest.raises(ConfigError, match="layer_norm scales currents, and all synapses onto the hidden units"):
            make_network({**config, **conducting}, INPUTS, ACTIONS)
    make_network({**config, "input": own, "recurrent": {}}, INPUTS, ACTIONS)
