"""Short-term plasticity and kinetics against their closed forms."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from plastic_rl.plasticity import KINETICS, PARTS, SHORT_TERM, Presynaptic
from plastic_rl.plasticity.parts import Part, ranges

EVERY = [(kind, name) for kind in ("short_term", "kinetics") for name in PARTS[kind]]


def live(part: Presynaptic, activity: Tensor, **numbers: float) -> tuple[Tensor, dict[str, Tensor]]:
    """What synapses see of `activity (T, B, I)`, and the state at the end; numbers are exact unless given."""
    params = {
        name: torch.tensor([numbers.get(name, getattr(part.options, name))], dtype=torch.float64)
        for name in ranges(type(part.options))
    }
    state = {
        name: torch.full(activity.shape[1:], float(entry.start), dtype=torch.float64)
        for name, entry in part.state_entries(activity.shape[-1]).items()
    }
    seen = []
    for one in activity:
        output, state = part.step(params, one, state)
        seen.append(output)
    return torch.stack(seen), state


def spike_at_once(steps: int) -> Tensor:
    activity = torch.zeros(steps, 1, 1, dtype=torch.float64)
    activity[0] = 1
    return activity


def test_the_alpha_function_peaks_at_tau_and_weighs_tau() -> None:
    tau, h, weight = 4.0, 0.01, 2.5
    seen, _ = live(KINETICS["alpha"](h, tau_synapse=tau), spike_at_once(6000))
    conductance = weight * seen.flatten()
    assert conductance.max().item() == pytest.approx(weight / math.e, rel=1e-3)
    assert (conductance.argmax().item() + 0.5) * h == pytest.approx(tau, abs=h)
    assert conductance.sum().item() * h == pytest.approx(weight * tau, rel=1e-3)


@pytest.mark.parametrize("name", ["exponential", "alpha"])
@pytest.mark.parametrize("h", [0.3, 2.0, 11.0])
def test_a_spike_weighs_tau_at_any_step(name: str, h: float) -> None:
    seen, _ = live(KINETICS[name](h, tau_synapse=7.0), spike_at_once(round(400 / h)))
    assert seen.sum().item() * h == pytest.approx(7.0, abs=1e-10)


@pytest.mark.parametrize("h", [0.5, 3.0])
def test_conductances_of_spikes_add_in_closed_form(h: float) -> None:
    generator = torch.Generator().manual_seed(0)
    activity = (torch.rand(40, 1, 1, generator=generator) < 0.3).double()
    for name in ("exponential", "alpha"):
        _, state = live(KINETICS[name](h, tau_synapse=6.0), activity)
        since = [(40 - step) * h / 6 for step in activity.flatten().nonzero().flatten().tolist()]
        expected = sum(math.exp(-t) if name == "exponential" else t * math.exp(-t) for t in since)
        assert state["conductance"].item() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("options", "at_20_hz"),
    [
        ({"utilisation": 0.5, "tau_facilitation": 50.0, "tau_depression": 800.0}, 0.05835),
        ({"utilisation": 0.15, "tau_facilitation": 750.0, "tau_depression": 50.0}, 0.51350),
    ],
    ids=["depressing", "facilitating"],
)
@pytest.mark.parametrize("h", [50.0, 5.0])
def test_markrams_steady_state(options: dict[str, float], at_20_hz: float, h: float) -> None:
    spikes = torch.zeros(400, round(50 / h), 1, 1, dtype=torch.float64)
    spikes[:, 0] = 1
    seen, _ = live(SHORT_TERM["markram"](h, **options), spikes.flatten(0, 1))
    efficacy = seen.reshape(400, -1)[:, 0]
    use, keeps, recovers = (
        options["utilisation"], math.exp(-50 / options["tau_facilitation"]), math.exp(-50 / options["tau_depression"])
    )  # fmt: skip
    u = use / (1 - (1 - use) * keeps)
    resources = (1 - recovers) / (1 - (1 - u) * recovers)
    assert efficacy[0].item() == use
    assert efficacy[-1].item() == pytest.approx(u * resources, abs=1e-12)
    assert efficacy[-1].item() == pytest.approx(at_20_hz, abs=5e-6)
    # The second spike: u+ = U + u (1 - U) k, R+ = 1 + (R - R u - 1) r with u = U, R = 1.
    second = (use + use * (1 - use) * keeps) * (1 - use * recovers)
    assert efficacy[1].item() == pytest.approx(second, abs=1e-12)
    assert bool((seen.reshape(400, -1)[:, 1:] == 0).all())


def test_rates_of_either_sign_use_resources_by_their_size_and_up_to_a_whole_spike() -> None:
    part = SHORT_TERM["markram"](10.0)
    seen, state = live(part, torch.tensor([[[0.5, -0.5, 3.0]], [[0.5, -0.5, 3.0]]], dtype=torch.float64))
    assert seen[0].tolist() == [[0.25, -0.25, 1.5]]
    assert torch.equal(state["resources"][:, 0], state["resources"][:, 1])
    # R = 1 - .5 x 1 after a whole spike, then 10 ms of recovery; twice.
    kept, gone = math.exp(-10 / 50), math.exp(-10 / 800)
    resources, facilitation = 1 - 0.5 * gone, 0.5 * kept
    left = resources - (0.5 + 0.5 * facilitation) * resources
    assert state["resources"][0, 2].item() == pytest.approx(1 + (left - 1) * gone, abs=1e-12)


@pytest.mark.parametrize(("kind", "name"), EVERY)
def test_gradients_populations_and_arguments(kind: str, name: str) -> None:
    part: Presynaptic = PARTS[kind][name](3.0)
    each = {
        key: torch.tensor([[one], [0.9 * one]], dtype=torch.float64)
        for key, one in part.options.model_dump(include=set(ranges(type(part.options)))).items()
    }
    generator = torch.Generator().manual_seed(0)
    activity = torch.rand(4, 2, 3, 5, generator=generator, dtype=torch.float64)
    start = {
        key: torch.full((2, 3, 5), float(entry.start), dtype=torch.float64)
        for key, entry in part.state_entries(5).items()
    }
    kept = {key: entry.clone() for key, entry in start.items()}

    def outcome(activity: Tensor, *numbers: Tensor) -> tuple[Tensor, ...]:
        state, seen = start, []
        for one in activity:
            output, state = part.step(dict(zip(each, numbers, strict=True)), one, state)
            seen.append(output)
        return torch.stack(seen), *state.values()

    outputs, *_ = outcome(activity, *each.values())
    for index in range(2):
        alone, _ = live(part, activity[:, index], **{key: one[index].item() for key, one in each.items()})
        torch.testing.assert_close(outputs[:, index], alone, atol=1e-12, rtol=0)
    assert all(torch.equal(entry, kept[key]) for key, entry in start.items())
    leaves = [one.clone().requires_grad_() for one in (activity[:, :, :1, :2], *each.values())]
    start = {key: entry[:, :1, :2] for key, entry in start.items()}
    assert torch.autograd.gradcheck(outcome, leaves)


def test_curves_are_what_they_say() -> None:
    alpha = KINETICS["alpha"](tau_synapse=10.0).curves()
    assert alpha is not None
    expected = alpha.x / 10 * torch.exp(-alpha.x / 10)
    torch.testing.assert_close(alpha.lines[""], expected, atol=1e-3, rtol=0)
    markram = SHORT_TERM["markram"]().curves()
    assert markram is not None
    assert markram.lines["20 Hz"][-1].item() == pytest.approx(0.05835, abs=1e-4)
    phi = PARTS["term"]["bcm"]().curves()
    assert phi is not None
    torch.testing.assert_close(phi.lines["theta 2"], phi.x * (phi.x - 2))
    nothing: Part = KINETICS["none"]()
    assert nothing.curves() is None
